"""Releases through the control API: who may, what is refused, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.access import grants, ledger
from ops.access.ledger import LedgerRow
from ops.access.permissions import Permission
from ops.api.app import create_app
from ops.catalogue.deployments import keep_deployment
from ops.catalogue.store import ArtifactStore
from ops.releases.releases import move, open_of
from ops.releases.routes import put_route
from ops.releases.state_machine import Event
from ops.service.service import Service
from ops.sql.database import Database
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import TAR, archive_of, make_directory
from tests.ops.installation import NOW, Installation, client, install, served

pytestmark = pytest.mark.slow

MODEL = "sentiment"
SERVED = {"replicas": 1}
TO_CANARY = [
    Event.GATES_PASSED,
    Event.APPROVED,
    Event.MAY_GO,
    Event.LOADED,
    Event.STEP_PASSED,
]
TO_LIVE = [*TO_CANARY, Event.STEP_PASSED, Event.STEP_PASSED, Event.STEP_PASSED]
Clients = Callable[[str], httpx.Client]


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Iterator[Installation]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}", timeout_s=2)) as database:
        made = install(database, tmp_path)
        store = ArtifactStore(tmp_path / "store")
        made.service = Service(database, store, made.clock, serving={MODEL: SERVED})
        with database.begin() as connection:
            for permission in (Permission.RELEASE, Permission.ROLLBACK):
                grants.give(connection, "mlops", permission, MODEL, by="root", now=NOW)
            grants.give(connection, "risk", Permission.APPROVE, MODEL, by="root", now=NOW)
            grants.give(connection, "ana", Permission.APPROVE, MODEL, by="root", now=NOW)
        yield made


@pytest.fixture
def api(there: Installation) -> Iterator[Clients]:
    """Ana registered three versions, and the first one is live."""
    with ExitStack() as stack:
        url = stack.enter_context(served(create_app(there.service)))
        clients: dict[str, httpx.Client] = {}

        def of(name: str) -> httpx.Client:
            if name not in clients:
                clients[name] = stack.enter_context(client(url, there.secrets[name]))
            return clients[name]

        for number in (1, 2, 3):
            made = make_directory(there.folder / f"v{number}", weights=b"%d" % number)
            response = of("ana").post(
                f"/models/{MODEL}/versions", content=archive_of(made), headers=TAR
            )
            assert response.status_code == 201
        with there.database.begin() as connection:
            keep_deployment(connection, MODEL, "1", SERVED, NOW)
            route = {"1": VersionRoute(weight=1.0)}
            put_route(connection, ControlRecord(model=MODEL, epoch=1, versions=route))
        yield of


def begin(api: Clients, version: int = 2, who: str = "ana", **more: Any) -> httpx.Response:
    return api(who).post(f"/models/{MODEL}/releases", json={"version": version} | more)


def say(api: Clients, word: str, who: str = "ana") -> httpx.Response:
    path = "rollback" if word == "rollback" else f"release/{word}"
    return api(who).post(f"/models/{MODEL}/{path}", json={"reason": "so it shall be"})


def advance(there: Installation, events: list[Event]) -> None:
    """Do what the operator would."""
    for event in events:
        with there.database.begin() as connection:
            release = open_of(connection, MODEL)
            assert release is not None
            move(
                connection,
                release,
                event,
                actor="operator",
                reason=str(event),
                evidence={},
                now=there.clock(),
            )


def set_policy(api: Clients, rest: str) -> None:
    done = api("root").put("/policies", json={"text": f"model: {MODEL}\n{rest}\n"})
    assert done.status_code == 200, done.text


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def rows(there: Installation) -> list[LedgerRow]:
    with there.database.read() as connection:
        assert ledger.verify(connection) is None
        return ledger.entries(connection)


def state(api: Clients) -> str:
    found: str = api("ana").get(f"/models/{MODEL}/release").json()["release"]["state"]
    return found


def test_a_release_from_its_beginning_to_live(there: Installation, api: Clients) -> None:
    made = begin(api, note="less noise")
    assert made.status_code == 201
    assert made.json().items() >= {"version": 2, "label": "2", "state": "draft"}.items()
    advance(there, TO_CANARY)
    story = api("ana").get(f"/models/{MODEL}/release").json()
    assert story["release"]["weight"] == 0.05
    assert story["route"]["versions"]["2"]["weight"] == 0.05
    advance(there, TO_LIVE[len(TO_CANARY) :])
    assert state(api) == "live"
    moves = api("ana").get(f"/releases/{story['release']['id']}").json()["moves"]
    assert [m["to_state"] for m in moves][-2:] == ["bake", "live"]
    listed = api("ana").get("/releases", params={"model": MODEL}).json()["items"]
    assert [(r["version"], r["state"]) for r in listed] == [(2, "live")]


def test_without_the_right_nothing_begins_and_the_ledger_has_it(
    there: Installation, api: Clients
) -> None:
    assert error(begin(api, who="eve")) == (403, "NotAllowed")
    denial = rows(there)[0]
    assert (denial.actor, denial.action, denial.denied) == ("eve", "release.start", True)
    begin(api)
    for word in ("pause", "abort", "promote", "approve", "reject", "rollback"):
        assert error(say(api, word, who="eve"))[0] == 403, word
    assert state(api) == "draft"


@pytest.mark.parametrize(
    ("version", "status", "kind"),
    [(9, 404, "UnknownVersion"), (1, 409, "VersionIsLive")],
)
def test_what_cannot_be_released(api: Clients, version: int, status: int, kind: str) -> None:
    assert error(begin(api, version)) == (status, kind)


@pytest.mark.parametrize(
    "body", [{"version": True}, {"version": "2"}, {"version": 2, "break_glass": "no"}]
)
def test_a_number_and_a_yes_are_what_they_look_like(api: Clients, body: dict[str, Any]) -> None:
    refused = api("root").post(f"/models/{MODEL}/releases", json=body)
    assert error(refused) == (422, "Invalid")


def test_one_release_of_a_model_at_a_time(api: Clients) -> None:
    begin(api)
    second = begin(api, version=3)
    assert error(second) == (409, "ReleaseOpen")
    assert "abort" in second.json()["message"]


def test_nobody_approves_a_version_of_their_own(there: Installation, api: Clients) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    begin(api)
    refused = say(api, "approve", who="ana")
    assert error(refused) == (403, "NotAllowed")
    assert "registered" in refused.json()["message"]
    assert rows(there)[0].denied
    assert say(api, "approve", who="bob").status_code == 200
    explained = api("ana").get(f"/models/{MODEL}/versions/2/explanation").json()
    assert explained["may_go"]


def test_a_rejection_ends_the_release_and_can_be_taken_back(
    there: Installation, api: Clients
) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    begin(api)
    assert say(api, "reject", who="bob").status_code == 200
    advance(there, [Event.REJECTED])
    told = api("ana").get(f"/models/{MODEL}/versions/2/explanation").json()
    assert "Rejected by bob, who can withdraw it." in told["sentences"]
    assert error(say(api, "approve", who="root")) == (404, "UnknownRelease")  # not root's to take
    begin(api)
    advance(there, [Event.GATES_PASSED, Event.REJECTED])  # it stands until then
    there.clock.advance(timedelta(minutes=1))
    assert say(api, "approve", who="bob").json()["state"] == "aborted"
    assert rows(there)[0].action == "release.approve"
    assert api("ana").get(f"/models/{MODEL}/versions/2/explanation").json()["may_go"]
    assert error(say(api, "approve", who="bob")) == (404, "UnknownRelease")  # nothing to take back


@pytest.mark.parametrize("is_over", [False, True])
def test_an_author_takes_back_their_rejection_and_approves_nothing(
    there: Installation, api: Clients, is_over: bool
) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    begin(api)
    assert say(api, "reject", who="ana").status_code == 200
    if is_over:
        advance(there, [Event.REJECTED])
    there.clock.advance(timedelta(minutes=1))
    assert say(api, "approve", who="ana").status_code == 200
    assert rows(there)[0].evidence["takes_back"] == "rejection"
    told = " ".join(api("ana").get(f"/models/{MODEL}/versions/2/explanation").json()["sentences"])
    assert "Rejected" not in told
    assert "Missing: 1 approval from team risk" in told
    again = say(api, "approve", who="ana")
    assert error(again) == ((404, "UnknownRelease") if is_over else (403, "NotAllowed"))


def test_an_approval_tells_in_which_team_it_was_given(there: Installation, api: Clients) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    begin(api)
    assert say(api, "approve", who="bob").status_code == 200
    assert rows(there)[0].evidence == {"teams": ["risk"]}
    assert say(api, "reject", who="root").status_code == 200
    assert rows(there)[0].evidence == {"teams": []}


def test_a_decision_changes_nothing_once_it_has_loaded(there: Installation, api: Clients) -> None:
    begin(api)
    advance(there, TO_CANARY)
    assert error(say(api, "reject", who="bob")) == (409, "Conflict")
    assert say(api, "rollback").json()["state"] == "rolling_back"
    assert error(say(api, "approve", who="bob")) == (409, "Conflict")


def test_a_release_that_is_held_up_before_it_loads_can_be_rejected(
    there: Installation, api: Clients
) -> None:
    begin(api)
    advance(there, TO_CANARY[:2])
    assert say(api, "pause").json()["state"] == "paused"
    assert say(api, "reject", who="bob").status_code == 200


def test_pages_of_releases(api: Clients) -> None:
    for version in (2, 3, 2):
        begin(api, version)
        assert say(api, "abort").status_code == 200
    page = api("ana").get("/releases", params={"model": MODEL, "limit": 2}).json()
    assert ([r["version"] for r in page["items"]], page["next"]) == ([2, 3], "2")
    page = api("ana").get("/releases", params={"model": MODEL, "before": page["next"]}).json()
    assert ([r["version"] for r in page["items"]], page["next"]) == ([2], None)


def test_an_approval_is_void_when_the_policy_changes(api: Clients) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    begin(api)
    assert say(api, "approve", who="bob").status_code == 200
    set_policy(api, "approvals: [{team: risk, count: 1}]\nretention: {versions: 5}")
    explained = api("ana").get(f"/models/{MODEL}/versions/2/explanation").json()
    assert not explained["may_go"]
    assert "before the policy changed" in " ".join(explained["sentences"])


def test_outside_its_window_a_release_is_refused_and_a_rollback_never(
    there: Installation, api: Clients
) -> None:
    begin(api)
    advance(there, TO_LIVE)
    set_policy(
        api,
        'windows: {deny: [{cron: "0 0 * * *", duration: 12h}]}\noutside_windows: refuse',
    )
    assert error(begin(api, version=3)) == (409, "OutsideWindow")
    back = say(api, "rollback")
    assert back.status_code == 200
    assert back.json().items() >= {"version": 1, "is_rollback": True, "state": "loading"}.items()
    advance(there, [Event.LOADED])
    assert state(api) == "live"
    assert error(say(api, "rollback")) == (404, "UnknownRelease")


def test_the_glass_is_broken_with_a_reason_by_who_may(there: Installation, api: Clients) -> None:
    set_policy(api, "approvals: [{team: risk, count: 1}]")
    assert error(begin(api, break_glass=True, note="urgent")) == (403, "NotAllowed")
    assert error(begin(api, who="root", break_glass=True)) == (422, "Invalid")
    assert begin(api, who="root", break_glass=True, note="urgent").status_code == 201
    started = rows(there)[0]
    assert (started.action, started.break_glass) == ("release.start", True)


def test_a_person_holds_it_up_and_takes_it_back(there: Installation, api: Clients) -> None:
    begin(api)
    assert error(say(api, "resume")) == (409, "EventRefused")
    advance(there, TO_CANARY)
    assert say(api, "pause").json()["state"] == "paused"
    there.clock.advance(timedelta(hours=1))
    assert say(api, "resume").json()["state"] == "canary"
    assert say(api, "promote").json()["step"] == 1
    assert say(api, "rollback").json()["state"] == "rolling_back"
    route = api("ana").get(f"/models/{MODEL}/release").json()["route"]
    assert route["versions"] == {"1": {"digest": route["versions"]["1"]["digest"], "weight": 1.0}}


def test_a_model_that_is_not_served_cannot_be_released(there: Installation, api: Clients) -> None:
    made = make_directory(there.folder / "other", weights=b"other")
    api("root").post("/models/other/versions", content=archive_of(made), headers=TAR)
    assert error(api("eve").post("/models/other/releases", json={"version": 1}))[0] == 403
    assert rows(there)[0].denied
    refused = api("root").post("/models/other/releases", json={"version": 1})
    assert error(refused) == (422, "Invalid")
    assert "bertstream up" in refused.json()["message"]
