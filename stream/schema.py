"""All records that are read and sent: models and JSON Schemas, and the splicing of results.

Does not use a Kafka client. ``python -m stream.schema`` rewrites the JSON Schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    create_model,
    model_validator,
)

from serve.contract import Answer, Part
from serve.registry import task_type
from serve.settings import NAME_PATTERN
from serve.task_names import TASKS, TaskName

InputHeaders = Sequence[tuple[str, bytes | None]]
OutputHeaders = list[tuple[str, bytes | None]]

SCHEMAS: Final = Path(__file__).parent / "schemas"
ID_HEADER: Final = "ce_id"
SOURCE_HEADER: Final = "bertstream-source"
_RESULT_HEADERS: Final = frozenset(
    {SOURCE_HEADER, "bertstream-model", "bertstream-digest", "bertstream-attempt"}
)
_WEIGHT_TOLERANCE: Final = 1e-6

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
VersionLabel = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$")]
Decimal = Annotated[str, Field(pattern=r"^[0-9]+$")]
InputText = Annotated[str, Field(min_length=1)]
InputTexts = Annotated[list[InputText], Field(min_length=1)]


class SentModel(BaseModel):
    """Base class of every record: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    def to_bytes(self) -> bytes:
        """Return JSON in UTF-8, with the fields in the order of the model."""
        return self.model_dump_json().encode()


class SourcePlace(SentModel):
    """Place of the input record of a result.

    Attributes:
        timestamp: Timestamp of the input record as its producer set it, in ms since 1970;
            negative if it is before 1970 or missing.
    """

    topic: str
    partition: Count
    offset: Count
    timestamp: int


class OutputRecord(SentModel):
    """Value of a record on an output topic.

    Attributes:
        id: The input's ``ce_id`` header, else its unchanged ``id`` field, else
            ``topic/partition/offset``.
        head: Head of a multi-task model that the result is from; only in a record for one head.
        result: Has the format of the task's Hugging Face pipeline.
        results: Results of a multi-task model by the name of the head, instead of ``result``.
        truncated: Whether the text was longer than the model accepts and was truncated.
    """

    id: JsonValue
    task: TaskName
    model: Name
    version: VersionLabel
    head: Name | None = None
    result: JsonValue = None
    results: dict[Name, JsonValue] | None = None
    truncated: bool
    source: SourcePlace

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if len(self.model_fields_set & {"result", "results"}) != 1:
            raise ValueError("a record must have either result or results")
        return self


class ResultHeaders(SentModel):
    """Headers of a result in addition to those of its input; values are UTF-8 text.

    Attributes:
        source: ``topic/partition/offset`` of the input record.
        model: ``name@version``.
        digest: Digest of the model directory.
        attempt: 1 for the first call that contained this record.
    """

    source: str = Field(alias=SOURCE_HEADER)
    model: str = Field(alias="bertstream-model")
    digest: str = Field(alias="bertstream-digest")
    attempt: Decimal = Field(alias="bertstream-attempt")


class DeadLetterHeaders(SentModel):
    """Headers of a dead letter in addition to those of its input; values are UTF-8 text.

    Attributes:
        source: ``topic/partition/offset`` of the input record.
        kind: Why there is no result: a ``FailureKind``.
        message: Explanation for people; at most 1,024 characters.
        attempt: Number of calls that contained this record; 0 if it was refused before any.
        model: ``name@version``; absent if no version was chosen.
        time: When the record was given up, ISO 8601 in UTC with milliseconds.
        value_null: ``true`` if both value and key of the input were null; a record needs one of
            the two, so the value here is empty.
        value_omitted: Size in bytes of the input's value, which did not fit and is empty here.
        headers_omitted: Number of the input's headers, which did not fit and are all omitted.
        key_omitted: Size in bytes of the input's key, which did not fit and is null here.
    """

    source: str = Field(alias=SOURCE_HEADER)
    kind: str = Field(alias="bertstream.errors.kind")
    message: str = Field(alias="bertstream.errors.message", max_length=1024)
    topic: str = Field(alias="bertstream.errors.topic")
    partition: Decimal = Field(alias="bertstream.errors.partition")
    offset: Decimal = Field(alias="bertstream.errors.offset")
    attempt: Decimal = Field(alias="bertstream.errors.attempt")
    model: str | None = Field(default=None, alias="bertstream.errors.model")
    time: str = Field(
        alias="bertstream.errors.time",
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
    )
    value_null: str | None = Field(default=None, alias="bertstream.errors.value-null")
    value_omitted: Decimal | None = Field(default=None, alias="bertstream.errors.value-omitted")
    headers_omitted: Decimal | None = Field(default=None, alias="bertstream.errors.headers-omitted")
    key_omitted: Decimal | None = Field(default=None, alias="bertstream.errors.key-omitted")


class VersionRoute(SentModel):
    """Digest of one version, and the fraction of the records that it answers.

    Attributes:
        digest: Digest of the model directory that must answer; None accepts any.
        weight: Fraction of the records, chosen by the hash of their key.
    """

    digest: str | None = None
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ControlRecord(SentModel):
    """Value of a record on the control topic: how one model's records are routed.

    Attributes:
        epoch: Number that grows with every change; only the writer increments it.
        versions: Routes by version; their weights sum to 1.
        shadow: A version that also gets what the fallback, or without one any other version,
            answers; its answers are compared and not sent. It is among ``versions``, so that its
            digest is known.
        shadow_share: Fraction of the micro-batches that the shadow gets.
        fallback: The version that answers what another fails on, or is late with.
    """

    model: Name
    epoch: Count
    versions: dict[VersionLabel, VersionRoute] = Field(min_length=1)
    shadow: VersionLabel | None = None
    shadow_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    fallback: VersionLabel | None = None

    @model_validator(mode="after")
    def _weights_are_shares(self) -> Self:
        total = sum(route.weight for route in self.versions.values())
        if abs(total - 1) > _WEIGHT_TOLERANCE:
            raise ValueError(f"weights of {self.model} sum to {total}; they must sum to 1")
        for role, version in (("shadow", self.shadow), ("fallback", self.fallback)):
            if version is not None and version not in self.versions:
                raise ValueError(f"{role} {version} of {self.model} must be among its versions")
        if self.shadow is not None and self.versions[self.shadow].weight == 1:
            raise ValueError(f"version {self.shadow} of {self.model} cannot shadow itself")
        return self


class TelemetryRecord(SentModel):
    """Value of a record on the telemetry topic: one window of one pipeline and model version.

    Windows can be added up with ``stream.telemetry.merge``. Histograms are sparse: bucket number
    to count; ``stream.telemetry`` defines the buckets.

    Attributes:
        pipeline, consumer, model, version, engine, precision, digest: Source of the window; None
            if it is not known yet, or if windows of several sources were merged.
        consumer: Rank of the pipeline's consumer, from 0.
        start_ms, end_ms: First and last moment, in ms since 1970.
        answers: Records with a prediction.
        failures: Records without a prediction, by ``FailureKind``.
        rescued: Records that were sent to this version and answered by its fallback, by reason:
            ``failed``, ``late`` or ``away``.
        deleted: Records that were deleted before they were read, by the place of the first one,
            ``topic/partition/offset``; in a window without a version.
        retries: Calls that were repeated.
        calls: Calls to a replica that returned answers.
        tokens: Tokens computed, without padding; each distinct text of a call counts once.
        padded_tokens: The same with padding.
        distinct_texts: Texts computed after equal texts of a call were merged.
        truncated: Answers for a truncated text.
        replica_us: Wall time inside the replica, summed over calls, in microseconds.
        latency: Histogram of answers by time since the input's timestamp, in ms, without those
            whose timestamp is missing, in the future or more than seven days old.
        confidence: Histogram of answers by the score of their best label.
        lengths: Histogram of answers by tokens.
        labels: Answers by best label.
    """

    pipeline: str | None
    consumer: Count | None
    model: str | None
    version: str | None
    engine: str | None
    precision: str | None
    digest: str | None
    start_ms: int
    end_ms: int
    answers: Count
    failures: dict[str, Count]
    rescued: dict[str, Count]
    deleted: dict[str, Count]
    retries: Count
    calls: Count
    tokens: Count
    padded_tokens: Count
    distinct_texts: Count
    truncated: Count
    replica_us: Count
    latency: dict[int, Count]
    confidence: dict[int, Count]
    lengths: dict[int, Count]
    labels: dict[str, Count]


class Disagreement(SentModel):
    """A record that two versions answer differently; its text is not included.

    Attributes:
        live, candidate: Best labels.
        live_score, candidate_score: Scores of those labels; None for tasks without labels.
    """

    topic: str
    partition: Count
    offset: Count
    live: str
    live_score: float | None
    candidate: str
    candidate_score: float | None


class ComparisonRecord(SentModel):
    """Value of a record on the comparisons topic: a candidate and the live version, one window.

    Attributes:
        start_ms, end_ms: First and last moment, in ms since 1970.
        compared: Records that the live version answered and that were sent to the candidate.
        agreed: Number of these with the same best label; for tasks without labels, with the same
            answer and about the same scores.
        failed: Number of these that the candidate did not answer.
        live_failed: Further records that the candidate answered and the live version failed on.
        skipped: Records not sent to the candidate because it was behind.
        matrix: Number of records by the live version's and the candidate's best label.
        live_calls, candidate_calls: Histograms of the time in the replica for the same
            micro-batches, with the buckets of telemetry's ``latency``.
        samples: Some of the records on which the versions disagree.
    """

    pipeline: Name
    consumer: Count
    model: Name
    live: VersionLabel
    candidate: VersionLabel
    start_ms: Count
    end_ms: Count
    compared: Count
    agreed: Count
    failed: Count
    live_failed: Count
    skipped: Count
    matrix: dict[str, dict[str, Count]]
    live_calls: dict[int, Count]
    candidate_calls: dict[int, Count]
    samples: tuple[Disagreement, ...]


class ConsumerRecord(SentModel):
    """Value of a record on the consumers topic: the state of one consumer of a pipeline.

    Attributes:
        consumer: Rank of the consumer, from 0.
        at_ms: Time of this state, in ms since 1970.
        epoch: Epoch of the route that it follows; None while it has none.
        versions: Versions whose answers it still waits for.
        waiting: Records read and not yet committed.
        committed_ago_s: Seconds since its last commit; None before the first.
        trouble: Why it cannot continue at the moment; None if it can.
        last_error: Its last error, whether resolved or not; None if there was none.
        last_error_ms: Time of that error, in ms since 1970.
        ended: Whether it has ended for good; Ray Serve replaces it.
    """

    pipeline: Name
    consumer: Count
    model: Name
    pid: Count
    at_ms: Count
    epoch: Count | None
    versions: tuple[str, ...]
    waiting: Count
    committed_ago_s: Annotated[float, Field(ge=0)] | None
    trouble: Annotated[str, Field(max_length=2048)] | None
    last_error: Annotated[str, Field(max_length=2048)] | None = None
    last_error_ms: Count | None = None
    ended: bool


PlatformRecord = TelemetryRecord | ComparisonRecord | ConsumerRecord


class Envelope:
    """Wraps the answers of one model version; constant parts are built once.

    Results are spliced, not parsed: the replica's JSON is sent byte for byte.
    """

    def __init__(self, task: str, model: str, version: str) -> None:
        self._version = b',"model":%b,"version":%b' % (orjson.dumps(model), orjson.dumps(version))
        start = b',"task":%b%b' % (orjson.dumps(task), self._version)
        self._of_one = b'%b,"result":' % start
        self._of_heads = b'%b,"results":' % start
        self._model = ("bertstream-model", f"{model}@{version}".encode())

    def wrap(
        self,
        answer: Answer,
        *,
        part: Part | None = None,
        record_id: bytes | None,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
    ) -> bytes:
        """Return the value of the output record, an ``OutputRecord`` in JSON.

        Args:
            answer: ``result`` and ``id`` hold JSON.
            part: Head of the answer that the record is for; None for the whole answer.
            record_id: The ``ce_id`` header, as returned by ``id_header``.
            topic: With ``partition`` and ``offset``, the place of the input record.
            timestamp_ms: Timestamp of the input record, in ms since 1970; -1 if it has none.
        """
        if record_id:
            identity = orjson.dumps(record_id.decode("utf-8", "backslashreplace"))
        elif answer.id is not None and answer.id != b"null":
            identity = answer.id
        else:
            identity = orjson.dumps(f"{topic}/{partition}/{offset}")
        if part is None:
            constant, result = self._of_heads if answer.parts else self._of_one, answer.result
        else:
            names = (orjson.dumps(part.task), self._version, orjson.dumps(part.head))
            constant, result = b',"task":%b%b,"head":%b,"result":' % names, part.result
        return (
            b'{"id":%b%b%b,"truncated":%b,"source":'
            b'{"topic":%b,"partition":%d,"offset":%d,"timestamp":%d}}'
        ) % (
            identity,
            constant,
            result,
            b"true" if answer.truncated else b"false",
            orjson.dumps(topic),
            partition,
            offset,
            timestamp_ms,
        )

    def result_headers(
        self,
        headers: InputHeaders,
        *,
        topic: str,
        partition: int,
        offset: int,
        digest: str,
        attempt: int,
    ) -> OutputHeaders:
        """Return the output record's headers: the input's in order, then ``ResultHeaders``.

        Input headers of the same names, from an earlier pipeline, are replaced.
        """
        carried = carried_headers(headers, without=_RESULT_HEADERS) if headers else []
        carried += (
            (SOURCE_HEADER, f"{topic}/{partition}/{offset}".encode()),
            self._model,
            ("bertstream-digest", digest.encode()),
            ("bertstream-attempt", b"%d" % attempt),
        )
        return carried


def id_header(headers: InputHeaders) -> bytes | None:
    """Return the value of the last ``ce_id`` header; None if there is none."""
    for key, value in reversed(headers):
        if key == ID_HEADER:
            return value
    return None


def carried_headers(headers: InputHeaders, *, without: frozenset[str]) -> OutputHeaders:
    """Return an input's headers in order, with duplicates, except those named in ``without``."""
    return [header for header in headers if header[0] not in without]


def input_record(task: str) -> type[BaseModel]:
    """Return the model of the value of a record on an input topic, for one task.

    Its fields have the names of the task's inputs. Text of only white space, which it allows, is
    a dead letter too.
    """
    fields: dict[str, Any] = {}
    for one in task_type(task).inputs:
        kind: Any = InputText if one.kind == "text" else InputTexts
        fields[one.name] = (kind | None, None) if one.optional else kind
    return create_model(
        "InputRecord",
        __config__=ConfigDict(extra="allow"),
        __doc__=f"Value of a record for {task}; the pipeline's ``fields`` may name other fields.",
        id=(JsonValue, None),
        **fields,
    )


def schemas() -> dict[str, bytes]:
    """Return the JSON Schema of every record, and of every task's inputs and results.

    Returns:
        Schemas by path of the file, relative to ``SCHEMAS``.
    """
    kinds: dict[str, type[SentModel]] = {
        "output": OutputRecord,
        "result-headers": ResultHeaders,
        "dead-letter-headers": DeadLetterHeaders,
        "control": ControlRecord,
        "telemetry": TelemetryRecord,
        "comparison": ComparisonRecord,
        "consumer": ConsumerRecord,
    }
    found = {name: kind.model_json_schema() for name, kind in kinds.items()}
    for task in TASKS:
        found[f"inputs/{task}"] = input_record(task).model_json_schema()
        found[f"results/{task}"] = TypeAdapter(task_type(task).result_type).json_schema()
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {f"{name}.json": orjson.dumps(one, option=options) for name, one in found.items()}


def write_schemas() -> None:
    """Write the JSON Schemas to the directory ``SCHEMAS``, and delete those of removed records."""
    made = schemas()
    for file in SCHEMAS.rglob("*.json"):
        if file.relative_to(SCHEMAS).as_posix() not in made:
            file.unlink()
    for name, schema in made.items():
        file = SCHEMAS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(schema)


if __name__ == "__main__":
    write_schemas()
