"""Turns outcomes into the records that are sent: results and dead letters. Pure."""

from __future__ import annotations

from typing import NamedTuple

from serve.contract import Answer, Failure, FailureKind, Outcome, Part, ReplicaInfo, app_name
from stream.deadletter import Rejection, dead_letter, fits
from stream.offsets import Slot
from stream.records import Output
from stream.schema import Envelope, id_header
from stream.settings import PipelineSettings


class TopicLimits(NamedTuple):
    """Maximum size of a record batch per topic, in bytes: its ``max.message.bytes``."""

    output: int
    dead_letters: int


class OutputMaker:
    """Creates the record that is sent for each input record of one pipeline."""

    def __init__(self, settings: PipelineSettings, limits: TopicLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._envelopes: dict[ReplicaInfo, Envelope] = {}

    def finish(
        self, slot: Slot, outcome: Outcome, *, attempt: int, info: ReplicaInfo | None, now_ms: int
    ) -> None:
        """Set the slot's outcome and outputs.

        A result that is too large for the output topic becomes a dead letter.

        Args:
            attempt: Number of calls that contained the record.
            info: The replica that answered; None if no replica was called.
            now_ms: Time of a dead letter, in ms since 1970.
        """
        slot.outcome = outcome
        if isinstance(outcome, Answer):
            assert info is not None  # an answer comes from a replica
            outputs = self._results(slot, outcome, attempt, info)
            too_large = [output for output in outputs if not self._fits(output)]
            if not too_large:
                slot.outputs = outputs
                return
            slot.outcome = outcome = Failure(
                FailureKind.RESULT_TOO_LARGE,
                f"the result of {len(too_large[0].value or b'')} bytes exceeds max.message.bytes = "
                f"{self._limits.output} of topic {too_large[0].topic}; raise that setting",
            )
        slot.outputs = [self._dead_letter(slot, outcome, attempt, info, now_ms)]

    def _results(self, slot: Slot, answer: Answer, attempt: int, info: ReplicaInfo) -> list[Output]:
        """Return the record of an answer, or one for each of its parts if the pipeline wants so."""
        record = slot.record
        envelope = self._envelopes.get(info)
        if envelope is None:
            envelope = Envelope(info.task, info.model, info.version)
            self._envelopes[info] = envelope
        headers = envelope.result_headers(
            record.headers,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            digest=info.digest,
            attempt=attempt,
        )
        record_id = id_header(record.headers) if record.headers else None
        parts: tuple[Part | None, ...] = (None,)
        if answer.parts and self._settings.output_per_head:
            parts = answer.parts
        return [
            Output(
                self._settings.output_topic,
                record.key,
                envelope.wrap(
                    answer,
                    part=part,
                    record_id=record_id,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    timestamp_ms=record.timestamp,
                ),
                headers,
            )
            for part in parts
        ]

    def _fits(self, output: Output) -> bool:
        # Computing the exact size is expensive, and most records are far below the limit.
        if 2 * (len(output.value or b"") + len(output.key or b"")) < self._limits.output:
            small = sum(len(name) + len(content or b"") for name, content in output.headers)
            if 4 * small < self._limits.output:
                return True
        return fits(output.key, output.value, output.headers, max_bytes=self._limits.output)

    def _dead_letter(
        self, slot: Slot, failure: Failure, attempt: int, info: ReplicaInfo | None, now_ms: int
    ) -> Output:
        record = slot.record
        rejection = Rejection(
            kind=failure.kind,
            message=failure.message,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            attempt=attempt,
            model=app_name(info.model, info.version) if info else None,
            time_ms=now_ms,
        )
        letter = dead_letter(
            rejection,
            key=record.key,
            value=record.value,
            headers=record.headers,
            max_bytes=self._limits.dead_letters,
        )
        return Output(self._settings.dead_letters, letter.key, letter.value, letter.headers)
