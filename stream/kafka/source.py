"""The consumer: a group member that reads, and commits only when asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from kafka.structs import MemberState

from stream.errors import CommitFailed
from stream.group import own_client
from stream.kafka import decoding
from stream.kafka.admin import Admin
from stream.kafka.connection import broker_errors, common_options
from stream.records import Deleted, Offsets, Partition, Record
from stream.settings import KafkaSettings, PipelineSettings

logger = logging.getLogger(__name__)

# Heartbeats run in the background; this only limits the time without a call of poll, and the
# watchdog is stricter. It is also how long a rebalance waits for a member.
MAX_POLL_INTERVAL_MS = 300_000
# Buffers of the client, in addition to the window: limits of one fetch.
FETCH_MAX_BYTES = 8 * 1024 * 1024
PARTITION_FETCH_BYTES = 1024 * 1024

# The client discards a join that completes between two polls and starts again, with the whole
# group: during a join, a poll waits for it this long. Not a divisor of a usual heartbeat interval,
# at which the others join, or the gap would coincide with it again and again.
JOIN_POLL_MS = 350

# Offsets that an open transaction is about to change are requested repeatedly until it ends: the
# short pause that suits transactions would keep a core busy.
RETRY_BACKOFF_MS = 100


Revoked = Callable[[set[Partition], bool], None]
"""Called inside ``poll`` with the revoked partitions, and whether they are already lost."""


class GroupSource:
    """One static member of the pipeline's group.

    Not thread-safe. ``revoked`` runs on the client's own thread while ``poll`` waits for it: it
    must not call the source.
    """

    def __init__(
        self, kafka: KafkaSettings, pipeline: PipelineSettings, *, rank: int, revoked: Revoked
    ) -> None:
        """Connect and subscribe.

        Args:
            kafka: Settings of the connection.
            pipeline: The pipeline whose topics to read.
            rank: Number of this consumer among the pipeline's, from 0. It names the static
                member, so that a restarted process takes over its partitions at once.
            revoked: Called with partitions that are revoked or lost.
        Raises:
            BrokerUnreachable: No broker answered in time. Retriable.
            BrokerRefused: The broker refused login, TLS or a permission. Not retriable.
        """
        self.instance_id = f"{pipeline.name}-{rank}"
        self._paused = False
        self._deleted: dict[Partition, Deleted] = {}
        with Admin(kafka) as admin:
            admin.begin_group(pipeline)
        self._where = f"reading {', '.join(pipeline.input_topics)} at {kafka.bootstrap_servers}"
        with broker_errors(self._where):
            self._consumer = decoding.consumer(
                **common_options(kafka) | {"retry_backoff_ms": RETRY_BACKOFF_MS},
                client_id=own_client(self.instance_id),
                group_id=pipeline.name,
                group_instance_id=self.instance_id,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                partition_assignment_strategy=[CooperativeStickyAssignor],
                session_timeout_ms=pipeline.session_timeout_ms,
                heartbeat_interval_ms=pipeline.session_timeout_ms // 5,
                max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
                max_poll_records=pipeline.max_batch_records,
                fetch_max_bytes=FETCH_MAX_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            )
            listener = _Listener(self._on_revoked(revoked), self._arrived)
            self._consumer.subscribe(list(pipeline.input_topics), listener=listener)
            # A member that joins before it knows its topics gets no partitions, joins again at
            # once, and the second join can block without a limit: so topics are requested first.
            for topic in pipeline.input_topics:
                self._consumer.partitions_for_topic(topic)

    def poll(self, timeout_ms: int) -> list[Record]:
        """Read what has arrived, waiting at most ``timeout_ms`` for the first record.

        Records of one partition are in order. Partitions may be revoked or assigned inside.

        Raises:
            Fenced: Another process has joined under this member's name. Not retriable.
            BrokerUnreachable: A request of the client failed. Retriable.
        """
        with broker_errors(self._where):
            if self._paused:
                self._consumer.resume(*self._consumer.paused())
                self._paused = False
            return self._poll(timeout_ms)

    def poll_nothing(self) -> list[Record]:
        """Stay in the group without reading more, while the window is full.

        Usually returns nothing; if it returns records, they must be kept.
        """
        with broker_errors(self._where):
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            return self._poll(0)

    def _poll(self, timeout_ms: int) -> list[Record]:
        polled: dict[Any, list[Record]] = {}
        if not self._is_joining():
            polled = self._poll_client(timeout_ms)
        if not polled and self._is_joining():
            # Otherwise a leader that joined because of new partitions forgets that: it has counted
            # them already, no longer waits for its join to end, and reads nothing until it dies.
            self._consumer._coordinator.request_rejoin()
            polled = self._poll_client(max(timeout_ms, JOIN_POLL_MS))
        return [record for records in polled.values() for record in records]

    def _poll_client(self, timeout_ms: int) -> dict[Any, list[Record]]:
        """Return what the client reads; nothing if the place in a partition had to be changed."""
        try:
            polled: dict[Any, list[Record]] = self._consumer.poll(timeout_ms=timeout_ms)
        except NoOffsetForPartitionError as exc:
            self._go_to_start(dict.fromkeys(exc.args[0]))
        except OffsetOutOfRangeError as exc:
            self._go_to_start(exc.args[0])
        except LogTruncationError as exc:
            logger.error("brokers have lost records that were read: %s", exc)
            for partition, at in exc.divergent_offsets.items():
                self._go(partition, 0 if at is None else at.offset)
        else:
            return polled
        return {}

    def _go_to_start(self, asked: Mapping[TopicPartition, int | None]) -> None:
        """Continue at the earliest existing record, and remember the deleted ones.

        Args:
            asked: Offset that was requested; None for a partition that was added after the
                group's first commit.
        """
        for partition, start in self._consumer.beginning_offsets([*asked]).items():
            due = asked[partition]
            if due is None:
                due = 0 if self._has_read(partition.topic) else start
            if due < start:
                gone = Deleted(Partition(*partition), due, start)
                self._deleted[gone.partition] = gone
            elif due > start:
                logger.error("%s: offset %d does not exist; reading from the start", partition, due)
            self._go(partition, start)

    def _go(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._consumer.assignment():
            self._consumer.seek(partition, offset)

    def _has_read(self, topic: str) -> bool:
        """Return whether the group has a committed offset in any partition of a topic."""
        numbers = self._consumer.partitions_for_topic(topic) or ()
        partitions = (TopicPartition(topic, number) for number in numbers)
        return any(self._consumer.committed(one) is not None for one in partitions)

    def places(self) -> dict[Partition, int]:
        """Return the known next offsets of owned partitions; none during a join."""
        if self._is_joining() or self._consumer.group_metadata().generation_id < 0:
            return {}  # nothing could be committed
        states = self._consumer._subscription.assignment
        found = ((one, states.get(one)) for one in self._consumer.assignment())
        return {Partition(*one): at.position.offset for one, at in found if at and at.position}

    def take_deleted(self) -> list[Deleted]:
        """Return records that were deleted before they were read, found since the last call."""
        found = [*self._deleted.values()]
        self._deleted.clear()
        return found

    def _arrived(self, partitions: Collection[TopicPartition]) -> None:
        """Pause new partitions while the others are paused; on the client's own thread.

        Otherwise, inside the client, their records displace the fetched records of a paused
        partition: those are set aside, and may never come back after the pause.
        """
        if self._paused:
            self._consumer.pause(*partitions)

    def _on_revoked(self, revoked: Revoked) -> Revoked:
        def gone(partitions: set[Partition], lost: bool) -> None:
            for partition in partitions:
                self._deleted.pop(partition, None)  # its new owner finds it, too
            revoked(partitions, lost)

        return gone

    def _is_joining(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.REBALANCING)

    def group_metadata(self) -> Any:
        """Return the current membership: the broker fences a transaction with an old one."""
        return self._consumer.group_metadata()

    def assignment(self) -> set[Partition]:
        """Return the partitions that this member owns now."""
        return {Partition(*owned) for owned in self._consumer.assignment()}

    def seek_to_committed(self) -> None:
        """Go back to the committed offset of every owned partition, or to 0 without one."""
        with broker_errors(self._where):
            self._deleted.clear()
            for owned in self._consumer.assignment():
                self._consumer.seek(owned, self._consumer.committed(owned) or 0)

    def commit(self, offsets: Offsets) -> None:
        """Commit offsets outside a transaction.

        Raises:
            CommitFailed: Not committed; another member may own the partitions now. Retriable.
            Fenced: Another process has joined under this member's name. Not retriable.
        """
        with broker_errors("committing offsets", CommitFailed):
            self._consumer.commit(to_client(offsets))

    def close(self) -> None:
        """Close the connection; a static member keeps its place until the session times out."""
        with broker_errors("closing the consumer"):
            self._consumer.close(autocommit=False, timeout_ms=5_000)


def to_client(offsets: Offsets) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return offsets in the client's types; -1 means that the leader epoch is unknown."""
    return {
        TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)
        for partition, offset in offsets.items()
    }


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reports revoked and lost partitions. Runs on the client's IO thread, inside ``poll``."""

    def __init__(
        self, revoked: Revoked, arrived: Callable[[Collection[TopicPartition]], None]
    ) -> None:
        self._revoked = revoked
        self._arrived = arrived

    def on_partitions_revoked(self, revoked: Collection[tuple[str, int]]) -> None:
        self._pass_on(revoked, lost=False)

    def on_partitions_lost(self, lost: Collection[tuple[str, int]]) -> None:
        self._pass_on(lost, lost=True)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if assigned:
            logger.info("assigned: %s", _names(assigned))
            self._arrived(assigned)

    def _pass_on(self, partitions: Iterable[tuple[str, int]], *, lost: bool) -> None:
        gone = {Partition(*partition) for partition in partitions}
        if gone:
            logger.info("%s: %s", "lost" if lost else "revoked", _names(gone))
            self._revoked(gone, lost)


def _names(partitions: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{topic}/{partition}" for topic, partition in sorted(partitions))
