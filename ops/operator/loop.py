"""The operator: looks, decides, acts, and begins anew; every tick from what SQL and Kafka say.

It keeps nothing of its own that matters. Where two were started, the one without the lease looks
on; and were both to act, each move compares the row's revision, and a route has its epoch.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from ops.access.ledger import OPERATOR
from ops.catalogue.deployments import deployment
from ops.catalogue.versions import number_of
from ops.errors import DatabaseUnavailable, NotRunning, OpsError, ReleaseMoved
from ops.operator.deleted_records import DeletedRecordsLog
from ops.operator.repairs import Round
from ops.operator.round_robin import RoundRobin
from ops.operator.upkeep import Upkeep
from ops.releases.facts import FactFinder
from ops.releases.next_event import due
from ops.releases.releases import Release, move, open_releases
from ops.releases.routes import all_routes, mark_published, unpublished
from ops.releases.state_machine import needs_candidate
from ops.sql.lease import acquire, release_lease
from ops.telemetry.observations import CONSUMER_SILENCE
from ops.view import PlatformView
from serve.contract import AppName, app_name
from serve.settings import ModelSettings
from stream.errors import StreamError
from stream.schema import ControlRecord
from stream.times import to_ms

logger = logging.getLogger(__name__)

LEASE = "operator"
# While no release is under way it looks less often.
IDLE_TICKS = 5
LEASE_LASTS = timedelta(seconds=15)
# Of a round: who takes over finds hours of windows to judge a hundred releases by, and what else a
# round does must not wait for all of them.
STEERING_S = 0.02


class ControlDoor(Protocol):
    """Writes the control topic."""

    def publish(self, record: ControlRecord) -> None:
        """Write a route and wait until the broker has it.

        Raises:
            StreamError: It has it not.
        """
        ...


class Operator:
    """Moves releases on, publishes routes, and sees that the apps are there."""

    def __init__(
        self,
        view: PlatformView,
        control: ControlDoor,
        facts: FactFinder,
        templates: Mapping[str, ModelSettings],
        *,
        clock: Callable[[], datetime],
        holder: str | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        """Begin to be one.

        Args:
            templates: How each configured model is served, by its name; versions replace path
                and version.
            clock: Aware.
            holder: Of the lease; another for every process.
            upkeep: What is done beside releases; None for nothing.
        """
        self._database, self._observations, self._apps = view
        self._control = control
        self._facts = facts
        self._templates = templates
        self._clock = clock
        self._holder = holder or uuid.uuid4().hex
        self._upkeep = upkeep
        self._losses = DeletedRecordsLog(view.database)
        self.leads = False
        self._awake = threading.Event()
        self._is_busy = True
        self._turns = RoundRobin(STEERING_S, time.monotonic)

    def wake(self) -> None:
        """Have the next tick come at once; from any thread."""
        self._awake.set()

    def run(self, stopping: threading.Event, *, tick_s: float) -> None:
        """Tick until told to stop, at once with ``wake``; what fails is tried again next time."""
        told: str | None = None
        while not stopping.is_set():
            self._awake.wait(tick_s if self._is_busy else IDLE_TICKS * tick_s)
            self._awake.clear()
            if stopping.is_set():
                break
            try:
                self.tick()
            except (OpsError, StreamError) as exc:
                if str(exc) != told:
                    logger.warning("trying on: %s", exc)
                told = str(exc)
            else:
                told = None
        self._resign()

    def tick(self) -> None:
        """One round.

        Raises:
            OpsError, StreamError: Something does not answer; the next round tries again.
        """
        now = self._clock()
        with self._database.begin() as connection:
            fence = acquire(connection, LEASE, self._holder, now=now, lasts=LEASE_LASTS)
        self.leads = fence is not None
        if not self.leads:
            return
        self.publish()  # first: a rollback waits for nothing else
        self._losses.record(self._observations.losses(), now)
        is_seen = self._look()
        with self._database.read() as connection:
            found = open_releases(connection)
        self._facts.refresh(found)
        by_model = {release.model: release for release in found}
        moved = [
            self._steer(by_model[model], now) for model in self._turns.run_in_turn([*by_model])
        ]
        if self._turns.has_left_some:
            self.wake()
        if any(moved):
            self.publish()
            with self._database.read() as connection:
                found = open_releases(connection)
        round_ = self._reconcile(found, now)
        if is_seen and self._upkeep is not None:
            self._upkeep.tick(round_)

    def publish(self) -> None:
        """Bring the control topic to the routes in force.

        Raises:
            StreamError: The broker has them not.
        """
        with self._database.read() as connection:
            waiting = unpublished(connection)
        there: list[ControlRecord] = []
        try:
            for record in waiting:
                self._control.publish(record)
                there.append(record)
                logger.info("%s: route of epoch %d published", record.model, record.epoch)
        finally:
            # Marked at once: whoever dies before that publishes them again, which does no harm.
            if there:
                with self._database.begin() as connection:
                    for record in there:
                        mark_published(connection, record)

    def _look(self) -> bool:
        try:
            self._apps.refresh()
        except NotRunning as exc:
            logger.warning("%s", exc)
            return False
        return True

    def _steer(self, release: Release, now: datetime) -> bool:
        """Move a release on where an event is due."""
        try:
            event = due(release.position, self._facts.of(release, now))
        except (OpsError, StreamError) as exc:
            if isinstance(exc, DatabaseUnavailable):
                raise
            logger.warning("%s: %s", release, exc)
            return False
        if event is None:
            return False
        try:
            with self._database.begin() as connection:
                moved = move(
                    connection,
                    release,
                    event.event,
                    actor=OPERATOR,
                    reason=event.reason,
                    evidence=event.evidence,
                    now=now,
                )
        except ReleaseMoved as exc:
            logger.info("%s", exc)
            return False
        logger.info(
            "%s: %s -> %s: %s", release, release.position.state, moved.position.state, event.reason
        )
        return True

    def _reconcile(self, coming: Sequence[Release], now: datetime) -> Round:
        """See that every version is served that is routed to, or shall be, or is still in use."""
        with self._database.read() as connection:
            routes = all_routes(connection)
        self._is_busy = bool(coming)
        names = {model: set(record.versions) for model, record in routes.items()}
        for release in coming:
            if needs_candidate(release.position):
                names.setdefault(release.model, set()).add(release.label)
        wanted = {
            app_name(model, label): partial(self._made, model, label)
            for model, labels in names.items()
            for label in labels
            if model in self._templates
        }
        others = self._upkeep.others if self._upkeep is not None else frozenset()
        is_known = self._observations.is_current  # else it may be in use
        spare = self._ours() - self._in_use() if is_known else set()
        self._apps.reconcile(wanted, spare, others)
        return Round(now, routes, coming, wanted)

    def _made(self, model: str, label: str) -> ModelSettings:
        """What a version's app is made of."""
        with self._database.read() as connection:
            changes = deployment(connection, model, label)
        return self._facts.serving(self._templates[model], label, changes)

    def _ours(self) -> set[str]:
        """Apps of versions that the catalogue gave a number."""
        return {
            name
            for name in self._apps.found
            if (app := AppName.parse(name)).model in self._templates
            and number_of(app.label) is not None
        }

    def _in_use(self) -> set[str]:
        """Apps that some consumer still waits for answers from."""
        since_ms = to_ms(self._clock() - CONSUMER_SILENCE)
        return {
            app_name(told.model, version)
            for told in self._observations.consumers(since_ms=since_ms)
            for version in told.versions
        }

    def _resign(self) -> None:
        try:
            with self._database.begin() as connection:
                release_lease(connection, LEASE, self._holder, self._clock())
        except OpsError as exc:
            logger.info("the lease runs out by itself: %s", exc)
        self._apps.close()
