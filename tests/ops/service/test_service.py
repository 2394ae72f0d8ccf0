"""The verbs: what each takes, does and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from ops.access import grants, ledger
from ops.access.ledger import EVERY_ROW, LedgerQuery, LedgerRow
from ops.access.permissions import Kind, Permission
from ops.access.transactions import Actor
from ops.catalogue.versions import VersionId
from ops.errors import (
    BadModelName,
    Conflict,
    Invalid,
    NotAllowed,
    NotFound,
    StoreUnavailable,
)
from ops.health import alerts
from ops.health.findings import Finding, Severity
from ops.health.rules import Health
from ops.service.health import HealthActions
from ops.service.people import PeopleActions
from ops.service.policies import CheckedPolicy
from ops.sql.database import Database
from ops.sql.tables import routes
from serve.artifact import load
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import make_directory
from tests.ops.installation import NOW, Installation, install, keep

POLICY = "model: sentiment\napprovals: [{team: risk, count: 1}]\n"


@pytest.fixture
def there(database: Database, tmp_path: Path) -> Installation:
    return install(database, tmp_path)


def actor(there: Installation, name: str) -> Actor:
    return there.service.access.authenticate(there.secrets[name])


def last_row(there: Installation) -> LedgerRow:
    with there.database.read() as connection:
        assert ledger.verify(connection) is None
        return ledger.entries(connection)[0]


def register(there: Installation, who: str = "ana", weights: bytes = b"1") -> Path:
    directory = make_directory(there.folder / f"made-{weights.decode()}", weights=weights)
    keep(there.service, actor(there, who), "sentiment", directory)
    return directory


def test_registering_is_a_row_of_who_did_it(there: Installation) -> None:
    register(there)
    row = last_row(there)
    assert (row.actor, row.action, row.model, row.version) == (
        "ana",
        "version.register",
        "sentiment",
        1,
    )


class Unreadable:
    """An archive that nobody may read."""

    def read(self, size: int, /) -> bytes:
        raise AssertionError(size)


def test_nothing_is_read_for_who_may_not_register(there: Installation) -> None:
    with pytest.raises(NotAllowed):
        there.service.models.register(
            actor(there, "bob"), "sentiment", Unreadable(), size_bytes=1, source=""
        )
    with pytest.raises(NotAllowed):
        there.service.models.known(actor(there, "bob"), "sentiment", "0" * 64, size_bytes=1)
    assert not (there.folder / "store").exists()


@pytest.mark.parametrize("name", ["*", "senti*", "Sentiment", "", "a/b"])
def test_a_pattern_is_no_name_of_a_model(there: Installation, name: str) -> None:
    with pytest.raises(BadModelName):
        there.service.models.register(
            actor(there, "root"), name, Unreadable(), size_bytes=1, source=""
        )


def test_there_must_be_room_before_anything_is_read(there: Installation) -> None:
    ana = actor(there, "ana")
    for ask in (
        lambda: there.service.models.known(ana, "sentiment", "0" * 64, size_bytes=1 << 60),
        lambda: there.service.models.register(
            ana, "sentiment", Unreadable(), size_bytes=1 << 60, source=""
        ),
    ):
        with pytest.raises(StoreUnavailable, match="no space"):
            ask()


def test_bytes_are_known_while_they_are_whole(there: Installation) -> None:
    directory = register(there)
    ana, digest = actor(there, "ana"), load(directory).digest

    def known(name: str = "sentiment") -> int | None:
        return there.service.models.known(actor(there, "root"), name, digest, size_bytes=1)

    assert (known(), known("risk-cards")) == (1, None)
    kept = there.folder / "store" / "sentiment" / digest / "config.json"
    kept.write_text("altered")
    assert known() is None
    assert keep(there.service, ana, "sentiment", directory).existed
    assert (known(), kept.read_bytes()) == (1, (directory / "config.json").read_bytes())
    there.service.models.delete(actor(there, "root"), VersionId("sentiment", 1), reason="")
    assert known() is None
    assert keep(there.service, ana, "sentiment", directory).version == 1
    assert known() == 1


def test_models_that_may_be_read_are_listed(there: Installation) -> None:
    register(there)
    directory = make_directory(there.folder / "risk")
    keep(there.service, actor(there, "root"), "risk-cards", directory)
    models = there.service.models

    def names(who: str, **options: object) -> list[str]:
        return [m.name for m in models.all(actor(there, who), limit=10, **options)]  # type: ignore[arg-type]

    assert names("root") == ["risk-cards", "sentiment"]
    assert names("root", after="risk-cards") == ["sentiment"]
    assert names("ana") == ["sentiment"]
    assert names("bob") == ["risk-cards"]
    assert names("eve") == []
    assert [m.name for m in models.all(actor(there, "root"), limit=1)] == ["risk-cards"]


def test_versions_are_for_who_may_read(there: Installation) -> None:
    register(there)
    models, version, eve = there.service.models, VersionId("sentiment", 1), actor(there, "eve")
    assert models.show(actor(there, "ana"), version).author == "ana"
    for refused in (
        lambda: models.show(eve, version),
        lambda: models.versions(eve, "sentiment", limit=5, deleted=False),
        lambda: models.diff(eve, version, version),
        lambda: models.export(eve, version, there.folder / "out"),
        lambda: models.delete(eve, version, reason=""),
    ):
        with pytest.raises(NotAllowed):
            refused()
    assert not (there.folder / "out").exists()


def test_diff_takes_both(there: Installation) -> None:
    register(there)
    directory = make_directory(there.folder / "risk", metrics={"accuracy": 0.9})
    keep(there.service, actor(there, "root"), "risk-cards", directory)
    ours, theirs = VersionId("sentiment", 1), VersionId("risk-cards", 1)
    diff = there.service.models.diff(actor(there, "root"), ours, theirs)
    assert [change.name for change in diff.metrics] == ["accuracy"]
    for pair in ((ours, theirs), (theirs, ours)):
        with pytest.raises(NotAllowed, match="read on risk-cards"):
            there.service.models.diff(actor(there, "ana"), *pair)


def test_deleting_takes_admin(there: Installation) -> None:
    register(there)
    version = VersionId("sentiment", 1)
    with pytest.raises(NotAllowed, match="admin"):
        there.service.models.delete(actor(there, "ana"), version, reason="")
    there.service.models.delete(actor(there, "root"), version, reason="too old")
    row = last_row(there)
    assert (row.actor, row.action, row.reason) == ("root", "version.delete", "too old")
    assert there.service.models.show(actor(there, "ana"), version).deleted_at == NOW


def test_policy_is_set_once_and_shown(there: Installation) -> None:
    policies = there.service.policies
    first = policies.put(actor(there, "root"), POLICY)
    assert first.changed
    row = last_row(there)
    assert (row.action, row.model, row.policy_digest) == ("policy.set", "sentiment", first.digest)
    again = policies.put(actor(there, "root"), f"# the same\n{POLICY}")
    assert (again.changed, again.digest) == (False, first.digest)
    assert last_row(there) == row
    assert policies.show(actor(there, "ana"), "sentiment").digest == first.digest
    changed = policies.put(actor(there, "root"), POLICY.replace("count: 1", "count: 2"))
    assert last_row(there).evidence == {"before": first.digest}
    assert policies.show(actor(there, "ana"), "sentiment").digest == changed.digest
    with pytest.raises(NotFound, match="has no policy"):
        policies.show(actor(there, "bob"), "risk-cards")


def test_policy_takes_admin_of_the_model_that_it_names(there: Installation) -> None:
    with pytest.raises(NotAllowed, match="admin on sentiment"):
        there.service.policies.put(actor(there, "ana"), POLICY)
    assert last_row(there).denied


def test_policy_with_mistakes_lists_them_all(there: Installation) -> None:
    text = "model: sentiment\ncadenc: {}\nlabels: other\n"
    with pytest.raises(Invalid) as raised:
        there.service.policies.put(actor(there, "root"), text)
    assert [problem.line for problem in raised.value.problems] == [2, 3]
    assert there.service.policies.check(text) == CheckedPolicy(raised.value.problems, None)
    with there.database.read() as connection:
        assert ledger.entries(connection) == []


def test_explanation_names_who_could_approve(there: Installation) -> None:
    register(there)
    root, people = actor(there, "root"), there.service.people
    there.service.policies.put(root, POLICY)
    version = VersionId("sentiment", 1)
    told = there.service.policies.explain(actor(there, "ana"), version)
    assert not told.may_go
    assert "no other member may" in " ".join(told.sentences)  # bob may not approve sentiment
    assert "fails twice as often is found in 99 of 100 releases" in told.sentences[-1]
    people.give(root, "bob", Permission.APPROVE, "sentiment")
    told = there.service.policies.explain(actor(there, "ana"), version)
    assert [missing.from_whom for missing in told.missing] == [("bob",)]


def test_explanation_knows_what_serves(there: Installation) -> None:
    register(there)
    register(there, weights=b"2")
    weights = {"1": VersionRoute(digest=None, weight=1.0)}
    record = ControlRecord(model="sentiment", epoch=1, versions=weights).model_dump(mode="json")
    with there.database.begin() as connection:
        row = {"model": "sentiment", "epoch": 1, "record": record}
        connection.execute(insert(routes).values(row))
    ana = actor(there, "ana")
    assert not there.service.policies.explain(ana, VersionId("sentiment", 1)).may_go
    assert there.service.policies.explain(ana, VersionId("sentiment", 2)).may_go


def grant_id(there: Installation, holder: str) -> int:
    with there.database.read() as connection:
        return grants.page(connection, holder=holder)[0].id


CHANGES: dict[str, Callable[[PeopleActions, Actor, Installation], object]] = {
    "principal.add": lambda people, who, _: people.add(who, "new", Kind.PERSON),
    "principal.disable": lambda people, who, _: people.disable(who, "bob"),
    "membership.add": lambda people, who, _: people.join(who, "eve", "risk"),
    "membership.remove": lambda people, who, _: people.leave(who, "bob", "risk"),
    "grant.add": lambda people, who, _: people.give(who, "eve", Permission.READ, "sentiment"),
    "grant.remove": lambda people, who, there: people.take(who, grant_id(there, "risk")),
    "token.create": lambda people, who, _: people.issue(who, "bob", lifetime=None),
    "token.revoke": lambda people, who, there: people.revoke(who, actor(there, "bob").token_id),
}


@pytest.mark.parametrize("action", CHANGES)
def test_people_are_changed_by_an_admin_alone(there: Installation, action: str) -> None:
    with pytest.raises(NotAllowed):
        CHANGES[action](there.service.people, actor(there, "ana"), there)
    row = last_row(there)
    assert (row.actor, row.action, row.denied) == ("ana", action, True)
    CHANGES[action](there.service.people, actor(there, "root"), there)
    row = last_row(there)
    assert (row.actor, row.action, row.denied) == ("root", action, False)
    assert row.evidence


def test_disabled_and_enabled_again(there: Installation) -> None:
    people, root = there.service.people, actor(there, "root")
    assert people.disable(root, "ana").disabled_at == NOW
    assert people.enable(root, "ana").disabled_at is None
    assert last_row(there).action == "principal.enable"
    assert actor(there, "ana").may(Permission.REGISTER, "sentiment")


def test_admin_of_some_models_gives_rights_on_these_alone(there: Installation) -> None:
    people = there.service.people
    people.give(actor(there, "root"), "ana", Permission.ADMIN, "sent*")
    ana = actor(there, "ana")
    row = people.give(ana, "eve", Permission.RELEASE, "sentiment")
    assert row.granted_by == "ana"
    people.take(ana, row.id)
    for pattern in ("*", "sen*", "risk-cards"):
        with pytest.raises(NotAllowed):
            people.give(ana, "eve", Permission.RELEASE, pattern)
    with pytest.raises(NotAllowed):
        people.take(ana, grant_id(there, "root"))


def test_the_last_admin_stays(there: Installation) -> None:
    people, root = there.service.people, actor(there, "root")
    own = grant_id(there, "root")
    for attempt in (lambda: people.disable(root, "root"), lambda: people.take(root, own)):
        with pytest.raises(Conflict, match="no person would be left"):
            attempt()
    assert actor(there, "root").may(Permission.ADMIN, "*")


def test_ones_own_tokens(there: Installation) -> None:
    people, eve = there.service.people, actor(there, "eve")
    issued = people.issue(eve, "eve", lifetime=None)
    assert issued.secret not in str(last_row(there))
    assert len(people.tokens(eve, holder="eve", limit=10)) == 2
    assert people.revoke(eve, issued.token.id).revoked_at == NOW
    with pytest.raises(NotAllowed):
        people.tokens(eve, holder=None, limit=10)
    assert len(people.tokens(actor(there, "root"), holder=None, limit=10)) == 5


def test_portrait(there: Installation) -> None:
    found = there.service.people.show(actor(there, "ana"), "platform-it")
    assert (found.members, found.groups) == (["mlops"], [])
    found = there.service.people.show(actor(there, "root"), "ana")
    assert (found.members, found.groups) == ([], ["mlops", "platform-it"])
    assert [str(grant) for grant in found.grants] == [
        "department platform-it (register on sentiment)"
    ]


def test_people_see_themselves_and_their_groups_and_admins_see_all(there: Installation) -> None:
    verbs, eve, ana, root = there.service.people, *(actor(there, n) for n in ("eve", "ana", "root"))
    kinds = tuple(Kind)
    assert [p.name for p in verbs.principals(eve, kinds, limit=50)] == ["eve"]
    assert verbs.grants(eve, holder=None, limit=50) == []
    assert [p.name for p in verbs.principals(ana, kinds, limit=50)] == [
        "ana",
        "mlops",
        "platform-it",
    ]
    assert [p.name for p in verbs.principals(ana, kinds, limit=50, after="ana")] == [
        "mlops",
        "platform-it",
    ]
    assert {row.holder for row in verbs.grants(ana, holder=None, limit=50)} == {"platform-it"}
    assert {"ana", "bob", "eve", "root"} <= {
        p.name for p in verbs.principals(root, kinds, limit=50)
    }
    for stranger in ("root", "mlops", "nobody"):
        with pytest.raises(NotAllowed, match="ask"):
            verbs.show(eve, stranger)


def test_health_and_alerts_are_for_who_may_read_the_model(there: Installation) -> None:
    keys = ("kafka/brokers", "app/sentiment@1/replicas", "app/risk-a@1/replicas")
    keys = (*keys, "control/sentiment", "app/pipeline-reviews/replicas", "pipeline/reviews/lag")
    down = tuple(Finding(key, Severity.DOWN, "it is so", NOW) for key in keys)
    verbs = HealthActions(lambda: Health(NOW, down))
    shown = {name: verbs.latest(actor(there, name)) for name in ("root", "ana", "bob", "eve")}
    assert {name: [f.key for f in found.health.findings] for name, found in shown.items()} == {
        "root": list(keys),
        "ana": [keys[1], keys[3]],
        "bob": [keys[2]],
        "eve": [],
    }
    assert [found.hidden for found in shown.values()] == [0, 4, 5, 6]
    assert {found.status for found in shown.values()} == {Severity.DOWN}
    with there.database.begin() as connection:
        for key in keys:
            alerts.raise_alert(connection, down[keys.index(key)], NOW)
        alerts.raise_alert(connection, replace(down[1], key="cost/past/sentiment"), NOW)
    told = {n: {a.key for a in there.service.alerts.page(actor(there, n), limit=2)} for n in shown}
    assert told["eve"] == set()
    assert told["ana"] == {keys[3], "cost/past/sentiment"}
    assert told["bob"] == {keys[2]}


def test_ledger_of_a_model_is_for_who_may_read_it(there: Installation) -> None:
    register(there)
    there.service.people.give(actor(there, "root"), "eve", Permission.READ, "risk-*")
    book = there.service.ledger
    of_model = LedgerQuery(model="sentiment")
    (row,) = book.read(actor(there, "ana"), of_model)
    assert row.action == "version.register"
    assert len(book.read(actor(there, "root"), EVERY_ROW)) == 2
    for refused in (
        lambda: book.read(actor(there, "ana"), EVERY_ROW),
        lambda: book.read(actor(there, "eve"), of_model),
        lambda: book.verify(actor(there, "ana")),
    ):
        with pytest.raises(NotAllowed):
            refused()
    head, broken = book.verify(actor(there, "root"))
    assert (head.last_id, broken) == (5, None)
