"""Measure from Kafka to Kafka: throughput of a backlog, latency when idle and under load."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from bench.counting import Counter, Feeder, latencies_ms, records_per_s, tally
from bench.disturbance import Sample, Watch, wait_for_quiet
from bench.installation import Installation
from serve.settings import ModelSettings
from stream.settings import PipelineSettings

Delivery = Literal["exactly-once", "at-least-once"]

ECHO_RECORD_BYTES = 200
START_DEADLINE_S = 120.0
BACKLOG_DEADLINE_S = 180.0
RECORD_DEADLINE_S = 30.0
# The first records after a start also wait for connections, handles and imports.
IDLE_WARM_UP = 10
PACE_S = 0.005
QUIET_DEADLINE_S = 15.0


class Backlog(NamedTuple):
    """Rate at which a pipeline processed a backlog; memory in 10^6 bytes."""

    rate: Sample
    pipeline_rss_mb: float
    kafka_rss_mb: float


class Latency(NamedTuple):
    """Milliseconds from production to readability, and the cores that other processes used."""

    milliseconds: list[float]
    others_cores: float


class Stage:
    """One pipeline with its own topics, a producer for its input and a counter for its output."""

    def __init__(self, platform: Installation, model: ModelSettings, delivery: Delivery) -> None:
        name = f"{model.name}-{delivery}"
        self._platform = platform
        self._pipeline = PipelineSettings(
            name=name,
            model=model.name,
            input_topics=(f"{name}-in",),
            output_topic=f"{name}-out",
            delivery=delivery,
        )
        platform.run()
        platform.create_topics(self._pipeline)
        self._feeder = Feeder(platform.bootstrap_servers, f"{name}-in")
        self._counter = Counter(platform.bootstrap_servers, f"{name}-out")

    def close(self) -> None:
        """Stop counting; the pipeline runs until the platform runs another."""
        self._counter.close()

    def work_off(self, texts: Sequence[str], *, size_bytes: int = 0, tries: int = 2) -> Backlog:
        """Fill the input, start the pipeline and measure its rate from first to last result.

        Args:
            size_bytes: Minimum size of each record's value.
            tries: Maximum runs while all are disturbed; the quietest counts, not the fastest.
        Raises:
            RuntimeError: A result is missing, duplicated or out of order.
        """
        rates: list[Sample] = []
        while len(rates) < tries and not any(rate.is_quiet for rate in rates):
            rates.append(self._work_off_once(texts, size_bytes))
        kafka_pid = self._platform.broker.pid
        return Backlog(
            min(rates, key=lambda rate: rate.others_cores),
            self._platform.rss_mb(self._platform.pids_of_pipeline(self._pipeline)),
            self._platform.rss_mb([kafka_pid] if kafka_pid else []),
        )

    def idle_ms(self, texts: Sequence[str]) -> Latency:
        """Return the latency of each text, sending the next only after the previous result.

        Call it after ``work_off``, so that the pipeline runs and is warm.
        """
        dice = random.Random(0)
        before = self._counter.count()
        wait_for_quiet(QUIET_DEADLINE_S)
        with Watch() as watch:
            for text in texts:
                # Random pauses avoid synchrony with the periodic work of the pipeline.
                time.sleep(dice.uniform(0.01, 0.06))
                self._feeder.send(text)
                self._await(self._feeder.produced, RECORD_DEADLINE_S)
        self._check()
        return Latency(self._latencies(before)[IDLE_WARM_UP:], watch.others_cores)

    def loaded_ms(self, texts: Sequence[str], *, per_s: float) -> Latency:
        """Return the latency of each text when texts arrive at a steady rate."""
        before = self._counter.count()
        wait_for_quiet(QUIET_DEADLINE_S)
        with Watch() as watch:
            start = time.perf_counter()
            for index, text in enumerate(texts):
                while (time.perf_counter() - start) * per_s < index:
                    time.sleep(PACE_S)
                self._feeder.send(text)
            self._await(self._feeder.produced, BACKLOG_DEADLINE_S)
        self._check()
        return Latency(self._latencies(before), watch.others_cores)

    def _work_off_once(self, texts: Sequence[str], size_bytes: int) -> Sample:
        self._platform.run()
        before = self._feeder.produced
        for text in texts:
            self._feeder.send(text, size_bytes=size_bytes)
        self._feeder.flush()
        wait_for_quiet(QUIET_DEADLINE_S)
        self._platform.run(self._pipeline)
        self._await(before + 1, START_DEADLINE_S)
        with Watch() as watch:
            self._await(self._feeder.produced, BACKLOG_DEADLINE_S)
        self._check()
        return Sample(records_per_s(self._counter.arrivals(before)), watch.others_cores)

    def _latencies(self, since: int) -> list[float]:
        return latencies_ms(self._feeder.sent, self._counter.arrivals(since))

    def _await(self, count: int, deadline_s: float) -> None:
        if not self._counter.wait_for(count, deadline_s):
            raise RuntimeError(
                f"{self._pipeline.name}: {self._counter.count()} of {count} results arrived "
                f"within {deadline_s:g} s"
            )

    def _check(self) -> None:
        counted = tally(self._feeder.produced, self._counter.arrivals())
        if not counted.is_exact:
            raise RuntimeError(f"{self._pipeline.name}: {counted}")


@contextmanager
def stage(platform: Installation, model: ModelSettings, delivery: Delivery) -> Iterator[Stage]:
    """Provide a stage on the platform, which then runs no other pipeline."""
    made = Stage(platform, model, delivery)
    try:
        yield made
    finally:
        made.close()
