"""``bertstream release``: what people see of a release."""

from __future__ import annotations

import pytest

from ops.artifact_store import ArtifactStore
from ops.catalogue import VersionId
from ops.deployments import keep_deployment
from ops.routes import put_route
from ops.service import Service
from stream.schema import ControlRecord, VersionRoute
from tests.ops.commands.conftest import Bertstream
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
