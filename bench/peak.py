"""Pure arithmetic for BERT encoders and GPUs: the fraction of the peak that a rate reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Dense bf16 and f16 peak in TFLOP/s from the vendor's data sheets, without sparsity; the first
# entry whose name is part of the GPU's name applies.
HALF_PRECISION_PEAKS = (
    ("H100 PCIe", 756.0),
    ("H200", 989.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("A10", 125.0),
    ("T4", 65.0),
)


class Encoder(NamedTuple):
    """Sizes of a BERT encoder.

    Attributes:
        layers: Number of layers.
        hidden: Width of the token vectors.
        intermediate: Width inside the feed-forward part.
    """

    layers: int
    hidden: int
    intermediate: int


def encoder_flop(encoder: Encoder, lengths: Sequence[int]) -> float:
    """Return the floating point operations for items of these lengths, without padding.

    Args:
        encoder: Sizes of the encoder.
        lengths: Tokens per item; shape (N,).
    Returns:
        Multiplications and additions of the matrix products: query, key, value and output
        projections, the two feed-forward layers, and attention's two products.
    """
    layers, hidden, intermediate = encoder
    per_token = 2 * (4 * hidden * hidden + 2 * hidden * intermediate)
    per_pair = 4 * hidden
    return float(
        layers * sum(per_token * length + per_pair * length * length for length in lengths)
    )


def half_precision_peak(card: str) -> float | None:
    """Return the peak in TFLOP/s of a GPU by name, or None if the table lacks it."""
    return next((peak for name, peak in HALF_PRECISION_PEAKS if name in card), None)
