"""Runs the probes periodically, each in its own thread, and keeps the latest report.

A probe that fails becomes a finding. One that hangs becomes a finding as well; it keeps its thread
and is not started again before it ends.
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
# Findings keep their times across a restart if the last report is not older than this.
TAKEN_OVER = timedelta(minutes=5)

_KEPT = TypeAdapter(Health)


class Probe(Protocol):
    """One check of the platform."""

    def __call__(self) -> Any:
        """Return the reading; raise an error of this project if there is none."""
        ...

    def close(self) -> None:
        """Release resources; never called while the probe runs."""
        ...


class Schedule(NamedTuple):
    """When and for how long a probe runs.

    Attributes:
        deadline_s: Time after which the probe counts as failed.
        every_s: Interval between successful runs; after a failure the probe runs in every round.
        first_after_s: Delay from the creation of the monitor to the first run.
    """

    probe: Probe
    deadline_s: float
    every_s: float = EVERY_S
    first_after_s: float = 0.0


class HealthMonitor:
    """Checks health every few seconds in a background thread."""

    def __init__(
        self,
        expected: Expected,
        probes: Mapping[str, Schedule],
        telling: Callable[[datetime], PipelineReports],
        *,
        clock: Callable[[], datetime],
        state_dir: Path,
    ) -> None:
        """Create a monitor that is not started.

        Args:
            probes: Schedules by the name of the reading.
            telling: Returns what the pipelines reported lately, without network access.
            clock: Returns the time, timezone-aware.
            state_dir: Directory of the last report, for use when the operator does not answer.
        """
        self._expected, self._telling, self._clock = expected, telling, clock
        self._file = state_dir / REPORT_FILE
        self._lanes = {name: _Lane(name, schedule) for name, schedule in probes.items()}
        self._health: Health | None = None
        self._first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; probes that hang are abandoned."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(ROUND_S + 1)
        for lane in self._lanes.values():
            lane.close()

    def latest(self) -> Health:
        """Return the latest report; wait for the first.

        Raises:
            NotReady: There is no report yet. Retriable.
        """
        if not self._first.wait(FIRST_ROUND_S) or self._health is None:
            raise NotReady("health has not been checked yet; try again in a few seconds")
        health = self._health
        return _with_age(health, self._clock())

    def require_fresh(self) -> None:
        """Refuse if the report is missing or stale, or no operator leads; for ``/readyz``.

        Raises:
            NotReady: The message has the reason. Retriable.
        """
        if self._health is None:
            raise NotReady("health has not been checked yet; try again in a few seconds")
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
        """Run one round of probes and return its report."""
        for lane in self._lanes.values():
            lane.begin(self._clock())
        end = time.monotonic() + ROUND_S
        found = {name: lane.settled(end, self._clock) for name, lane in self._lanes.items()}
        now = self._clock()
        readings = Readings(at=now, began=began, telling=self._telling(now), **found)
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
    """Return the report that was written to a file; None if there is none."""
    try:
        return _KEPT.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _with_age(health: Health, now: datetime) -> Health:
    """Return the report, with an additional finding if it is old."""
    if now - health.at <= STALE:
        return health
    what = f"health was last checked {(now - health.at).total_seconds():.0f} s ago"
    finding = kinds.HEALTH_OLD.found(Severity.DEGRADED, what, health.at)
    return replace(health, findings=(finding, *health.findings))


class _Lane:
    """One probe, its thread while it runs, and its last reading."""

    def __init__(self, name: str, schedule: Schedule) -> None:
        self._name = name
        self._schedule = schedule
        self._thread: threading.Thread | None = None
        self._began_s = time.monotonic() + schedule.first_after_s - schedule.every_s
        self._asked_at: datetime | None = None
        self._reading: Any = None
        self._failing_since: datetime | None = None

    def begin(self, now: datetime) -> None:
        """Start the probe, unless it is not due yet or still running."""
        due = time.monotonic() - self._began_s >= self._schedule.every_s - EVERY_S / 2
        # After a failure the probe runs again in the next round.
        if self._is_open() or not (due or isinstance(self._reading, Fault)):
            return
        self._began_s, self._asked_at = time.monotonic(), now
        self._thread = threading.Thread(target=self._ask, name=f"probe-{self._name}", daemon=True)
        self._thread.start()

    def settled(self, until_s: float, clock: Callable[[], datetime]) -> Any:
        """Return the reading when the probe ends, or the round or its deadline is over."""
        deadline_s = self._began_s + self._schedule.deadline_s
        if self._thread is not None:
            self._thread.join(max(0.0, min(until_s, deadline_s) - time.monotonic()))
        if not self._is_open() or time.monotonic() < deadline_s:
            return self._reading
        late_s = time.monotonic() - self._began_s
        why = f"no answer about {self._name.replace('_', ' ')} within {late_s:.0f} s"
        return Fault(why, self._failing_since or self._asked_at or clock())

    def close(self) -> None:
        """Close the probe's connections, unless it is still running."""
        if not self._is_open():
            self._schedule.probe.close()

    def _is_open(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _ask(self) -> None:
        asked_at = self._asked_at
        assert asked_at is not None  # set by begin()
        try:
            reading = self._schedule.probe()
        except (OpsError, StreamError, OSError) as exc:
            self._failed(str(exc), asked_at)
        except Exception as exc:
            # The top of a thread: if it were lost, an unmonitored platform would count as healthy.
            logger.exception("health: %s", self._name)
            self._failed(f"{type(exc).__name__}: {exc}", asked_at)
        else:
            self._reading, self._failing_since = reading, None

    def _failed(self, why: str, asked_at: datetime) -> None:
        self._failing_since = self._failing_since or asked_at
        self._reading = Fault(why, self._failing_since)
