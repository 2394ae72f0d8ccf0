"""The demonstration's load, and the results that an independent consumer counts.

First the queue is kept full, to measure the throughput of this machine; then events arrive
steadily at a fraction of it, as in production; then a burst comes on top and is drained.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from ops.demo.events import DemoEvent, events
from ops.demo.traffic import Exchange
from ops.errors import OpsError
from stream.kafka.topic_io import TopicWriter
from stream.records import Record
from stream.settings import KafkaSettings, PipelineSettings

# Events that wait during the measurement, and its duration from the first result on: results
# arrive in transactions of some hundred, and the measurement needs several of them.
WAITING: Final = 400
MEASURED_S: Final = 6.0
# Fraction of the measured rate, up to the rate that a producer in Python can send.
STEADY_SHARE: Final = 0.6
MAX_RATE_PER_S: Final = 1_000.0
STEADY_S: Final = 10.0
# A burst is the records of this many seconds at the measured rate, all at once.
BURST_S: Final = 3.0
SEED: Final = 7
MANY: Final = 10**9
DEADLINE_S: Final = 240.0
DRAIN_DEADLINE_S: Final = 45.0
# Results within this time belong to one transaction.
TOGETHER_S: Final = 0.2
# Interval between two checks of the lag.
POLL_S: Final = 0.05
SHOWN: Final = 9


class Arrival(NamedTuple):
    """A result as the demonstration's own consumer read it."""

    text: str
    label: str
    score: float
    latency_ms: float


class DemoCounts:
    """Counts of an independent read_committed consumer; filled by reading threads."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.predicted = self.dead_letters = 0
        # By event number: when its result arrived, and its latency.
        self.came_s: dict[int, float] = {}
        self.latencies_ms: dict[int, float] = {}
        self.latest: deque[Arrival] = deque(maxlen=SHOWN)

    def take(self, record: Record, texts: dict[str, str]) -> None:
        """Count a prediction or a dead letter by the partition and offset of its input."""
        headers = dict(record.headers)
        self.sources[(headers["bertstream-source"] or b"").decode()] += 1
        now_s = time.time()
        number = int(headers["demo-number"] or b"0")
        self.came_s[number] = now_s
        if "bertstream.errors.kind" in headers:
            self.dead_letters += 1
            return
        self.predicted += 1
        value = orjson.loads(record.value or b"{}")
        latency_ms = now_s * 1000 - value["source"]["timestamp"]
        self.latencies_ms[number] = latency_ms
        best = value["result"][0]
        text = texts.get(str(value["id"]), "")
        self.latest.append(Arrival(text, best["label"], best["score"], latency_ms))

    def rate_per_s(self, first: int, last: int) -> float:
        """Return the results per second of a range of events. The first transaction only marks the
        beginning, because its own duration is unknown."""
        came = sorted(self.came_s[number] for number in range(first, last) if number in self.came_s)
        if not came or came[-1] - came[0] < TOGETHER_S:
            return 0.0
        later = sum(at > came[0] + TOGETHER_S for at in came)
        return later / (came[-1] - came[0])

    def percentile_ms(self, first: int, last: int, share: float) -> float:
        """Return a latency percentile of the results of a range of events; 0 if there are none."""
        taken_ms = self.latencies_ms
        known = sorted(taken_ms[number] for number in range(first, last) if number in taken_ms)
        return known[min(len(known) - 1, int(len(known) * share))] if known else 0.0


class DemoLoad(Exchange):
    """Produces the three phases one after the other.

    Attributes:
        phase: Current phase, in words.
        measured_per_s: Measured throughput of this machine, in records/s; 0 until it is known.
    """

    def __init__(self, kafka: KafkaSettings, pipeline: PipelineSettings) -> None:
        super().__init__(kafka, pipeline)
        self.counts = DemoCounts()
        self.phase = ""
        self.measured_per_s = 0.0
        self._texts: dict[str, str] = {}
        self._events = events(MANY, SEED)
        self._begun: dict[str, int] = {}
        self._peak_lag = 0
        self._drained_s: float | None = None

    @property
    def lag(self) -> int:
        """Number of events without a result so far."""
        return max(0, self.sent - len(self.counts.sources))

    def is_over(self) -> bool:
        """Return whether all events were sent and have a result.

        Raises:
            OpsError: Producing failed, or results take too long.
        """
        return not self.is_writing() and self.lag == 0

    def summary(self) -> dict[str, Any]:
        """Return all counts, for the last line on stdout."""
        counts, sent = self.counts, self.sent
        steady, burst = (self._begun.get(phase, sent) for phase in ("steady", "burst"))
        return {
            "produced": sent,
            "predicted": counts.predicted,
            "dead_letters": counts.dead_letters,
            "lost": sent - len(counts.sources),
            "duplicated": sum(count - 1 for count in counts.sources.values()),
            "measured_per_s": round(self.measured_per_s, 1),
            "steady": {
                "records": burst - steady,
                "records_per_s": round(counts.rate_per_s(steady, burst), 1),
                **self._latencies(steady, burst),
            },
            "burst": {
                "records": sent - burst,
                "peak_lag": self._peak_lag,
                "drained_s": self._drained_s,
                "records_per_s": round(counts.rate_per_s(burst, sent), 1),
                **self._latencies(burst, sent),
            },
        }

    def _latencies(self, first: int, last: int) -> dict[str, float]:
        shares = {"p50_ms": 0.5, "p99_ms": 0.99}
        return {
            name: round(self.counts.percentile_ms(first, last, share), 1)
            for name, share in shares.items()
        }

    def take(self, record: Record) -> None:
        """See ``Exchange``."""
        self.counts.take(record, self._texts)

    # -- the writing thread ------------------------------------------------------------------

    def produce(self, writer: TopicWriter) -> None:
        """See ``Exchange``."""
        self._measure(writer)
        rate_per_s = min(STEADY_SHARE * self.measured_per_s, MAX_RATE_PER_S)
        self._begin("steady", f"steady, {rate_per_s:.0f} records/s")
        self._send_steadily(writer, rate_per_s, STEADY_S)
        self._burst(writer, rate_per_s)

    def _begin(self, phase: str, text: str) -> None:
        self.phase = text
        self._begun[phase] = self.sent

    def _measure(self, writer: TopicWriter) -> None:
        """Keep the queue full for some seconds."""
        self._begin("measured", "measuring this machine")
        self._send(writer, WAITING)
        self._wait_until_lag_is(WAITING - 1)
        began = time.monotonic()
        while time.monotonic() - began < MEASURED_S and not self.stop.is_set():
            self._send(writer, WAITING - self.lag)
            time.sleep(POLL_S)
        self.measured_per_s = self.counts.rate_per_s(0, self.sent)
        self._wait_until_lag_is(0)
        if not self.measured_per_s:
            self.measured_per_s = self.counts.rate_per_s(0, self.sent) or 1.0

    def _burst(self, writer: TopicWriter, rate_per_s: float) -> None:
        """Send a burst on top of the steady load, which continues until the burst is drained."""
        usual = max(self.lag, round(rate_per_s / 2))
        size = round(BURST_S * min(self.measured_per_s, MAX_RATE_PER_S))
        self._begin("burst", f"a burst of {size} records on top")
        began = time.monotonic()
        self._send(writer, size)
        while self.lag > usual and not self.stop.is_set():
            if time.monotonic() - began > DRAIN_DEADLINE_S:
                self.phase = f"not drained within {DRAIN_DEADLINE_S:.0f} s"
                return
            self._peak_lag = max(self._peak_lag, self.lag)
            self._send_steadily(writer, rate_per_s, 4 * POLL_S)
        self._drained_s = round(time.monotonic() - began, 1)
        self.phase = f"drained in {self._drained_s:.0f} s"

    def _send_steadily(self, writer: TopicWriter, rate_per_s: float, seconds: float) -> None:
        began, before = time.monotonic(), self.sent
        while (passed_s := time.monotonic() - began) < seconds and not self.stop.is_set():
            self._send(writer, round(rate_per_s * passed_s) - (self.sent - before))
            time.sleep(POLL_S)

    def _send(self, writer: TopicWriter, count: int) -> None:
        for event in islice(self._events, max(0, count)):
            self._remember(event)
            writer.write(event.key, event.value, event.headers)
            self.sent += 1

    def _wait_until_lag_is(self, wanted: int) -> None:
        ends = time.monotonic() + DEADLINE_S
        while self.lag > wanted and not self.stop.is_set():
            if time.monotonic() > ends:
                raise OpsError(
                    f"{self.lag} of {self.sent} events have no result after {DEADLINE_S:.0f} s; "
                    "see `bertstream health` for the reason"
                )
            time.sleep(POLL_S)

    def _remember(self, event: DemoEvent) -> None:
        if not event.is_bad and event.value is not None:
            content = orjson.loads(event.value)
            self._texts[str(content["id"])] = content["text"]
