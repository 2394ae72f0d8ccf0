"""Reads the lag of pipelines and the rates of their records from Kafka in a thread.

Callers get the values that were read last and never wait for a broker.
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


class OffsetsReader(Protocol):
    """Reads offsets; implemented by ``stream.kafka.admin.Admin``."""

    def offsets(self, group: str, topics: list[str]) -> Mapping[Partition, GroupOffsets]:
        """Return the offsets of every partition.

        Raises:
            StreamError: The broker does not answer.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Backlog(NamedTuple):
    """Known state of a pipeline's input; all times are on the reader's clock.

    Attributes:
        rates: None until the offsets were read.
        partitions: Number of partitions of the input topics.
        read_at_s: When the offsets were read last.
        reachable_since_s: Since when the broker has answered without interruption; None while it
            does not.
    """

    rates: Rates | None = None
    partitions: int | None = None
    read_at_s: float | None = None
    reachable_since_s: float | None = None


UNKNOWN = Backlog()


class BacklogReader:
    """Reads the backlogs of all pipelines periodically."""

    def __init__(
        self,
        pipelines: Sequence[PipelineSettings],
        connect: Callable[[], OffsetsReader],
        *,
        half_life_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a reader without a connection.

        Args:
            connect: Returns a connection; raises ``StreamError`` if there is none.
            half_life_s: Half-life of the smoothed rates.
        """
        self._pipelines = pipelines
        self._connect = connect
        self._half_life_s = half_life_s
        self._clock = clock
        self._reader: OffsetsReader | None = None
        self._found: dict[str, Backlog] = {}
        self._logged = ""

    def of(self, pipeline: str) -> Backlog:
        """Return the backlog that was read last; callable from any thread."""
        return self._found.get(pipeline, UNKNOWN)

    def run(self, stopping: threading.Event, *, every_s: float = EVERY_S) -> None:
        """Read until ``stopping`` is set; an unavailable broker is tried again."""
        while not stopping.is_set():
            self.read()
            stopping.wait(every_s)
        self._disconnect()

    def read(self) -> None:
        """Run one round; backlogs that cannot be read stay, marked as unreachable."""
        try:
            self._reader = self._reader or self._connect()
            for pipeline in self._pipelines:
                self._read(self._reader, pipeline)
        except StreamError as exc:
            if str(exc) != self._logged:
                logger.warning("the backlog cannot be read, retrying: %s", exc)
            self._logged = str(exc)
            self._disconnect()
            for name, known in self._found.items():
                self._found[name] = known._replace(reachable_since_s=None)
        else:
            self._logged = ""

    def _read(self, reader: OffsetsReader, pipeline: PipelineSettings) -> None:
        offsets = reader.offsets(pipeline.name, [*pipeline.input_topics]).values()
        before, now_s = self.of(pipeline.name), self._clock()
        sample = OffsetSample(now_s, sum(o.end for o in offsets), sum(o.committed for o in offsets))
        since_s = now_s if before.reachable_since_s is None else before.reachable_since_s
        rates = follow(before.rates, sample, half_life_s=self._half_life_s)
        self._found[pipeline.name] = Backlog(rates, len(offsets), now_s, since_s)

    def _disconnect(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
