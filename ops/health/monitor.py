"""Runs the probes in turn, each in a thread of its own, and keeps the latest judgement.

A probe that fails becomes a finding; one that hangs keeps its thread, is not asked again before it
ends, and becomes a finding as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter, ValidationError

from ops.errors import NotReady, OpsError
from ops.health import kinds
from ops.health.findings import REPORT_FILE, Finding, Severity
from ops.health.readings import Expected, Fault, PipelineReports, Readings
from ops.health.rules import Health, judge
from ops.processes.state_file import replace_file
from stream.errors import StreamError

logger = logging.getLogger(__name__)

EVERY_S = 10.0
ROUND_S = 8.0
FIRST_ROUND_S = 15.0
STALE = timedelta(seconds=60)
# Findings of a process before this one keep their time when it ended not longer ago.
TAKEN_OVER = timedelta(minutes=5)

_KEPT = TypeAdapter(Health)


class Probe(Protocol):
    """One question."""

    def __call__(self) -> Any:
        """The reading of that name; errors of ours where there is none."""
        ...

    def close(self) -> None:
        """End what is open; never called while the question is asked."""
        ...


class Schedule(NamedTuple):
    """How a probe is asked.

    Attributes:
        deadline_s: After which it counts as failed.
        every_s: Between two questions, while they are answered; after a failure every round asks.
        first_after_s: From the monitor's making to the first question.
    """

    probe: Probe
    deadline_s: float
    every_s: float = EVERY_S
    first_after_s: float = 0.0


class HealthMonitor:
    """Looks every few seconds, beside everything else."""

    def __init__(
        self,
        expected: Expected,
        probes: Mapping[str, Schedule],
        telling: Callable[[datetime], PipelineReports],
        *,
        clock: Callable[[], datetime],
        state_dir: Path,
    ) -> None:
        """Do nothing yet.

        Args:
            probes: By the name of their reading.
            telling: What the pipelines told, without asking anybody.
            clock: Aware.
            state_dir: Where the last judgement is kept, for who cannot ask any more.
        """
        self._expected, self._telling, self._clock = expected, telling, clock
        self._file = state_dir / REPORT_FILE
        self._lanes = {name: _Lane(name, schedule) for name, schedule in probes.items()}
        self._health: Health | None = None
        self._first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; what hangs is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(ROUND_S + 1)
        for lane in self._lanes.values():
            lane.close()

    def latest(self) -> Health:
        """The last judgement; waits for the first.

        Raises:
            NotReady: There is none yet. Retriable.
        """
        if not self._first.wait(FIRST_ROUND_S) or self._health is None:
            raise NotReady("health was not looked at yet; ask again in some seconds")
        health = self._health
        return _with_age(health, self._clock())

    def require_fresh(self) -> None:
        """Refuse where nobody looks, or no operator leads; for ``/readyz``.

        Raises:
            NotReady: With the reason. Retriable.
        """
        if self._health is None:
            raise NotReady("health was not looked at yet; ask again in some seconds")
        for finding in self.latest().findings:
            if finding.key in ("operator/lease", "health/age") and finding.is_trouble:
                raise NotReady(f"{finding.what}; {finding.todo}")

    def _run(self) -> None:
        began, earlier = self._clock(), self._kept()
        while not self._stopping.is_set():
            started = time.monotonic()
            health = self.refresh(began, earlier)
            self._health, earlier = health, health.findings
            self._first.set()
            self._save(health)
            self._stopping.wait(max(0.0, EVERY_S - (time.monotonic() - started)))

    def refresh(self, began: datetime, earlier: Iterable[Finding]) -> Health:
        """One round."""
        for lane in self._lanes.values():
            lane.begin(self._clock())
        end = time.monotonic() + ROUND_S
        found = {name: lane.settled(end, self._clock) for name, lane in self._lanes.items()}
        now = self._clock()
        told = self._telling(now)
        readings = Readings(at=now, began=began, telling=told, **found)
        return judge(self._expected, readings, earlier)

    def _kept(self) -> tuple[Finding, ...]:
        health = kept(self._file)
        if health is None or self._clock() - health.at > TAKEN_OVER:
            return ()
        return health.findings

    def _save(self, health: Health) -> None:
        try:
            replace_file(self._file, _KEPT.dump_json(replace(health, readings=None)))
        except OSError as exc:
            logger.info("%s cannot be written: %s", self._file, exc)


def kept(file: Path) -> Health | None:
    """The judgement that was written to a file; None where there is none."""
    try:
        return _KEPT.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _with_age(health: Health, now: datetime) -> Health:
    """The same, and a finding where it is old."""
    if now - health.at <= STALE:
        return health
    what = f"health was last checked {(now - health.at).total_seconds():.0f} s ago"
    finding = kinds.HEALTH_OLD.found(Severity.DEGRADED, what, health.at)
    return replace(health, findings=(finding, *health.findings))


class _Lane:
    """One probe, its thread while it is asked, and its last reading."""

    def __init__(self, name: str, schedule: Schedule) -> None:
        self._name = name
        self._schedule = schedule
        self._thread: threading.Thread | None = None
        self._began_s = time.monotonic() + schedule.first_after_s - schedule.every_s
        self._asked_at: datetime | None = None
        self._reading: Any = None
        self._failing_since: datetime | None = None

    def begin(self, now: datetime) -> None:
        """Ask, unless it is not time yet or the last question is still open."""
        due = time.monotonic() - self._began_s >= self._schedule.every_s - EVERY_S / 2
        # After a failure the next round asks again.
        if self._is_open() or not (due or isinstance(self._reading, Fault)):
            return
        self._began_s, self._asked_at = time.monotonic(), now
        self._thread = threading.Thread(target=self._ask, name=f"probe-{self._name}", daemon=True)
        self._thread.start()

    def settled(self, until_s: float, clock: Callable[[], datetime]) -> Any:
        """What is known when the question is answered, or the round or its deadline is over."""
        deadline_s = self._began_s + self._schedule.deadline_s
        if self._thread is not None:
            self._thread.join(max(0.0, min(until_s, deadline_s) - time.monotonic()))
        if not self._is_open() or time.monotonic() < deadline_s:
            return self._reading
        late_s = time.monotonic() - self._began_s
        why = f"no answer about {self._name.replace('_', ' ')} within {late_s:.0f} s"
        return Fault(why, self._failing_since or self._asked_at or clock())

    def close(self) -> None:
        """End its connections, unless it is still at it."""
        if not self._is_open():
            self._schedule.probe.close()

    def _is_open(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _ask(self) -> None:
        asked_at = self._asked_at
        assert asked_at is not None  # it was begun
        try:
            reading = self._schedule.probe()
        except (OpsError, StreamError, OSError) as exc:
            self._failed(str(exc), asked_at)
        except Exception as exc:
            # The top of a thread; unheard, a platform that nobody sees would count as healthy.
            logger.exception("health: %s", self._name)
            self._failed(f"{type(exc).__name__}: {exc}", asked_at)
        else:
            self._reading, self._failing_since = reading, None

    def _failed(self, why: str, asked_at: datetime) -> None:
        self._failing_since = self._failing_since or asked_at
        self._reading = Fault(why, self._failing_since)
