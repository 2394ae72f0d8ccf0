from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peak import Encoder, encoder_flop, half_precision_peak

MINILM = Encoder(layers=6, hidden=384, intermediate=1536)


def test_linear_layers_of_minilm() -> None:
    # One token attends to itself alone: 4 * hidden a layer on top of the linear layers.
    assert encoder_flop(MINILM, [1]) - 6 * 4 * 384 == pytest.approx(21.2e6, rel=0.005)


@given(st.lists(st.integers(1, 512), max_size=20))
def test_items_add_up_and_a_long_one_costs_more(lengths: list[int]) -> None:
    assert encoder_flop(MINILM, lengths) == sum(encoder_flop(MINILM, [one]) for one in lengths)
    for one in lengths:
        assert encoder_flop(MINILM, [2 * one]) > 2 * encoder_flop(MINILM, [one])


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Tesla T4", 65.0),
        ("GeForce 256", None),
    ],
)
def test_peak_by_name(card: str, peak: float | None) -> None:
    assert half_precision_peak(card) == peak
