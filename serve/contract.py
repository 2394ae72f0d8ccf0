"""The contract between callers and replicas, independent of how either works.

A call carries the values of a micro-batch as read from Kafka and returns one outcome for each,
in the same order. Imports neither ray nor torch nor a Kafka client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, Protocol


class FailureKind(StrEnum):
    """Reason why a record has no answer; the value is in the dead letter's headers."""

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
    TOO_MANY = "too-many"
    WRONG_INPUT = "wrong-input"


OF_THE_VERSION: Final = frozenset(
    {FailureKind.POISON, FailureKind.TOO_LONG, FailureKind.WRONG_INPUT}
)
"""Failures for which another version of the model may still have an answer."""


class Failure(NamedTuple):
    """A record without an answer because of its own content; retrying would not help."""

    kind: FailureKind
    message: str


class Part(NamedTuple):
    """Result of one head of a multi-task model.

    Attributes:
        head: Name of the head.
        task: Its task.
        result: JSON of its result.
    """

    head: str
    task: str
    result: bytes


class Answer(NamedTuple):
    """A record's prediction.

    Attributes:
        result: JSON of the ``result`` field, in the format of the task's Hugging Face pipeline.
        id: JSON of the input's ``id`` field; None where the input has none.
        label: The best label, for telemetry; None for tasks without labels.
        confidence: Score of the best label, answer or text in 0..1; None where scores have no such
            bounds, or there is none.
        tokens: Tokens that the model processed, special tokens included.
        truncated: Whether the text exceeded the model's limit and was cut.
        parts: Results of the heads of a multi-task model, which ``result`` has by name; empty for
            any other model.
    """

    result: bytes
    id: bytes | None
    label: str | None
    confidence: float | None
    tokens: int
    truncated: bool
    parts: tuple[Part, ...] = ()


Outcome = Answer | Failure

LongText = Literal["truncate", "window", "dead-letter"]
WINDOW_STRIDE: Final = 64
"""Default number of tokens that two neighbouring windows have in common."""
PIPELINE_PREFIX: Final = "pipeline-"
"""Prefix of the name of a pipeline's Serve app."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options for reading and answering the records of one pipeline.

    Attributes:
        format: ``json`` (an object with a field for each input of the task) or ``text`` (the
            value is the task's only required input).
        fields: Names of the record's fields by input of the task, where they differ from the
            input's name. An optional input that is named here is required.
        long_text: Handling of a text above the model's limit: ``truncate`` cuts and flags it,
            ``window`` divides it into overlapping windows whose outputs the task merges, and
            ``dead-letter`` makes it fail.
        window_stride: Tokens that two neighbouring windows have in common.
        parameters: Parameters of the task, by name.
    """

    format: Literal["json", "text"] = "json"
    fields: Mapping[str, str] = field(default_factory=dict)
    long_text: LongText = "truncate"
    window_stride: int = WINDOW_STRIDE
    parameters: Mapping[str, Any] = field(default_factory=dict)


class BatchStats(NamedTuple):
    """Cost of one call.

    Attributes:
        tokens: Tokens computed, without padding; each distinct text counts once.
        padded_tokens: Tokens computed, padding included; the ratio to ``tokens`` is >= 1.
        distinct_texts: Texts computed, after equal ones were merged.
        seconds: Wall time inside the replica.
        compute_s: The engine's compute time, without waiting for other calls.
    """

    tokens: int
    padded_tokens: int
    distinct_texts: int
    seconds: float
    compute_s: float


class BatchReply(NamedTuple):
    """Outcomes of one call in the order of its values, their cost, and the model's digest."""

    outcomes: list[Outcome]
    stats: BatchStats
    digest: str


class ReplicaInfo(NamedTuple):
    """Identity of a replica, fixed for its lifetime.

    Attributes:
        engine: ``openvino``, ``torch`` or ``echo``.
        precision: ``f32``, ``bf16``, ``f16``.
        device: Name of the processor or card.
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
        model: Name of the model; empty for a pipeline.
        label: Label of the version; empty for a pipeline, and where only a model is named.
        pipeline: Name of the pipeline; empty for a version.
    """

    model: str = ""
    label: str = ""
    pipeline: str = ""

    @classmethod
    def parse(cls, text: str) -> AppName:
        """Parse a name; a text with neither ``@`` nor the prefix is the name of a model."""
        model, at, label = text.partition("@")
        if not at and text.startswith(PIPELINE_PREFIX):
            return cls(pipeline=text.removeprefix(PIPELINE_PREFIX))
        return cls(model, label)

    def __str__(self) -> str:
        if self.pipeline:
            return f"{PIPELINE_PREFIX}{self.pipeline}"
        return f"{self.model}@{self.label}" if self.label else self.model


def app_name(model: str, version: str) -> str:
    """Return the name of a version's Serve app, which names the version everywhere else, too."""
    return str(AppName(model, version))


class Predictor(Protocol):
    """Anything that answers micro-batches: a replica, or a stand-in with the same behaviour."""

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer every value.

        Args:
            values: Record values as read from Kafka; shape (N,), N >= 1.
            options: Options for reading them.
        Returns:
            A reply with N outcomes, ``outcomes[i]`` for ``values[i]``.
        Raises:
            EngineError: The engine failed on the batch as a whole. The caller may
                divide the batch to find the record at fault. Retriable.
        """
        ...

    def info(self) -> ReplicaInfo:
        """Return the identity of the replica."""
        ...
