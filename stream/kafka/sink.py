"""Producers: commit results, dead letters and offsets together. An adapter to the Kafka client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.producer import record_accumulator
from kafka.record.memory_records import MemoryRecordsBuilder

from stream.errors import CommitFailed, OutputRefused, StreamError
from stream.kafka.connection import broker_errors, common_options, end_producer
from stream.kafka.source import to_client
from stream.records import Offsets, Output
from stream.settings import KafkaSettings, PipelineSettings

# A batch is sent when full, or at the flush that ends every commit: lingering adds no latency and
# prevents the sending thread from racing the loop with batches of one record.
LINGER_MS = 1_000
BATCH_BYTES = 256 * 1024
# The size of a record is checked against the topic's own limit before it is sent.
MAX_REQUEST_BYTES = 64 * 1024 * 1024
# A record violates its topic's settings: a retry alone does not help.
REFUSED = (
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
)


class _Null(bytes):
    """Marks a header value that is null."""


NULL = _Null()


class _Records(MemoryRecordsBuilder):  # type: ignore[misc]
    """Writes null header values: valid in the record format, refused by the client's ``send``."""

    def append(
        self,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> Any:
        """Write one record, with ``NULL`` header values as null."""
        written = [(name, None if content is NULL else content) for name, content in headers or ()]
        return super().append(timestamp, key, value, written)


# The client has no option for this. Records without ``NULL`` are written as before.
record_accumulator.MemoryRecordsBuilder = _Records


class Sink(Protocol):
    """Destination of outputs and offsets; after any error it is closed and a new one is created."""

    def commit(self, outputs: Sequence[Output], offsets: Offsets, group_metadata: Any) -> None:
        """Make outputs durable and move the group's offsets past their records.

        Args:
            outputs: Records in the order in which they must appear.
            offsets: Next offset to read, per partition; may be empty.
            group_metadata: Group membership at the time when the offsets were taken.
        Raises:
            CommitFailed: Not durable, or not known to be. Retriable with a new sink.
            OutputRefused: The topic refuses a record. Retriable with a new sink.
            Fenced: A successor is running. Not retriable.
        """
        ...

    def close(self) -> None:
        """Close the connection; what is not committed is abandoned."""
        ...


class TransactionalSink:
    """Exactly once: outputs and offsets in one transaction.

    The transactional id contains the consumer's rank, so a new sink ends any transaction that its
    predecessor left open.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: PipelineSettings,
        *,
        rank: int,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """Connect, and fence any predecessor of the same rank.

        Args:
            batch_bytes: Maximum batch size that every topic accepts. The client divides a batch
                that is refused for its size, which loses its place in the transaction.
        """
        transactional_id = f"{pipeline.name}-{rank}"
        self._delivery_timeout_ms = pipeline.delivery_timeout_ms
        self._producer = _producer(
            kafka,
            pipeline,
            batch_bytes,
            transactional_id=transactional_id,
            transaction_timeout_ms=pipeline.transaction_timeout_ms,
        )
        try:
            with broker_errors(f"starting transactions as {transactional_id}"):
                self._producer.init_transactions()
        except StreamError:
            self.close()
            raise

    def commit(self, outputs: Sequence[Output], offsets: Offsets, group_metadata: Any) -> None:
        """See ``Sink``; ``init_transactions`` of the next sink settles the outcome of a failure."""
        with broker_errors("committing a transaction", CommitFailed):
            # The steps of Kafka's protocol: 1. Begin.
            self._producer.begin_transaction()
            # 2. Send, and 3. wait for every record: a batch that times out would leave the
            #    transaction committable without it.
            _send_all(self._producer, outputs, self._delivery_timeout_ms)
            # 4. Add the offsets to the transaction; a stale member is fenced here.
            if offsets:
                if group_metadata.generation_id < 0:
                    raise CommitFailed("this consumer is not in its group at the moment")
                self._producer.send_offsets_to_transaction(to_client(offsets), group_metadata)
            # 5. Commit.
            self._producer.commit_transaction()

    def close(self) -> None:
        """See ``Sink``."""
        end_producer(self._producer)


class PlainProducer:
    """Sends single records and waits for each, for example to the control topic."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Connect; raise BrokerUnreachable if no broker answers."""
        with broker_errors(f"connecting to {kafka.bootstrap_servers}"):
            self._producer = KafkaProducer(
                **common_options(kafka), acks="all", delivery_timeout_ms=15_000
            )

    def send_and_wait(
        self, topic: str, *, key: bytes, value: bytes | None, timeout_s: float
    ) -> None:
        """Send one record and wait until the broker has it.

        Raises:
            CommitFailed: The broker did not confirm the record in time. Retriable.
        """
        with broker_errors(f"writing to {topic}", CommitFailed):
            self._producer.send(topic, key=key, value=value).get(timeout=timeout_s)

    def close(self) -> None:
        """Close the connection."""
        end_producer(self._producer)


class OffsetCommitter(Protocol):
    """Commits offsets outside a transaction: the consumer itself."""

    def commit(self, offsets: Offsets) -> None:
        """See ``GroupSource.commit``."""
        ...


class PlainSink:
    """At least once: outputs first, then offsets; a crash in between duplicates results."""

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: PipelineSettings,
        *,
        committer: OffsetCommitter,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """Connect; ``committer`` commits offsets, ``batch_bytes`` as in ``TransactionalSink``."""
        self._delivery_timeout_ms = pipeline.delivery_timeout_ms
        self._committer = committer
        self._producer = _producer(kafka, pipeline, batch_bytes)

    def commit(self, outputs: Sequence[Output], offsets: Offsets, group_metadata: Any) -> None:  # noqa: ARG002
        """See ``Sink``."""
        with broker_errors("sending results", CommitFailed):
            _send_all(self._producer, outputs, self._delivery_timeout_ms)
        if offsets:
            self._committer.commit(offsets)

    def close(self) -> None:
        """See ``Sink``."""
        end_producer(self._producer)


def _producer(
    kafka: KafkaSettings, pipeline: PipelineSettings, batch_bytes: int, **options: Any
) -> KafkaProducer:
    with broker_errors(f"connecting to {kafka.bootstrap_servers}"):
        return KafkaProducer(
            **common_options(kafka)
            | options
            | {"request_timeout_ms": pipeline.delivery_timeout_ms // 2},
            client_id=f"bertstream-{pipeline.name}",
            acks="all",
            enable_idempotence=True,
            linger_ms=min(LINGER_MS, pipeline.delivery_timeout_ms // 4),
            batch_size=min(batch_bytes, BATCH_BYTES),
            max_request_size=MAX_REQUEST_BYTES,
            delivery_timeout_ms=pipeline.delivery_timeout_ms,
            max_block_ms=pipeline.delivery_timeout_ms,
        )


def _send_all(producer: KafkaProducer, outputs: Sequence[Output], timeout_ms: int) -> None:
    """Send all records, and return only when every one is acknowledged.

    Raises:
        OutputRefused: A topic refused a record; it comes first, as errors of others say less.
    """
    sent = [
        (
            out.topic,
            producer.send(
                out.topic,
                value=out.value,
                key=out.key,
                headers=[(name, NULL if value is None else value) for name, value in out.headers],
            ),
        )
        for out in outputs
    ]
    producer.flush(timeout=timeout_ms / 1000)
    for topic, future in sent:
        if isinstance(future.exception, REFUSED):
            raise OutputRefused(
                f"topic {topic} refuses a record: {future.exception}. The pipeline waits; "
                "check the settings of the topic"
            ) from future.exception
    for _, future in sent:
        future.get(timeout=0)
