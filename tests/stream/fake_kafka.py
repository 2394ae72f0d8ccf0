"""A log, a group of one member and a producer in memory, which fail where a script says so.

Doubles for the loop alone: what Kafka itself does is tested with the real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import orjson

from serve.contract import Answer, BatchReply, BatchStats, ReplicaInfo
from stream.errors import BrokerUnreachable, CallFailed, CallLost, CommitFailed, Fenced
from stream.records import Deleted, Offsets, Output, Partition, Record
from tests.stream.records import PlainRecord

TOPIC = "input"
DIGEST = "d" * 64
READ_AT_ONCE = 4


class CommitFate(Enum):
    """What becomes of a commit."""

    HAPPENS = "happens"
    FAILS = "fails, and nothing of it is visible"
    FAILS_HALF = "fails when half of the results are sent"
    UNKNOWN = "happens, and the answer is lost"
    FENCED = "is refused: a successor is at work"


class FakeLog:
    """Input, committed offsets and committed results; outlives every consumer."""

    def __init__(
        self, partitions: int, keys: Sequence[str], *, fates: Iterator[CommitFate]
    ) -> None:
        """Fill the input.

        Args:
            keys: One record for each, which says so; its key decides the partition.
            fates: Of the commits, one after the other; afterwards all happen.
        """
        self.input: dict[Partition, list[Record]] = {
            Partition(TOPIC, number): [] for number in range(partitions)
        }
        for number, key in enumerate(keys):
            partition = Partition(TOPIC, hash_of(key) % partitions)
            records = self.input[partition]
            value = orjson.dumps({"id": number, "text": key})
            records.append(
                PlainRecord(TOPIC, partition.partition, len(records), value=value, key=key.encode())
            )
        self.committed: dict[Partition, int] = dict.fromkeys(self.input, 0)
        self.results: list[Output] = []
        self._fates = fates

    @property
    def is_done(self) -> bool:
        return all(self.committed[one] == len(records) for one, records in self.input.items())

    def fate(self) -> CommitFate:
        return next(self._fates, CommitFate.HAPPENS)


class FakeSource:
    """Reads the log; partitions go and come back where the script says so."""

    def __init__(
        self,
        log: FakeLog,
        revoked: Callable[[set[Partition], bool], None],
        *,
        revocations: Iterator[tuple[int, bool] | None],
        stopping: threading.Event,
        ends: float,
    ) -> None:
        """Join.

        Args:
            revocations: For each poll the partition that goes and whether it is lost.
            ends: When the test has failed, on the monotonic clock.
        """
        self._log, self._revoked, self._revocations = log, revoked, revocations
        self._stopping, self._ends = stopping, ends
        self._positions = dict(log.committed)

    def poll(self, timeout_ms: int) -> list[Record]:
        self._rebalance()
        read: list[Record] = []
        for partition, records in self._log.input.items():
            at = self._positions[partition]
            read += records[at : at + READ_AT_ONCE]
            self._positions[partition] = min(len(records), at + READ_AT_ONCE)
        if not read and timeout_ms:
            time.sleep(0.001)  # as a broker without news would have it wait
        return read

    def poll_nothing(self) -> list[Record]:
        self._rebalance()
        return []

    def group_metadata(self) -> Any:
        return None

    def places(self) -> Mapping[Partition, int]:
        return {}

    def take_deleted(self) -> list[Deleted]:
        return []

    def seek_to_committed(self) -> None:
        self._positions = dict(self._log.committed)

    def commit(self, offsets: Offsets) -> None:
        self._log.committed.update(offsets)

    def close(self) -> None:
        pass

    def _rebalance(self) -> None:
        assert time.monotonic() < self._ends, f"not done: {self._log.committed}"
        if self._log.is_done:
            self._stopping.set()
        event = next(self._revocations, None)
        if event is not None:
            number, lost = event
            partition = Partition(TOPIC, number % len(self._log.input))
            self._revoked({partition}, lost)
            self._positions[partition] = self._log.committed[partition]  # it comes back at once


class TransactionalFake:
    """Results and offsets in one transaction."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log

    def commit(self, outputs: Sequence[Output], offsets: Offsets, group_metadata: Any) -> None:
        fate = self._log.fate()
        if fate is CommitFate.FENCED:
            raise Fenced("a successor is at work")
        if fate in (CommitFate.FAILS, CommitFate.FAILS_HALF):
            raise CommitFailed("aborted")
        self._log.results += outputs
        self._log.committed.update(offsets)
        if fate is CommitFate.UNKNOWN:
            raise BrokerUnreachable("no answer to the commit")

    def close(self) -> None:
        pass


class PlainFake:
    """Results first, then offsets."""

    def __init__(self, log: FakeLog, source: FakeSource) -> None:
        self._log, self._source = log, source

    def commit(self, outputs: Sequence[Output], offsets: Offsets, group_metadata: Any) -> None:
        fate = self._log.fate()
        if fate is CommitFate.FAILS:
            raise CommitFailed("nothing was sent")
        if fate is CommitFate.FAILS_HALF:
            self._log.results += outputs[: len(outputs) // 2]
            raise CommitFailed("half of it was sent")
        self._log.results += outputs
        if fate is CommitFate.FENCED:
            raise CommitFailed("the offsets were refused")
        self._source.commit(offsets)
        if fate is CommitFate.UNKNOWN:
            raise BrokerUnreachable("no answer to the commit")

    def close(self) -> None:
        pass


class FakeReplicas:
    """Answers after delays, out of order; fails on texts with ``poison``, dies of ``killer``."""

    def __init__(self, delays_ms: Iterator[int], deaths: Iterator[bool]) -> None:
        self._delays_ms, self._deaths = delays_ms, deaths
        self._lock = threading.Lock()

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        with self._lock:
            delay_ms, dies = next(self._delays_ms, 0), next(self._deaths, False)
        time.sleep(delay_ms / 1000)
        if dies or any(b"killer" in value for value in values):
            raise CallLost("the replica died")
        if any(b"poison" in value for value in values):
            raise CallFailed("the engine failed")
        answers = [
            Answer(
                b'[{"label":"E","score":1.0}]',
                b"%d" % orjson.loads(value)["id"],
                "E",
                1.0,
                3,
                False,
            )
            for value in values
        ]
        return BatchReply(answers, BatchStats(3, 3, 1, 0.0, 0.0), DIGEST)

    def info(self, version: str) -> ReplicaInfo:
        return ReplicaInfo("m", version, DIGEST, "text-classification", "echo", "f32", "cpu")


def hash_of(key: str) -> int:
    """The same in every process."""
    return sum(key.encode())
