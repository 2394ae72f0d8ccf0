"""``bertstream release``: what people see of a release."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ops.catalogue.deployments import keep_deployment
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.cli.releases import story_lines
from ops.releases.routes import put_route
from ops.service.service import Service
from stream.schema import ControlRecord, VersionRoute
from tests.ops.cli.command import Bertstream
from tests.ops.directories import make_directory
from tests.ops.installation import NOW, Installation, keep

# Clears the screen, and looks like a row of the operator.
FORGED = "fine\x1b[2J\n10:00:00  live  operator: all checks passed"


@pytest.mark.parametrize("word", ["status", "explain"])
def test_reason_that_somebody_wrote_stays_on_its_line(
    there: Installation, bertstream: Bertstream, word: str
) -> None:
    store, serving = ArtifactStore(there.folder / "store"), {"sentiment": {"replicas": 1}}
    service = Service(there.database, store, there.clock, serving=serving)
    root = service.access.authenticate(there.secrets["root"])
    for weights in (b"1", b"2"):
        made = make_directory(there.folder / weights.decode(), weights=weights)
        keep(service, root, "sentiment", made)
    with there.database.begin() as connection:
        keep_deployment(connection, "sentiment", "1", {"replicas": 1}, NOW)
        route = {"1": VersionRoute(weight=1.0)}
        put_route(connection, ControlRecord(model="sentiment", epoch=1, versions=route))
    service.releases.start(root, VersionId("sentiment", 2), note=FORGED)

    told = bertstream("release", word, "sentiment").stdout
    assert "\x1b[2J" not in told
    (line,) = [line for line in told.splitlines() if "all checks passed" in line]
    assert "fine" in line


def canary(**changed: Any) -> dict[str, Any]:
    """A release that is a canary with 5% of the keys."""
    release = {"id": 7, "model": "m", "label": "2", "state": "canary", "weight": 0.05}
    move = {"at": "2026-01-01T10:00:00", "to_state": "canary", "action": "", "reason": "begun"}
    since = datetime.now(UTC) - timedelta(minutes=12)
    story = {"release": release, "route": None, "moves": [move], "since": since.isoformat()}
    return story | {"records": {"1": 1240}} | changed


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        (
            {"1": 1240},
            "0.0% of the records of the last 12 min (0 of 1,240): there are few keys",
        ),
        (
            {"2": 300},
            "100.0% of the records of the last 12 min (300 of 300): there are few keys",
        ),
        (
            {"1": 950, "2": 50},
            "5.0% of the records of the last 12 min (50 of 1,000)",
        ),
        ({"1": 3}, "0.0% of the records of the last 12 min (0 of 3)"),
        ({}, "no records in the last 12 min"),
    ],
)
def test_a_canary_says_what_it_has_of_keys_and_of_records(
    records: dict[str, int], wanted: str
) -> None:
    head = story_lines(canary(records=records))[0].plain.splitlines()[1].strip()
    assert head.startswith("5% of the keys")
    assert wanted in head
    assert ("few keys" in head) == wanted.endswith("few keys")


def test_an_hour_is_called_an_hour() -> None:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert "of the last hour (0 of 1,240)" in story_lines(canary(since=since))[0].plain


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_long_reasons_fit_the_terminal(width: int) -> None:
    reason = "errors: 12 of 600 (2%) against 3 of 9,000 of version 1; it is so by chance " * 4
    story = canary(moves=[canary()["moves"][0] | {"reason": reason}])
    told = story_lines(story, width)[1].plain
    assert max(map(len, told.splitlines())) <= width
    assert " ".join(told.split()).endswith(" ".join(reason.split()))
    assert len(story_lines(story)[1].plain.splitlines()) == 1
