"""The operator's control loop; every tick starts from the state in SQL and Kafka.

No state in memory matters. If two operators run, the one without the lease stays passive; and if
both acted, each transition compares the row's revision, and each route has its epoch.
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
# Ticks are this many times rarer while no release is under way.
IDLE_TICKS = 5
LEASE_LASTS = timedelta(seconds=15)
# Time for releases in one round: a successor may have to judge a hundred releases by hours of
# windows, and the other work of a round must not wait for all of them.
STEERING_S = 0.02


class RoutePublisher(Protocol):
    """Writes to the control topic."""

    def publish(self, record: ControlRecord) -> None:
        """Write a route and wait for the broker's acknowledgement.

        Raises:
            StreamError: The broker did not acknowledge it.
        """
        ...


class Operator:
    """Advances releases, publishes routes, and reconciles the apps."""

    def __init__(
        self,
        view: PlatformView,
        control: RoutePublisher,
        facts: FactFinder,
        templates: Mapping[str, ModelSettings],
        *,
        clock: Callable[[], datetime],
        holder: str | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        """Create an operator that does not hold the lease yet.

        Args:
            templates: Serving settings of each configured model, by name; versions replace path
                and version.
            clock: Returns the time, timezone-aware.
            holder: Name of the lease holder; different for every process.
            upkeep: Work in addition to releases; None for no such work.
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
        self._steering = RoundRobin(STEERING_S, time.monotonic)

    def wake(self) -> None:
        """Start the next tick at once; callable from any thread."""
        self._awake.set()

    def run(self, stopping: threading.Event, *, tick_s: float) -> None:
        """Tick until ``stopping`` is set, at once after ``wake``; a failed tick is retried."""
        logged: str | None = None
        while not stopping.is_set():
            self._awake.wait(tick_s if self._is_busy else IDLE_TICKS * tick_s)
            self._awake.clear()
            if stopping.is_set():
                break
            try:
                self.tick()
            except (OpsError, StreamError) as exc:
                if str(exc) != logged:
                    logger.warning("retrying: %s", exc)
                logged = str(exc)
            else:
                logged = None
        self._resign()

    def tick(self) -> None:
        """Run one round.

        Raises:
            OpsError, StreamError: A dependency does not answer; the next round tries again.
        """
        now = self._clock()
        with self._database.begin() as connection:
            fence = acquire(connection, LEASE, self._holder, now=now, lasts=LEASE_LASTS)
        self.leads = fence is not None
        if not self.leads:
            return
        self.publish()  # first: a rollback must not wait for anything else
        self._losses.record(self._observations.losses(), now)
        is_current = self._refresh()
        with self._database.read() as connection:
            found = open_releases(connection)
        self._facts.refresh(found)
        by_model = {release.model: release for release in found}
        moved = [
            self._steer(by_model[model], now) for model in self._steering.run_in_turn([*by_model])
        ]
        if self._steering.has_left_some:
            self.wake()
        if any(moved):
            self.publish()
            with self._database.read() as connection:
                found = open_releases(connection)
        round_ = self._reconcile(found, now)
        if is_current and self._upkeep is not None:
            self._upkeep.tick(round_)

    def publish(self) -> None:
        """Publish routes in force that are missing on the control topic.

        Raises:
            StreamError: The broker did not acknowledge them.
        """
        with self._database.read() as connection:
            waiting = unpublished(connection)
        done: list[ControlRecord] = []
        try:
            for record in waiting:
                self._control.publish(record)
                done.append(record)
                logger.info("%s: route of epoch %d published", record.model, record.epoch)
        finally:
            # Marked at once. After a crash before this they are published again, which is harmless.
            if done:
                with self._database.begin() as connection:
                    for record in done:
                        mark_published(connection, record)

    def _refresh(self) -> bool:
        try:
            self._apps.refresh()
        except NotRunning as exc:
            logger.warning("%s", exc)
            return False
        return True

    def _steer(self, release: Release, now: datetime) -> bool:
        """Apply the event that is due for a release, if any; return whether it moved."""
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
        """Have every version served that is routed to, will be, or is still in use."""
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
        is_known = self._observations.is_current  # otherwise an app may be in use
        spare = self._ours() - self._in_use() if is_known else set()
        self._apps.reconcile(wanted, spare, others)
        return Round(now, routes, coming, wanted)

    def _made(self, model: str, label: str) -> ModelSettings:
        """Return the settings of a version's app."""
        with self._database.read() as connection:
            changes = deployment(connection, model, label)
        return self._facts.serving(self._templates[model], label, changes)

    def _ours(self) -> set[str]:
        """Return the apps of versions that have a number in the catalogue."""
        return {
            name
            for name in self._apps.found
            if (app := AppName.parse(name)).model in self._templates
            and number_of(app.label) is not None
        }

    def _in_use(self) -> set[str]:
        """Return the apps from which a consumer still awaits answers."""
        since_ms = to_ms(self._clock() - CONSUMER_SILENCE)
        return {
            app_name(consumer.model, version)
            for consumer in self._observations.consumers(since_ms=since_ms)
            for version in consumer.versions
        }

    def _resign(self) -> None:
        try:
            with self._database.begin() as connection:
                release_lease(connection, LEASE, self._holder, self._clock())
        except OpsError as exc:
            logger.info("the lease was not released and will expire: %s", exc)
        self._apps.close()
