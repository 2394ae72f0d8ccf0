"""How far pipelines are behind and how fast records come and go, read from Kafka in a thread.

Whoever asks gets what was read last and never waits for a broker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ops.scaling.rates import OffsetSample, Rates, follow
from stream.errors import StreamError
from stream.records import GroupOffsets, Partition
from stream.settings import PipelineSettings

logger = logging.getLogger(__name__)

EVERY_S = 2.0


class OffsetsDoor(Protocol):
    """Reads offsets; ``stream.kafka.admin.Admin``."""

    def offsets(self, group: str, topics: list[str]) -> Mapping[Partition, GroupOffsets]:
        """Of every partition.

        Raises:
            StreamError: The broker does not answer.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Backlog(NamedTuple):
    """What is known of a pipeline's input; all moments are of the reader's clock.

    Attributes:
        rates: None until its offsets were read.
        partitions: Of its input topics.
        read_at_s: When they were read last.
        reachable_since_s: Since when the broker has answered without a pause; None while it
            does not.
    """

    rates: Rates | None = None
    partitions: int | None = None
    read_at_s: float | None = None
    reachable_since_s: float | None = None


UNKNOWN = Backlog()


class BacklogReader:
    """Reads all pipelines again and again."""

    def __init__(
        self,
        pipelines: Sequence[PipelineSettings],
        connect: Callable[[], OffsetsDoor],
        *,
        half_life_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is connected yet.

        Args:
            connect: Errors of ours where it cannot.
            half_life_s: Of the rates.
        """
        self._pipelines = pipelines
        self._connect = connect
        self._half_life_s = half_life_s
        self._clock = clock
        self._door: OffsetsDoor | None = None
        self._found: dict[str, Backlog] = {}
        self._told = ""

    def of(self, pipeline: str) -> Backlog:
        """What was read last; from any thread."""
        return self._found.get(pipeline, UNKNOWN)

    def run(self, stopping: threading.Event, *, every_s: float = EVERY_S) -> None:
        """Read until told to stop; a broker that is away is tried again."""
        while not stopping.is_set():
            self.read()
            stopping.wait(every_s)
        self._disconnect()

    def read(self) -> None:
        """One round; what cannot be read stays as it was, and unreachable."""
        try:
            self._door = self._door or self._connect()
            for pipeline in self._pipelines:
                self._read(self._door, pipeline)
        except StreamError as exc:
            if str(exc) != self._told:
                logger.warning("the backlog cannot be read, trying on: %s", exc)
            self._told = str(exc)
            self._disconnect()
            for name, known in self._found.items():
                self._found[name] = known._replace(reachable_since_s=None)
        else:
            self._told = ""

    def _read(self, door: OffsetsDoor, pipeline: PipelineSettings) -> None:
        offsets = door.offsets(pipeline.name, [*pipeline.input_topics]).values()
        before, now_s = self.of(pipeline.name), self._clock()
        sample = OffsetSample(now_s, sum(o.end for o in offsets), sum(o.committed for o in offsets))
        since_s = now_s if before.reachable_since_s is None else before.reachable_since_s
        rates = follow(before.rates, sample, half_life_s=self._half_life_s)
        self._found[pipeline.name] = Backlog(rates, len(offsets), now_s, since_s)

    def _disconnect(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
