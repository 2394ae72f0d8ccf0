"""What a caller and a replica say to each other, and nothing of how either works.

A call carries the values of a micro-batch as they stood on Kafka and brings back one
outcome for each, in the same order. Loads neither ray nor torch nor a Kafka client.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple, Protocol


class FailureKind(StrEnum):
    """Why one record has no answer; the value stands in the dead letter's headers."""

    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NO_TEXT = "no-text"
    WRONG_TYPE = "wrong-type"
    EMPTY_TEXT = "empty-text"
    TOO_LONG = "too-long"
    TOMBSTONE = "tombstone"
    RESULT_TOO_LARGE = "result-too-large"
    POISON = "poison"
    CORRUPT = "corrupt"


OF_THE_VERSION: Final = frozenset({FailureKind.POISON, FailureKind.TOO_LONG})
"""Failures that another version of the model may well have an answer for."""


class Failure(NamedTuple):
    """A record that has no answer, through its own fault: trying again would not help."""

    kind: FailureKind
    message: str


class Answer(NamedTuple):
    """A record's prediction.

    Attributes:
        result: JSON of the ``result`` field, shaped as the Hugging Face pipeline of the task.
        id: JSON of the input's ``id`` field; None where the input has none.
        label: The best label, for telemetry; None for tasks without labels.
        confidence: Its score in 0..1; None for tasks without labels.
        tokens: Tokens that went into the model, special tokens included.
        truncated: The text was longer than the model takes and was cut.
    """

    result: bytes
    id: bytes | None
    label: str | None
    confidence: float | None
    tokens: int
    truncated: bool


Outcome = Answer | Failure

TOP_K: Final = 100
"""Labels of a result: of a model with thousands, all of them would fill a Kafka record."""
PIPELINE_PREFIX: Final = "pipeline-"
"""Begins the name of a pipeline's Serve app."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a replica reads the records of one pipeline.

    Attributes:
        format: ``json`` (an object with a text field) or ``text`` (the value is the text).
        text_field: The field that holds the text; unused for ``text``.
        too_long: What becomes of a text longer than the model takes: cut and flagged, or failed.
        top_k: Labels of a result, the best ones; None for all. Embeddings are whole.
    """

    format: Literal["json", "text"] = "json"
    text_field: str = "text"
    too_long: Literal["truncate", "dead-letter"] = "truncate"
    top_k: int | None = TOP_K


class BatchStats(NamedTuple):
    """What one call cost.

    Attributes:
        tokens: Tokens computed, without padding, each distinct text counted once.
        padded_tokens: Tokens computed, padding included; the ratio to ``tokens`` is >= 1.
        distinct_texts: Texts computed after equal ones were merged.
        seconds: Wall time inside the replica.
        compute_s: What the engine computed for it, without the wait for other calls.
    """

    tokens: int
    padded_tokens: int
    distinct_texts: int
    seconds: float
    compute_s: float


class BatchReply(NamedTuple):
    """Outcomes of one call, in the order of its values, and what they cost."""

    outcomes: list[Outcome]
    stats: BatchStats
    digest: str


class ReplicaInfo(NamedTuple):
    """Who answers: fixed for the life of a replica.

    Attributes:
        engine: ``openvino``, ``torch`` or ``echo``.
        precision: ``f32``, ``bf16``, ``f16``.
        device: The processor or card by name.
    """

    model: str
    version: str
    digest: str
    task: str
    engine: str
    precision: str
    device: str


class AppName(NamedTuple):
    """Name of a Serve app: ``sentiment@3`` serves a version, ``pipeline-reviews`` is a pipeline.

    Attributes:
        model: Empty for a pipeline.
        label: Of the version; empty for a pipeline, and where only a model is named.
        pipeline: Empty for a version.
    """

    model: str = ""
    label: str = ""
    pipeline: str = ""

    @classmethod
    def parse(cls, text: str) -> AppName:
        """Read a name; any text without ``@`` and prefix is the name of a model."""
        model, at, label = text.partition("@")
        if not at and text.startswith(PIPELINE_PREFIX):
            return cls(pipeline=text.removeprefix(PIPELINE_PREFIX))
        return cls(model, label)

    def __str__(self) -> str:
        if self.pipeline:
            return f"{PIPELINE_PREFIX}{self.pipeline}"
        return f"{self.model}@{self.label}" if self.label else self.model


def app_name(model: str, version: str) -> str:
    """Name of the Serve app of a model version, and of the version everywhere else."""
    return str(AppName(model, version))


class Predictor(Protocol):
    """Anything that answers micro-batches: a replica, or a stand-in of the same manners."""

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer each value.

        Args:
            values: Record values as they stood on Kafka; shape (N,), N >= 1.
            options: How to read them.
        Returns:
            A reply with N outcomes, ``outcomes[i]`` for ``values[i]``.
        Raises:
            EngineError: The engine failed on the batch as a whole. The caller may
                divide the batch to find the record that it fails on.
        """
        ...

    def info(self) -> ReplicaInfo:
        """Say who answers."""
        ...
