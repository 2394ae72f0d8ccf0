from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from ops.access.ledger import LedgerQuery, LedgerRow, entries, verify
from ops.catalogue.deployments import deployment
from ops.errors import (
    EventRefused,
    ReleaseMoved,
    ReleaseOpen,
    UnknownRelease,
    UnknownVersion,
    VersionIsLive,
)
from ops.policy.policy import Policy
from ops.releases import releases
from ops.releases.releases import Release, Start
from ops.releases.routes import all_routes, live_label, mark_published, unpublished
from ops.releases.state_machine import Event, Plan, ReleaseState
from ops.sql.database import Database
from ops.sql.tables import deployments, models, policies, versions
from stream.schema import ControlRecord, VersionRoute

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DEADLINE_S = 30.0
MODEL = "sentiment"
SHORT_POLICY = f"model: {MODEL}\nrollout: {{shadow: null, canary: [{{weight: 0.25}}]}}\n"
TO_LOADING = (Event.GATES_PASSED, Event.APPROVED, Event.MAY_GO)
LOADED = (*TO_LOADING, Event.LOADED)


@pytest.fixture(autouse=True)
def registered(database: Database) -> None:
    """Three versions of one model, one of another."""
    with database.begin() as connection:
        for model, count in ((MODEL, 3), ("topics", 1)):
            connection.execute(insert(models).values(name=model, created_at=NOW, created_by="ada"))
            for number in range(1, count + 1):
                connection.execute(insert(versions).values(version_row(model, number)))


def version_row(model: str, number: int) -> dict[str, Any]:
    return {
        "model": model,
        "number": number,
        "digest": f"{number}{model[0]}" * 32,
        "uri": f"{model}/{number}",
        "card": {},
        "files": [],
        "size_bytes": 1,
        "author": "ada",
        "created_at": NOW,
        "source": "",
    }


def set_policy(database: Database, text: str) -> None:
    values = {"model": MODEL, "digest": "p" * 64, "text": text, "author": "eve", "created_at": NOW}
    with database.begin() as connection:
        connection.execute(insert(policies).values(values))


def start(database: Database, version: int, *, now: datetime = NOW, **wanted: Any) -> Release:
    wanted = {"model": MODEL, "actor": "bob"} | wanted
    with database.begin() as connection:
        return releases.start(connection, Start(version=version, **wanted), now)


def move(
    database: Database, release: Release, *events: Event, now: datetime = NOW, reason: str = "so"
) -> Release:
    for happened in events:
        with database.begin() as connection:
            release = releases.move(
                connection,
                release,
                happened,
                actor="operator",
                reason=reason,
                evidence={"share": 0.5},
                now=now,
            )
    return release


def live(database: Database, version: int, *, now: datetime = NOW, **wanted: Any) -> Release:
    """A version that went all the way, promoted over every step."""
    release = start(database, version, now=now, **wanted)
    first = (Event.LOADED,) if release.is_rollback else LOADED
    release = move(database, release, *first, now=now)
    while release.position.state is not ReleaseState.LIVE:
        release = move(database, release, Event.PROMOTE, now=now)
    return release


def route(database: Database) -> ControlRecord:
    with database.read() as connection:
        return all_routes(connection)[MODEL]


def rows(database: Database, release: Release) -> list[LedgerRow]:
    """Of the ledger, oldest first."""
    with database.read() as connection:
        assert verify(connection) is None
        return entries(connection, LedgerQuery(release_id=release.id))[::-1]


def reread(database: Database, release: Release) -> Release:
    with database.read() as connection:
        return releases.get(connection, release.id)


def kept_labels(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(deployments.c.label)))


def together(*calls: Callable[[], object]) -> list[object]:
    """Outcomes of calls in threads that begin at one moment."""
    barrier = threading.Barrier(len(calls), timeout=DEADLINE_S)

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except (ReleaseMoved, ReleaseOpen) as exc:
            return type(exc)

    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(run, call) for call in calls]
        return [future.result(DEADLINE_S) for future in futures]


def test_release_begins_as_it_was_asked_for(database: Database) -> None:
    first = live(database, 1, settings={"replicas": 1})
    release = start(database, 2, note="better", now=NOW + timedelta(hours=1))

    assert release.position.state is ReleaseState.DRAFT
    assert (release.version, release.label, release.version_digest) == (2, "2", "2s" * 32)
    assert (release.previous, release.previous_label) == (1, "1")
    assert release.previous_digest == first.version_digest == "1s" * 32
    assert (release.author, release.note, release.is_rollback) == ("bob", "better", False)
    assert release.created_at == release.entered_at == NOW + timedelta(hours=1)
    assert (release.ended_at, release.revision) == (None, 0)
    assert str(release) == f"release {release.id} of sentiment@2"
    assert reread(database, release) == release
    (row,) = rows(database, release)
    assert (row.action, row.actor, row.reason) == ("release.start", "bob", "better")
    assert (row.model, row.version, row.from_state, row.to_state) == (MODEL, 2, None, "draft")
    assert (row.version_digest, row.policy_digest) == ("2s" * 32, release.policy_digest)
    assert (row.evidence, row.break_glass) == ({"settings": {"replicas": 1}}, False)


@pytest.mark.parametrize(("model", "version"), [(MODEL, 9), ("unknown", 1), ("topics", 2)])
def test_unknown_version_is_refused(database: Database, model: str, version: int) -> None:
    with pytest.raises(UnknownVersion, match=f"there is no {model}@{version}; `bertstream models"):
        start(database, version, model=model)


def test_deleted_version_is_refused(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(update(versions).where(versions.c.number == 2).values(deleted_at=NOW))
    with pytest.raises(UnknownVersion, match="there is no sentiment@2"):
        start(database, 2)
    assert kept_labels(database) == set()


def test_one_release_of_a_model_at_a_time(database: Database) -> None:
    running = start(database, 1)
    with pytest.raises(ReleaseOpen, match=f"release {running.id} of sentiment@1 is draft: wait"):
        start(database, 2)
    start(database, 1, model="topics")
    assert len(rows(database, running)) == 1
    assert kept_labels(database) == {"1"}


def test_of_two_that_start_at_once_one_is_told(database: Database) -> None:
    found = together(lambda: start(database, 1), lambda: start(database, 2))
    assert found.count(ReleaseOpen) == 1
    with database.read() as connection:
        (running,) = releases.open_releases(connection)
        assert len(entries(connection)) == 1
    assert running in found


def test_version_that_is_live_is_refused(database: Database) -> None:
    live(database, 1, settings={"replicas": 2})
    message = "sentiment@1 is already live with the same settings"
    with pytest.raises(VersionIsLive, match=message):
        start(database, 1)
    with pytest.raises(VersionIsLive, match=message):
        start(database, 1, settings={"replicas": 2})


def test_same_version_with_other_settings_has_a_label_of_its_own(database: Database) -> None:
    live(database, 1, settings={"replicas": 2, "engine": "torch"})
    other = live(database, 1, settings={"replicas": 4})
    third = live(database, 1, settings={})
    again = live(database, 1, settings={"engine": "torch", "replicas": 2})

    assert [other.label, third.label, again.label] == ["1.1", "1.2", "1"]
    assert (other.version, other.previous, other.previous_label) == (1, 1, "1")
    assert (third.previous_label, third.previous, third.previous_digest) == ("1.1", 1, "1s" * 32)
    assert kept_labels(database) == {"1", "1.1", "1.2"}
    with database.read() as connection:
        assert deployment(connection, MODEL, "1.1") == {"replicas": 4}
        assert deployment(connection, MODEL, "7") == {}
        assert live_label(connection, MODEL) == "1"
    with pytest.raises(VersionIsLive, match="sentiment@1 is already live"):
        start(database, 1)


def test_next_version_takes_the_settings_of_the_live_one(database: Database) -> None:
    live(database, 1, settings={"replicas": 2})
    assert start(database, 2).label == "2"
    with database.read() as connection:
        assert deployment(connection, MODEL, "2") == {"replicas": 2}


def test_both_labels_of_one_version_are_routed_by_its_digest(database: Database) -> None:
    live(database, 1)
    release = start(database, 1, settings={"replicas": 4})
    move(database, release, *TO_LOADING, Event.LOADED)
    assert {label: way.digest for label, way in route(database).versions.items()} == {
        "1": "1s" * 32,
        "1.1": "1s" * 32,
    }


def test_release_keeps_the_policy_that_it_was_gated_by(database: Database) -> None:
    live(database, 1)
    release = start(database, 2)
    assert release.policy == Policy(model=MODEL)
    assert release.policy_digest == release.policy.digest()
    set_policy(database, SHORT_POLICY)
    release = move(database, release, Event.GATES_PASSED)
    assert release.policy == Policy(model=MODEL)
    release = move(database, release, Event.POLICY_CHANGED)
    assert release.position.state is ReleaseState.DRAFT
    assert release.plan == Plan(shadow=False, weights=(0.25,), bake=True)
    assert release.policy_digest == release.policy.digest() != Policy(model=MODEL).digest()
    release = move(database, release, *TO_LOADING)
    set_policy(database, f"model: {MODEL}\n")
    release = move(database, release, Event.LOADED)

    assert (release.position.state, release.policy.rollout.canary[0].weight) == (
        ReleaseState.CANARY,
        0.25,
    )
    digests = [row.policy_digest for row in rows(database, release)]
    assert digests == [*[Policy(model=MODEL).digest()] * 2, *[release.policy_digest] * 5]


@pytest.mark.parametrize("break_glass", [False, True])
def test_release_does_not_load_by_a_policy_that_it_was_not_gated_by(
    database: Database, break_glass: bool
) -> None:
    begun = start(database, 1, break_glass=break_glass, note="fire")
    release = move(database, begun, Event.GATES_PASSED, Event.APPROVED)
    set_policy(database, SHORT_POLICY)
    with pytest.raises(ReleaseMoved, match="policy"):
        move(database, release, Event.MAY_GO)
    assert reread(database, release) == release


def test_broken_glass_shows_in_every_row(database: Database) -> None:
    release = move(database, start(database, 1, break_glass=True, note="fire"), *LOADED)
    assert [row.break_glass for row in rows(database, release)] == [True] * 5
    assert rows(database, release)[0].reason == "fire"
    usual = start(database, 2)
    assert not any(row.break_glass for row in rows(database, usual))


def test_rollback_has_no_gates_and_no_steps(database: Database) -> None:
    live(database, 1)
    bad = live(database, 2)
    release = start(database, 1, is_rollback=True)
    assert (release.position.state, release.plan) == (ReleaseState.LOADING, Plan(False, (), False))
    release = move(database, release, Event.LOADED)
    assert release.position.state is ReleaseState.LIVE
    assert {label: way.weight for label, way in route(database).versions.items()} == {"1": 1.0}
    assert [row.action for row in rows(database, release)] == ["rollback.start", "release.loaded"]
    assert reread(database, bad).position.state is ReleaseState.SUPERSEDED


def test_event_that_means_nothing_is_refused_with_those_that_do(database: Database) -> None:
    release = start(database, 1)
    with pytest.raises(
        EventRefused,
        match=r"of sentiment@1 is draft and does not accept loaded; it accepts abort$",
    ):
        move(database, release, Event.LOADED)
    ended = move(database, release, Event.ABORT)
    with pytest.raises(EventRefused, match=r"is aborted and .* it accepts nothing"):
        move(database, ended, Event.ROLLBACK)
    assert reread(database, release) == ended
    assert len(rows(database, release)) == 2


def test_move_is_a_row_of_the_ledger(database: Database) -> None:
    release = move(database, start(database, 1), Event.GATES_PASSED, reason="all passed")
    row = rows(database, release)[-1]
    assert (row.action, row.actor, row.reason) == ("release.gates_passed", "operator", "all passed")
    assert (row.from_state, row.to_state, row.evidence) == ("draft", "gated", {"share": 0.5})
    assert (row.model, row.version, row.version_digest) == (MODEL, 1, "1s" * 32)


def test_who_read_an_older_state_moves_nothing(database: Database) -> None:
    draft = start(database, 1)
    move(database, draft, Event.GATES_PASSED)
    with pytest.raises(ReleaseMoved, match="was moved by another process meanwhile"):
        move(database, draft, Event.GATES_PASSED)
    assert [row.action for row in rows(database, draft)] == [
        "release.start",
        "release.gates_passed",
    ]


def test_of_two_that_move_at_once_one_is_told(database: Database) -> None:
    draft = start(database, 1)
    found = together(
        lambda: move(database, draft, Event.GATES_PASSED),
        lambda: move(database, draft, Event.ABORT),
    )
    assert found.count(ReleaseMoved) == 1
    assert reread(database, draft) in found
    assert len(rows(database, draft)) == 2


def test_route_is_written_where_it_changes_and_with_the_next_epoch(database: Database) -> None:
    release = start(database, 1)
    for happened in TO_LOADING:
        release = move(database, release, happened)
        with database.read() as connection:
            assert all_routes(connection) == {}
    release = move(database, release, Event.LOADED)
    assert route(database).epoch == 1

    release = start(database, 2)
    epochs = []
    steps = (*[Event.STEP_PASSED] * 2, Event.PAUSE, Event.RESUME, Event.STEP_PASSED)
    for happened in (*LOADED, *steps, Event.STEP_FAILED, Event.STEP_FAILED, Event.RESTORED):
        release = move(database, release, happened)
        assert route(database).model == MODEL
        epochs.append((happened, route(database).epoch))
    assert epochs == [
        *((happened, 1) for happened in TO_LOADING),
        (Event.LOADED, 2),
        (Event.STEP_PASSED, 3),
        (Event.STEP_PASSED, 4),
        (Event.PAUSE, 4),
        (Event.RESUME, 4),
        (Event.STEP_PASSED, 5),
        (Event.STEP_FAILED, 6),
        (Event.STEP_FAILED, 6),
        (Event.RESTORED, 6),
    ]
    assert route(database).versions == {"1": VersionRoute(digest="1s" * 32, weight=1.0)}


def test_route_stays_in_the_outbox_until_it_is_published(database: Database) -> None:
    live(database, 1)
    live(database, 1, model="topics")
    with database.read() as connection:
        first, other = unpublished(connection)
    assert (first, other.model) == (route(database), "topics")
    release = move(database, start(database, 2), *LOADED)
    with database.begin() as connection:
        # Published, while the route has changed again: the newer one is still to be sent.
        mark_published(connection, first)
        mark_published(connection, other)
        assert unpublished(connection) == [route(database)]
        mark_published(connection, unpublished(connection)[0])
        mark_published(connection, first)
        assert unpublished(connection) == []
    move(database, release, Event.ROLLBACK)
    with database.read() as connection:
        assert unpublished(connection) == [route(database)]


def test_canary_leaves_the_live_version_the_live_one(database: Database) -> None:
    live(database, 1)
    release = move(database, start(database, 2), *LOADED, *[Event.PROMOTE] * 3)
    assert release.position.state is ReleaseState.BAKE
    with database.read() as connection:
        assert live_label(connection, MODEL) == "1"
        assert live_label(connection, "unknown") is None


def test_live_version_is_followed_by_the_next_in_the_same_move(database: Database) -> None:
    first = live(database, 1)
    second = live(database, 2, now=NOW + timedelta(hours=1))
    old = reread(database, first)
    assert (old.position.state, old.ended_at) == (ReleaseState.SUPERSEDED, NOW)
    row = rows(database, first)[-1]
    assert (row.action, row.actor) == ("release.supersede", "operator")
    assert (row.from_state, row.to_state) == ("live", "superseded")
    assert (row.at, row.reason) == (NOW + timedelta(hours=1), "sentiment@2 is live")
    assert reread(database, second).position.state is ReleaseState.LIVE
    with pytest.raises(EventRefused, match="is superseded"):
        move(database, old, Event.SUPERSEDE)


def test_followed_by_hand_it_keeps_its_time_and_the_route(database: Database) -> None:
    live(database, 1)
    second = live(database, 2)
    before = route(database)
    old = move(database, second, Event.SUPERSEDE, now=NOW + timedelta(hours=1))
    assert (old.position.state, old.ended_at) == (ReleaseState.SUPERSEDED, NOW)
    assert route(database) == before


def test_last_time_live_is_known_whatever_came_after(database: Database) -> None:
    def last() -> datetime | None:
        with database.read() as connection:
            return releases.last_live_at(connection, MODEL)

    hours = [NOW + timedelta(hours=number) for number in range(5)]
    assert last() is None
    live(database, 1, now=hours[0])
    assert last() == hours[0]
    second = live(database, 2, now=hours[1])
    assert last() == hours[1]
    live(database, 1, now=hours[2], is_rollback=True)
    assert last() == hours[1]
    assert reread(database, second).position.state is ReleaseState.SUPERSEDED
    failed = move(database, start(database, 3, now=hours[3]), *LOADED, Event.ROLLBACK)
    move(database, failed, Event.RESTORED, now=hours[4])
    assert last() == hours[1]


def test_pause_is_kept_with_where_to_go_on(database: Database) -> None:
    live(database, 1)
    release = move(database, start(database, 2), *LOADED, *[Event.STEP_PASSED] * 2)
    paused = move(database, release, Event.PAUSE, now=NOW + timedelta(hours=1))
    assert reread(database, paused).position == (ReleaseState.PAUSED, 1, ReleaseState.CANARY)
    again = move(database, paused, Event.RESUME, now=NOW + timedelta(hours=2))
    assert reread(database, again).position == release.position == (ReleaseState.CANARY, 1, None)
    assert again.entered_at == NOW + timedelta(hours=2)


def test_asking_again_does_not_begin_a_state_anew(database: Database) -> None:
    live(database, 1)
    release = move(database, start(database, 2), *LOADED, Event.ROLLBACK)
    again = move(database, release, Event.ROLLBACK, now=NOW + timedelta(hours=1))
    assert (again.position, again.entered_at) == (release.position, NOW)
    assert again.revision == release.revision + 1
    over = move(database, again, Event.RESTORED, now=NOW + timedelta(hours=2))
    assert (over.position.state, over.ended_at) == (
        ReleaseState.ROLLED_BACK,
        NOW + timedelta(hours=2),
    )


def test_releases_are_found(database: Database) -> None:
    first = live(database, 1)
    topics = start(database, 1, model="topics")
    second = start(database, 2)
    with database.read() as connection:
        assert releases.open_of(connection, MODEL) == second
        assert releases.open_of(connection, "unknown") is None
        assert releases.open_releases(connection) == [second, topics]
        assert releases.history(connection, None) == [second, topics, first]
        assert releases.history(connection, MODEL) == [second, first]
        assert releases.history(connection, MODEL, limit=1) == [second]
        assert releases.history(connection, None, before_id=second.id) == [topics, first]
        with pytest.raises(UnknownRelease, match="there is no release 99"):
            releases.get(connection, 99)
