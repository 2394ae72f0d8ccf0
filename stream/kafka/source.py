"""The consumer's side of Kafka: a group member that reads, and commits nothing itself."""

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

# Heartbeats run by themselves; this is only how long the loop may fail to call poll, and the
# watchdog is stricter. It is also how long a rebalance waits for a member.
MAX_POLL_INTERVAL_MS = 300_000
# Buffers of the client, beside the window: what one fetch may bring.
FETCH_MAX_BYTES = 8 * 1024 * 1024
PARTITION_FETCH_BYTES = 1024 * 1024

# A join that completes between two polls is thrown away by the client and begun anew, once
# round the whole group: while one is under way, a poll waits for it this long. No divisor of a
# usual heartbeat interval, at which the others join: or the gap would meet it again and again.
JOIN_POLL_MS = 350

# Offsets that an open transaction is about to change are asked for again and again, for as long as
# that takes: a short pause, which suits transactions, would keep a core busy.
RETRY_BACKOFF_MS = 100


Revoked = Callable[[set[Partition], bool], None]
"""Called inside ``poll`` with the partitions that go, and whether they are already lost."""


class GroupSource:
    """One static member of the pipeline's group.

    Not safe for several threads. ``revoked`` runs on the client's own thread while ``poll``
    waits for it: it must not call the source.
    """

    def __init__(
        self, kafka: KafkaSettings, pipeline: PipelineSettings, *, rank: int, revoked: Revoked
    ) -> None:
        """Connect and subscribe.

        Args:
            kafka: How to reach the brokers.
            pipeline: Whose topics to read.
            rank: Place of this consumer among the pipeline's, from 0: names the static member,
                so that a restarted process takes its partitions over at once.
            revoked: Told of partitions that go.
        Raises:
            BrokerUnreachable: Nobody answered in time.
            BrokerRefused: Login, TLS or permission.
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
            listener = _Listener(self._gone_to(revoked), self._arrived)
            self._consumer.subscribe(list(pipeline.input_topics), listener=listener)
            # A member that joins before it knows its topics gets no partitions, joins again at
            # once, and the second join can hang for ever: so they are asked for first.
            for topic in pipeline.input_topics:
                self._consumer.partitions_for_topic(topic)

    def poll(self, timeout_ms: int) -> list[Record]:
        """Read what has arrived, waiting at most ``timeout_ms`` for the first record.

        Records of one partition come in order. Partitions may go or come inside.

        Raises:
            Fenced: Another process has joined under this member's name.
            BrokerUnreachable: The client gave up on a request. Retriable.
        """
        with broker_errors(self._where):
            if self._paused:
                self._consumer.resume(*self._consumer.paused())
                self._paused = False
            return self._poll(timeout_ms)

    def poll_nothing(self) -> list[Record]:
        """Stay in the group without reading more: for a full window.

        Usually brings nothing; what it brings all the same must be kept.
        """
        with broker_errors(self._where):
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            return self._poll(0)

    def _poll(self, timeout_ms: int) -> list[Record]:
        polled: dict[Any, list[Record]] = {}
        if not self._is_joining():
            polled = self._look(timeout_ms)
        if not polled and self._is_joining():
            # Or a leader that joined because of new partitions forgets it: it has counted them
            # already, asks no more for the end of its join, and reads nothing until it dies.
            self._consumer._coordinator.request_rejoin()
            polled = self._look(max(timeout_ms, JOIN_POLL_MS))
        return [record for records in polled.values() for record in records]

    def _look(self, timeout_ms: int) -> dict[Any, list[Record]]:
        """What the client brings; nothing where partitions had to be given another place."""
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
        """Go on with the earliest record that is there, and note those that are not.

        Args:
            asked: Where the records wanted next stood; None for a partition that came later than
                the group's first commit.
        """
        for partition, start in self._consumer.beginning_offsets([*asked]).items():
            due = asked[partition]
            if due is None:
                due = 0 if self._has_read(partition.topic) else start
            if due < start:
                gone = Deleted(Partition(*partition), due, start)
                self._deleted[gone.partition] = gone
            elif due > start:
                logger.error("%s: there is no offset %d; it begins anew", partition, due)
            self._go(partition, start)

    def _go(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._consumer.assignment():
            self._consumer.seek(partition, offset)

    def _has_read(self, topic: str) -> bool:
        """Whether the group has a place in any partition of a topic."""
        numbers = self._consumer.partitions_for_topic(topic) or ()
        partitions = (TopicPartition(topic, number) for number in numbers)
        return any(self._consumer.committed(one) is not None for one in partitions)

    def places(self) -> dict[Partition, int]:
        """Next offset of every partition that this member owns and has found its place in; none
        while the group is joining, when nothing could be committed."""
        if self._is_joining() or self._consumer.group_metadata().generation_id < 0:
            return {}
        states = self._consumer._subscription.assignment
        found = ((one, states.get(one)) for one in self._consumer.assignment())
        return {Partition(*one): at.position.offset for one, at in found if at and at.position}

    def take_deleted(self) -> list[Deleted]:
        """Records that were deleted before they were read, found since the last call."""
        found = [*self._deleted.values()]
        self._deleted.clear()
        return found

    def _arrived(self, partitions: Collection[TopicPartition]) -> None:
        """Pause what comes while the rest is paused; on the client's own thread.

        Otherwise its records take the place, inside the client, of what was fetched of a paused
        partition: that is put aside, and may never come back after the pause.
        """
        if self._paused:
            self._consumer.pause(*partitions)

    def _gone_to(self, revoked: Revoked) -> Revoked:
        def gone(partitions: set[Partition], lost: bool) -> None:
            for partition in partitions:
                self._deleted.pop(partition, None)  # whoever has it now finds it, too
            revoked(partitions, lost)

        return gone

    def _is_joining(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.REBALANCING)

    def group_metadata(self) -> Any:
        """Membership as it stands: the broker fences a transaction that brings an old one."""
        return self._consumer.group_metadata()

    def assignment(self) -> set[Partition]:
        """Partitions that this member owns now."""
        return {Partition(*owned) for owned in self._consumer.assignment()}

    def seek_to_committed(self) -> None:
        """Go back to what is committed, on every partition that this member owns; to the start
        where nothing is."""
        with broker_errors(self._where):
            self._deleted.clear()
            for owned in self._consumer.assignment():
                self._consumer.seek(owned, self._consumer.committed(owned) or 0)

    def commit(self, offsets: Offsets) -> None:
        """Commit offsets outside of a transaction.

        Raises:
            CommitFailed: Not committed; perhaps the partitions have moved on. Retriable.
            Fenced: Another process has joined under this member's name.
        """
        with broker_errors("committing offsets", CommitFailed):
            self._consumer.commit(to_client(offsets))

    def close(self) -> None:
        """Close the connection; a static member keeps its place until the session times out."""
        with broker_errors("closing the consumer"):
            self._consumer.close(autocommit=False, timeout_ms=5_000)


def to_client(offsets: Offsets) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets in the client's types; -1 means the leader epoch is not known."""
    return {
        TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)
        for partition, offset in offsets.items()
    }


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on which partitions go. Runs on the client's IO thread, inside ``poll``."""

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
