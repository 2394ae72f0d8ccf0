"""Facts of a version that is to go out, as the tables have them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from ops.access import grants, people
from ops.access.permissions import Permission
from ops.catalogue.versions import VersionId
from ops.errors import UnknownVersion
from ops.policy.policy import ApprovalRule, Policy
from ops.releases import releases
from ops.releases.approvals import Subject, Vote, count_approvals
from ops.releases.eligibility import approvers, facts_of, standings_of
from ops.releases.explanation import ExplainedRelease, OpenRelease
from ops.releases.releases import Start
from ops.sql.database import Database
from ops.sql.tables import approvals
from tests.ops.directories import make_directory
from tests.ops.installation import NOW, Installation, install, keep
from tests.ops.releases.under_way import decision_of_bob

POLICY = Policy(model="risk-cards", approvals=(ApprovalRule(team="risk"),))
FIRST, SECOND = VersionId("risk-cards", 1), VersionId("risk-cards", 2)


@pytest.fixture
def there(database: Database, tmp_path: Path) -> Installation:
    """Two versions of risk-cards, registered by root."""
    made = install(database, tmp_path)
    root = made.service.access.authenticate(made.secrets["root"])
    for weights in (b"1", b"2"):
        directory = make_directory(tmp_path / weights.decode(), weights=weights)
        keep(made.service, root, "risk-cards", directory)
    return made


def facts(there: Installation, version: VersionId) -> ExplainedRelease:
    with there.database.read() as connection:
        return facts_of(connection, POLICY, version, may_break_glass=False)


def start(there: Installation, version: VersionId) -> releases.Release:
    with there.database.begin() as connection:
        wanted = Start(model=version.model, version=version.number, actor="root")
        return releases.start(connection, wanted, NOW)


def test_of_a_model_that_never_served(there: Installation) -> None:
    found = facts(there, FIRST)
    assert (found.version, found.author, found.live, found.last_live_at) == (
        "1",
        "root",
        None,
        None,
    )
    assert (found.open_release, list(found.approvals)) == (None, [])
    assert found.members == {"risk": {"bob"}}
    with pytest.raises(UnknownVersion):
        facts(there, VersionId("risk-cards", 3))


def test_open_release_is_in_the_way_of_others_alone(there: Installation) -> None:
    start(there, FIRST)
    assert facts(there, FIRST).open_release is None
    assert facts(there, SECOND).open_release == OpenRelease("1", "draft")


def test_approvals_of_the_version_with_the_teams(there: Installation) -> None:
    release = start(there, FIRST)
    values = {
        "release_id": release.id,
        "person": "bob",
        "team": "risk",
        "decision": Vote.APPROVE,
        "version_digest": release.version_digest,
        "policy_digest": POLICY.digest(),
        "at": NOW,
    }
    void = {"voided_at": NOW + timedelta(minutes=1), "voided_why": "the policy changed"}
    with there.database.begin() as connection:
        connection.execute(insert(approvals).values(values))
        connection.execute(insert(approvals).values(values | {"person": "eve"} | void))
        assert len(connection.execute(select(approvals)).all()) == 2
    (approval,) = facts(there, FIRST).approvals
    assert (approval.person, approval.teams) == ("bob", {"risk"})
    assert list(facts(there, SECOND).approvals) == []


def test_decision_of_somebody_who_is_disabled_does_not_count(there: Installation) -> None:
    release = start(there, FIRST)
    values = {
        "release_id": release.id,
        "person": "bob",
        "team": "risk",
        "decision": Vote.REJECT,
        "version_digest": release.version_digest,
        "policy_digest": POLICY.digest(),
        "at": NOW,
    }
    with there.database.begin() as connection:
        connection.execute(insert(approvals).values(values))
        assert len(facts_of(connection, POLICY, FIRST, may_break_glass=False).approvals) == 1
        assert standings_of(connection, [release])[release.id].approvals_count.void
        people.disable(connection, "bob", now=NOW)
        assert list(facts_of(connection, POLICY, FIRST, may_break_glass=False).approvals) == []
        assert not standings_of(connection, [release])[release.id].approvals_count.void


@pytest.mark.parametrize("decision", Vote)
def test_decision_counts_while_its_person_may_approve(there: Installation, decision: Vote) -> None:
    root = there.service.access.authenticate(there.secrets["root"])
    there.service.policies.put(root, "model: risk-cards\napprovals: [{team: risk, count: 1}]\n")
    release = start(there, FIRST)
    values = decision_of_bob(release, decision)

    def counts() -> list[bool]:
        with there.database.read() as connection:
            (approval,) = facts_of(connection, POLICY, FIRST, may_break_glass=False).approvals
            counted = standings_of(connection, [release])[release.id].approvals_count
        return [approval.may_approve, not counted.void]

    with there.database.begin() as connection:
        connection.execute(insert(approvals).values(values))
        (row,) = grants.page(connection, holder="risk")
    assert counts() == [True, True]
    with there.database.begin() as connection:
        grants.take(connection, row)
        grants.give(connection, "risk", Permission.APPROVE, "other-*", by="root", now=NOW)
        grants.give(connection, "risk", Permission.RELEASE, "*", by="root", now=NOW)
    assert counts() == [False, False]
    with there.database.begin() as connection:
        grants.give(connection, "bob", Permission.ADMIN, "*", by="root", now=NOW)
    assert counts() == [True, True]


def test_team_that_somebody_has_left_is_not_theirs(there: Installation) -> None:
    release = start(there, FIRST)
    values = {
        "release_id": release.id,
        "person": "bob",
        "team": "risk",
        "decision": Vote.APPROVE,
        "version_digest": release.version_digest,
        "policy_digest": POLICY.digest(),
        "at": NOW,
    }
    with there.database.begin() as connection:
        connection.execute(insert(approvals).values(values))
        people.leave(connection, "bob", "risk")
    (approval,) = facts(there, FIRST).approvals
    assert approval.teams == frozenset()


def test_version_whose_files_were_deleted_cannot_go_out(there: Installation) -> None:
    root = there.service.access.authenticate(there.secrets["root"])
    there.service.models.delete(root, FIRST, reason="old")
    with pytest.raises(UnknownVersion, match="were deleted"):
        facts(there, FIRST)


def test_who_may_approve(there: Installation) -> None:
    with there.database.begin() as connection:
        people.join(connection, "eve", "risk")
        assert approvers(connection, POLICY) == {"risk": {"bob", "eve"}}
        (row,) = grants.page(connection, holder="risk")
        grants.give(connection, "eve", Permission.APPROVE, "*", by="root", now=NOW)
        grants.take(connection, row)
        assert approvers(connection, POLICY) == {"risk": {"eve"}}
        people.disable(connection, "eve", now=NOW)
        assert approvers(connection, POLICY) == {"risk": frozenset()}


def test_standing_of_many_is_the_tally_of_each(there: Installation, tmp_path: Path) -> None:
    root = there.service.access.authenticate(there.secrets["root"])
    keep(there.service, root, "open", make_directory(tmp_path / "3", weights=b"3"))
    there.service.policies.put(root, "model: risk-cards\napprovals: [{team: risk, count: 1}]\n")
    waiting = [start(there, FIRST), start(there, VersionId("open", 1))]

    def missing() -> list[dict[str, int]]:
        with there.database.read() as connection:
            found = standings_of(connection, waiting)
            for release in waiting:
                policy = found[release.id].policy
                version = VersionId(release.model, release.version)
                known = facts_of(connection, policy, version, may_break_glass=False)
                subject = Subject(known.author, known.version_digest, policy.digest())
                assert found[release.id].approvals_count == count_approvals(
                    policy.approvals, known.approvals, subject
                )
        return [dict(found[release.id].approvals_count.missing) for release in waiting]

    assert missing() == [{"risk": 1}, {}]
    values = {
        "release_id": waiting[0].id,
        "person": "bob",
        "team": "risk",
        "decision": Vote.APPROVE,
        "version_digest": waiting[0].version_digest,
        "policy_digest": POLICY.digest(),
        "at": NOW,
    }
    with there.database.begin() as connection:
        connection.execute(insert(approvals).values(values))
        assert standings_of(connection, []) == {}
    assert missing() == [{}, {}]
