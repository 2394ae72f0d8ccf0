"""Releases on their way, and replicas that answer golden texts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, cast

import orjson
from sqlalchemy import insert

from ops.access import grants
from ops.access.permissions import Permission
from ops.catalogue.deployments import keep_deployment
from ops.catalogue.store import ArtifactStore
from ops.releases import releases
from ops.releases.facts import FactFinder
from ops.releases.next_event import DueEvent, due
from ops.releases.releases import Release, Start
from ops.releases.routes import put_route
from ops.releases.state_machine import Event
from ops.serving import apps
from ops.serving.readiness import Readiness
from ops.sql.tables import approvals
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from serve.contract import Answer
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import make_directory
from tests.ops.installation import NOW, Installation, keep

# NOW is Monday 09:00 UTC.
POLICY = """
model: sentiment
windows: {allow: [{cron: "0 12 * * *", duration: 2h}]}
approvals: [{team: risk, count: 1}]
rollout: {shadow: null, canary: [{weight: 0.5, records: 1000, timeout: 10m}], bake: null}
"""


TO_WAITING = (Event.GATES_PASSED, Event.APPROVAL_NEEDED)


TO_SCHEDULED = (Event.GATES_PASSED, Event.APPROVED)


TO_LOADING = (*TO_SCHEDULED, Event.MAY_GO)


TO_CANARY = (*TO_LOADING, Event.LOADED)


class Replicas:
    """Those of a version that is ready and answers every text with one embedding.

    Attributes:
        asked: How often its golden texts were.
    """

    def __init__(self, embedding: list[float]) -> None:
        self._embedding, self.asked = embedding, 0

    def load(self, _name: str, *, age_s: float, deadline_s: float) -> Readiness:
        return Readiness(True, None, age_s, deadline_s)

    def ask(self, _model: str, _label: str, values: list[bytes], _options: Any) -> list[Answer]:
        self.asked += 1
        return [Answer(orjson.dumps(self._embedding), None, None, None, 3, False) for _ in values]


def decision_of_bob(release: Release, decision: str) -> dict[str, Any]:
    """The row of bob's decision for team risk on a release."""
    return {
        "release_id": release.id,
        "person": "bob",
        "team": "risk",
        "decision": decision,
        "version_digest": release.version_digest,
        "policy_digest": release.policy_digest,
        "at": NOW,
    }


class Releases:
    """A model with a live version and one that is to go out."""

    def __init__(self, there: Installation, folder: Path) -> None:
        self.there, self.database = there, there.database
        with self.database.begin() as connection:
            grants.give(connection, "bob", Permission.APPROVE, "*", by="root", now=NOW)
        self.told = Observations()
        root = there.service.access.authenticate(there.secrets["root"])
        for weights in (b"1", b"2"):
            directory = make_directory(
                folder / weights.decode(), weights=weights, golden={"a fine day": [0.6, 0.8]}
            )
            keep(there.service, root, "sentiment", directory)
        there.service.policies.put(root, POLICY)
        with self.database.begin() as connection:
            keep_deployment(connection, "sentiment", "1", {}, NOW)
            route = {"1": VersionRoute(weight=1.0)}
            put_route(connection, ControlRecord(model="sentiment", epoch=1, versions=route))
        self.release: Release | None = None

    def start(self, *events: Event, **more: Any) -> Release:
        with self.database.begin() as connection:
            wanted = Start(model="sentiment", version=2, actor="root", **more)
            release = releases.start(connection, wanted, NOW)
        return self.move(release, *events)

    def move(self, release: Release, *events: Event) -> Release:
        for event in events:
            with self.database.begin() as connection:
                release = releases.move(
                    connection, release, event, actor="root", reason="", evidence={}, now=NOW
                )
        return release

    def decide(self, release: Release, decision: str) -> None:
        with self.database.begin() as connection:
            connection.execute(insert(approvals).values(decision_of_bob(release, decision)))

    def finder(self, replicas: Replicas | None = None) -> FactFinder:
        store = ArtifactStore(self.there.folder / "store")
        view = PlatformView(self.database, self.told, cast(apps.Apps, replicas))
        return FactFinder(view, store, cache_dir=self.there.folder)

    def due(
        self, release: Release, now: datetime, finder: FactFinder | None = None
    ) -> DueEvent | None:
        """By the operator; one that has looked at all before must say the same."""
        finder = finder or self.finder()
        alone = due(release.position, self.finder().of(release, now))
        finder.refresh([release])
        known = due(release.position, finder.of(release, now))
        assert known == alone
        return known
