"""Every kind of record that is sent: its model, its JSON Schema, and the splicing of results.

Knows no Kafka client. ``python -m stream.schema`` writes the JSON Schemas anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from serve.contract import Answer
from serve.settings import NAME_PATTERN, Task

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


class SentModel(BaseModel):
    """Base of every record: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    def to_bytes(self) -> bytes:
        """JSON in UTF-8, fields in the order of the model."""
        return self.model_dump_json().encode()


class SourcePlace(SentModel):
    """The input record that a result was made from.

    Attributes:
        timestamp: Of the input record, in ms since 1970, as its producer set it: below 0 for what
            happened before, or where there is none.
    """

    topic: str
    partition: Count
    offset: Count
    timestamp: int


class OutputRecord(SentModel):
    """Value of a record on an output topic.

    Attributes:
        id: The input's ``ce_id`` header, else its ``id`` field as it stood, else
            ``topic/partition/offset``.
        result: Shaped as the Hugging Face pipeline of the task.
        truncated: The text was longer than the model takes and was cut.
    """

    id: JsonValue
    task: Task
    model: Name
    version: VersionLabel
    result: JsonValue
    truncated: bool
    source: SourcePlace


class ResultHeaders(SentModel):
    """Headers that a result has besides those of its input; values are UTF-8 text.

    Attributes:
        source: ``topic/partition/offset`` of the input record.
        model: ``name@version``.
        digest: Names the bytes of the model directory.
        attempt: 1 for the first call that had this record in it.
    """

    source: str = Field(alias=SOURCE_HEADER)
    model: str = Field(alias="bertstream-model")
    digest: str = Field(alias="bertstream-digest")
    attempt: Decimal = Field(alias="bertstream-attempt")


class DeadLetterHeaders(SentModel):
    """Headers that a dead letter has besides those of its input; values are UTF-8 text.

    Attributes:
        source: ``topic/partition/offset`` of the input record.
        kind: Why there is no result: a ``FailureKind``.
        message: For people; at most 1,024 characters.
        attempt: Calls that had this record in them; 0 where it was refused before any.
        model: ``name@version``; absent where no version was chosen.
        time: When it was given up, ISO 8601 in UTC with milliseconds.
        value_null: ``true``: the input's value was null, and so was its key; a record needs
            one of the two, so the value here is empty.
        value_omitted: Bytes of the input's value, which did not fit and is empty here.
        headers_omitted: How many headers of the input did not fit; none of them is here.
        key_omitted: Bytes of the input's key, which did not fit and is null here.
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
    """One version's share of the records.

    Attributes:
        digest: Of the model directory that must answer; None takes whichever is served.
        weight: Share of the records, by the hash of their key.
    """

    digest: str | None = None
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ControlRecord(SentModel):
    """Value of a record on the control topic: how one model's records are routed.

    Attributes:
        epoch: Grows with every change; the writer alone counts it.
        versions: Weights sum to 1.
        shadow: A version that also gets what the fallback, or without one any other version,
            has answered; nobody reads those answers, they are compared. It is among
            ``versions``, so that its digest is known.
        shadow_share: Share of the micro-batches that the shadow gets.
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

    Names and numbers of the same meaning add up over windows: ``stream.telemetry.merge``.
    Histograms are sparse: bucket number to count; ``stream.telemetry`` says what a bucket is.

    Attributes:
        pipeline, consumer, model, version, engine, precision, digest: Whose window; None
            where not known yet, or where windows of several were merged.
        consumer: Rank of the pipeline's consumer, from 0.
        start_ms, end_ms: First and last moment, in ms since 1970.
        answers: Records with a prediction.
        failures: Records without, by ``FailureKind``.
        rescued: Records that this version was given and its fallback answered, by reason:
            ``failed``, ``late`` or ``away``.
        deleted: Records that were deleted before they were read, by where the first of them
            stood, ``topic/partition/offset``: in a window of no version.
        retries: Calls that were made again.
        calls: Calls to a replica that came back with answers.
        tokens: Tokens computed, without padding, each distinct text of a call once.
        padded_tokens: The same with padding.
        distinct_texts: Texts computed after equal ones of a call were merged.
        truncated: Answers for a text that was cut.
        replica_us: Wall time inside the replica, summed over calls, in microseconds.
        latency: Histogram of answers by time from the input's timestamp, in ms; without those
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
    """A record that two versions answer differently; its text stays where it is.

    Attributes:
        live, candidate: Best labels.
        live_score, candidate_score: Of those; None for tasks without labels.
    """

    topic: str
    partition: Count
    offset: Count
    live: str
    live_score: float | None
    candidate: str
    candidate_score: float | None


class ComparisonRecord(SentModel):
    """Value of a record on the comparisons topic: one window of a candidate beside the live
    version, over the same micro-batches.

    Attributes:
        start_ms, end_ms: First and last moment, in ms since 1970.
        compared: Records that the live version answered and the candidate was given.
        agreed: Of these, those with the same best label, or nearly the same embedding.
        failed: Of these, those that the candidate had no answer for.
        live_failed: Records besides that the candidate answered and the live version failed on.
        skipped: Records not given to the candidate because it was behind.
        matrix: Live version's best label, candidate's best label, records.
        live_calls, candidate_calls: Histograms of the time in the replica for the same
            micro-batches, with the buckets of telemetry's ``latency``.
        samples: A few of those that do not agree.
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
    """Value of a record on the consumers topic: how one consumer of a pipeline stands.

    Attributes:
        consumer: Its rank, from 0.
        at_ms: When this was so, in ms since 1970.
        epoch: Of the route it follows; None while it knows none.
        versions: Those it still waits for answers from.
        waiting: Records read and not yet committed.
        committed_ago_s: Since its last commit; None before the first.
        trouble: Why it is not going on at the moment; None while all is well.
        last_error: What it had to get over last, whether or not it has; None where nothing was.
        last_error_ms: When, in ms since 1970.
        ended: It will not come back by itself; Ray Serve replaces it.
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
    """Wraps the answers of one model version: constant parts are made once.

    Results are spliced, not parsed: what the replica serialised goes out byte for byte.
    """

    def __init__(self, task: Task, model: str, version: str) -> None:
        self._constant = b',"task":%b,"model":%b,"version":%b,"result":' % (
            orjson.dumps(task),
            orjson.dumps(model),
            orjson.dumps(version),
        )
        self._model = ("bertstream-model", f"{model}@{version}".encode())

    def wrap(
        self,
        answer: Answer,
        *,
        record_id: bytes | None,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
    ) -> bytes:
        """Value of the output record, an ``OutputRecord`` in JSON.

        Args:
            answer: ``result`` and ``id`` hold JSON.
            record_id: The ``ce_id`` header, as ``id_header`` finds it.
            topic: With ``partition`` and ``offset``: where the input record stands.
            timestamp_ms: Of the input record, since 1970; -1 where it has none.
        """
        if record_id:
            identity = orjson.dumps(record_id.decode("utf-8", "backslashreplace"))
        elif answer.id is not None and answer.id != b"null":
            identity = answer.id
        else:
            identity = orjson.dumps(f"{topic}/{partition}/{offset}")
        return (
            b'{"id":%b%b%b,"truncated":%b,"source":'
            b'{"topic":%b,"partition":%d,"offset":%d,"timestamp":%d}}'
        ) % (
            identity,
            self._constant,
            answer.result,
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
        """Headers of the output record: the input's in their order, then ``ResultHeaders``.

        Those of an earlier pipeline that have the same names give way.
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
    """The last ``ce_id`` header's value; None where there is none."""
    for key, value in reversed(headers):
        if key == ID_HEADER:
            return value
    return None


def carried_headers(headers: InputHeaders, *, without: frozenset[str]) -> OutputHeaders:
    """An input's headers as they go out: in order, duplicates kept, those named left out."""
    return [header for header in headers if header[0] not in without]


def schemas() -> dict[str, bytes]:
    """JSON Schema of every record, by file name."""
    kinds: dict[str, type[SentModel]] = {
        "output": OutputRecord,
        "result-headers": ResultHeaders,
        "dead-letter-headers": DeadLetterHeaders,
        "control": ControlRecord,
        "telemetry": TelemetryRecord,
        "comparison": ComparisonRecord,
        "consumer": ConsumerRecord,
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {
        f"{name}.json": orjson.dumps(kind.model_json_schema(), option=options)
        for name, kind in kinds.items()
    }


def write_schemas() -> None:
    """Write the JSON Schemas anew beside this file."""
    SCHEMAS.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (SCHEMAS / name).write_bytes(schema)


if __name__ == "__main__":
    write_schemas()
