"""Feature extraction: one text to its embedding, or to a vector for each token.

H hidden, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from serve.agreement import Embedding
from serve.contract import Failure
from serve.embedding import EmbeddingHead
from serve.errors import ParametersRefused
from serve.task import (
    Computed,
    ImportedHead,
    Parameters,
    Passage,
    Prediction,
    Source,
    Task,
    Values,
    merged,
)
from serve.windows import own_tokens, shared_tokens

if TYPE_CHECKING:
    import torch

    from serve.artifact import Artifact

# Fewer decimals would lose more than bf16 does in an embedding of length 1, and hardly be more
# stable.
DECIMALS = 4
STEPS = 255


class FeatureParameters(Parameters):
    """Parameters of feature extraction.

    Attributes:
        prompt_name: Name of the model's prompt to prepend; by default the model's default.
        prompt: Text to prepend; replaces ``prompt_name``.
        dimensions: Numbers that are kept, from the first; for models that were trained so that
            the first numbers carry most (Matryoshka).
        normalize: Whether to scale what is kept to length 1.
        precision: Numbers as computed; or quantised to ``int8`` or ``uint8``; or one bit each,
            eight in a number, as ``binary`` (-128..127) or ``ubinary`` (0..255).
        ranges: Lowest and highest value of each dimension, for ``int8`` and ``uint8``, shape
            (2, H). Without them, ``int8`` scales each vector by its largest number to -127..127.
    """

    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = Field(default=None, ge=1)
    normalize: bool = False
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = "float32"
    ranges: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @model_validator(mode="after")
    def _ranges_fit_the_precision(self) -> Self:
        if self.precision == "uint8" and self.ranges is None:
            raise ValueError("precision uint8 needs ranges")
        if self.ranges is not None and len(self.ranges[0]) != len(self.ranges[1]):
            raise ValueError("ranges must have as many lowest as highest values")
        return self


class TokenVectors(TypedDict, closed=True):
    """Vectors of the tokens of a text, special tokens included; of a model without pooling."""

    tokens: list[str]
    vectors: list[list[float]]


class FeatureExtraction(Task[EmbeddingHead, FeatureParameters]):
    """One embedding, ``[0.0123, ...]``, or ``{"tokens": [...], "vectors": [[...], ...]}``."""

    name = "feature-extraction"
    head_type = EmbeddingHead
    parameters_type = FeatureParameters
    model_class = "AutoModel"
    agreement = Embedding()
    result_type = list[float] | TokenVectors
    shares_pass = True
    sentence_transformers = True

    def __init__(self, head: EmbeddingHead, *, precision: str) -> None:
        """Keep what results depend on; see ``Task``."""
        super().__init__(head, precision=precision)
        self.needs_offsets = head.tokens

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take pooling, layers and prompts of sentence-transformers; see ``Task``."""
        from serve.sentence_import import embedding_head, skips_prompts

        imported = embedding_head(source)
        head = imported.head
        assert isinstance(head, EmbeddingHead)
        if "pooling" in source.settings or not skips_prompts(source.directory):
            return imported
        # The number of tokens to skip is part of the network, so there can be one prompt only.
        default = head.default_prompt_name
        prompts = {} if default is None else {default: head.prompts[default]}
        return imported._replace(head=head.model_copy(update={"prompts": prompts}))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return embeddings (B, H) or the vectors of tokens (B, T, H); see ``Task``."""
        from serve.module import embedder

        return embedder(artifact)

    def check(self, parameters: FeatureParameters) -> None:
        """Refuse a prompt that the model does not have, and quantised tokens; see ``Task``."""
        prompt = self._prompt(parameters)
        head = self.head
        if head.pooling.skip and prompt != head.prompt(None):
            raise ValueError("the pooling skips the tokens of the default prompt: use no other")
        if head.tokens and parameters.precision != "float32":
            raise ValueError("vectors of tokens are not quantised: use precision float32")

    def passages(self, values: Values, parameters: FeatureParameters) -> list[Passage] | Failure:
        """Return the text after its prompt; see ``Task``."""
        (text,) = values
        return [Passage(f"{self._prompt(parameters)}{text}")]

    def predictions(
        self, computed: Sequence[Computed], parameters: FeatureParameters
    ) -> list[Prediction | Failure]:
        """Return each embedding as JSON; see ``Task``."""
        if self.head.tokens:
            return [self._of_tokens(record, parameters) for record in computed]
        vectors = np.stack([merged(record.windows[0]) for record in computed])  # (N, H)
        if self.head.pooling.normalize:
            # One window has length 1 already; scaled again, its digits would depend on the batch.
            several = [len(record.windows[0]) > 1 for record in computed]
            vectors[several] = normalized(vectors[several])
        option = orjson.OPT_SERIALIZE_NUMPY
        return [
            Prediction(orjson.dumps(row, option=option)) for row in finished(vectors, parameters)
        ]

    def _of_tokens(self, record: Computed, parameters: FeatureParameters) -> Prediction:
        """Return tokens and vectors of all windows, each token once; see ``predictions``."""
        windows = record.windows[0]
        tokens: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        before: NDArray[np.int64] | None = None
        for number, window in enumerate(windows, start=1):
            encoding, (states,) = window.encoded.encoding, window.outputs
            assert encoding is not None
            places, own = own_tokens(window)
            # Special tokens of the first window begin the text, those of the last end it.
            start = 0 if before is None else int(places[shared_tokens(before, own)])
            stop = int(places[-1]) + 1 if number < len(windows) else len(encoding.ids)
            tokens += encoding.tokens[start:stop]
            vectors.append(states[start:stop])
            before = own
        rows = finished(np.concatenate(vectors), parameters)
        document: dict[str, Any] = {"tokens": tokens, "vectors": rows}
        return Prediction(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))

    def _prompt(self, parameters: FeatureParameters) -> str:
        if parameters.prompt is not None:
            return parameters.prompt
        return self.head.prompt(parameters.prompt_name)


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length 1; shape (N, H); zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, np.where(lengths > 0, lengths, np.float32(1)), dtype=np.float32)


def finished(vectors: NDArray[np.float32], parameters: FeatureParameters) -> NDArray[Any]:
    """Return vectors cut, scaled and quantised or rounded; shape (N, H) to (N, K).

    Raises:
        ParametersRefused: There are not ranges for H or K dimensions. Not retriable.
    """
    whole, vectors = vectors.shape[1], vectors[:, : parameters.dimensions]
    ranges = None if parameters.ranges is None else len(parameters.ranges[0])
    if ranges not in (None, whole, vectors.shape[1]):
        raise ParametersRefused(
            f"feature-extraction: ranges has {ranges} values, but the model has {whole} dimensions"
        )
    if parameters.normalize:
        vectors = normalized(vectors)
    match parameters.precision:
        case "float32":
            # Rounding leaves -0.0 for small negative numbers; adding 0 turns it into 0.0.
            return np.ascontiguousarray(vectors.round(DECIMALS) + np.float32(0.0))
        case "ubinary" | "binary":
            bits = np.packbits(vectors > 0, axis=1)  # (N, H / 8)
            return bits if parameters.precision == "ubinary" else (bits ^ 128).view(np.int8)
        case precision:
            return _quantised(vectors, parameters.ranges, precision)


def _quantised(
    vectors: NDArray[np.float32],
    ranges: tuple[tuple[float, ...], tuple[float, ...]] | None,
    precision: str,
) -> NDArray[Any]:
    if ranges is None:
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        scaled: NDArray[Any] = vectors / np.where(largest > 0, largest, 1) * 127
        return scaled.round().astype(np.int8)
    lowest, highest = np.array(ranges, dtype=np.float32)[:, : vectors.shape[1]]
    steps = np.where(highest > lowest, (highest - lowest) / STEPS, 1)
    places: NDArray[Any] = np.clip(np.floor((vectors - lowest) / steps), 0, STEPS)
    if precision == "uint8":
        return places.astype(np.uint8)
    return (places - 128).astype(np.int8)
