"""What the operator knows of releases, read at once and remembered, is what each would be told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.analysis.evidence import StepOutcome
from ops.releases.facts import JUDGED_EVERY_S
from ops.releases.next_event import DueEvent
from ops.releases.state_machine import Event
from ops.sql.database import Database
from ops.sql.tables import approvals
from tests.ops.installation import NOW, install
from tests.ops.releases.under_way import (
    POLICY,
    TO_CANARY,
    TO_LOADING,
    TO_SCHEDULED,
    TO_WAITING,
    Releases,
    Replicas,
)
from tests.ops.telemetry.reports import GOOD, window

EXACT = POLICY + "golden: {min_agreement: 1.0, min_cosine: 0.95}\n"


@pytest.fixture
def there(database: Database, tmp_path: Path) -> Releases:
    return Releases(install(database, tmp_path), tmp_path)


def event_of(found: DueEvent | None) -> Event | None:
    return found.event if found else None


def test_release_waits_for_its_approval_and_not_for_its_window(there: Releases) -> None:
    release, finder = there.start(*TO_WAITING), there.finder()
    assert there.due(release, NOW, finder) is None
    there.decide(release, "approve")
    assert event_of(there.due(release, NOW, finder)) is Event.APPROVED


def test_rejection_is_seen_at_once(there: Releases) -> None:
    release, finder = there.start(*TO_WAITING), there.finder()
    assert there.due(release, NOW, finder) is None
    there.decide(release, "reject")
    assert event_of(there.due(release, NOW, finder)) is Event.REJECTED


def test_scheduled_release_goes_when_its_window_opens(there: Releases) -> None:
    release, finder = there.start(*TO_SCHEDULED), there.finder()
    there.decide(release, "approve")
    opens = NOW.replace(hour=12)
    for now in (NOW, NOW + timedelta(hours=1), opens - timedelta(seconds=1)):
        assert there.due(release, now, finder) is None
    assert event_of(there.due(release, opens, finder)) is Event.MAY_GO


def test_changed_policy_counts_while_a_release_waits_for_the_old_window(there: Releases) -> None:
    release, finder = there.start(*TO_SCHEDULED), there.finder()
    there.decide(release, "approve")
    assert there.due(release, NOW, finder) is None
    root = there.there.service.access.authenticate(there.there.secrets["root"])
    kept = there.there.service.policies.put(root, "model: sentiment\n")
    found = there.due(release, NOW, finder)
    assert event_of(found) is Event.POLICY_CHANGED  # it goes its way by the new one
    assert found is not None
    assert "policy was changed" in found.reason
    release = there.move(release, Event.POLICY_CHANGED, Event.GATES_PASSED)
    assert event_of(there.due(release, NOW, finder)) is Event.APPROVED
    release = there.move(release, Event.APPROVED)
    assert release.policy_digest == kept.digest
    assert event_of(there.due(release, NOW, finder)) is Event.MAY_GO


STRICT = POLICY + "gates: [{metric: accuracy, direction: higher, at_least: 0.99}]\n"


@pytest.mark.parametrize("break_glass", [False, True])
@pytest.mark.parametrize(
    "events",
    [(), TO_WAITING[:1], TO_WAITING, TO_SCHEDULED, (*TO_SCHEDULED, Event.PAUSE, Event.RESUME)],
    ids=len,
)
def test_gate_that_is_set_while_a_release_waits_is_judged(
    there: Releases, events: tuple[Event, ...], break_glass: bool
) -> None:
    release, finder = there.start(*events, break_glass=break_glass), there.finder()
    there.decide(release, "approve")
    root = there.there.service.access.authenticate(there.there.secrets["root"])
    there.there.service.policies.put(root, STRICT)
    assert event_of(there.due(release, NOW, finder)) is Event.POLICY_CHANGED
    release = there.move(release, Event.POLICY_CHANGED)
    found = there.due(release, NOW, finder)
    assert event_of(found) is Event.GATES_FAILED
    assert found is not None
    assert "Gate metric accuracy" in found.reason


def test_rejection_is_not_passed_by_breaking_the_glass(there: Releases) -> None:
    release = there.start(*TO_WAITING[:1], break_glass=True)
    assert event_of(there.due(release, NOW)) is Event.APPROVED
    there.decide(release, "reject")
    assert event_of(there.due(release, NOW)) is Event.REJECTED


def test_approval_that_is_void_is_seen_while_it_waits_for_the_window(there: Releases) -> None:
    release, finder = there.start(*TO_SCHEDULED), there.finder()
    there.decide(release, "approve")
    assert there.due(release, NOW, finder) is None
    with there.database.begin() as connection:
        values = {"voided_at": NOW, "voided_why": "why"}
        connection.execute(approvals.update().values(values))
    found = there.due(release, NOW, finder)
    assert event_of(found) is Event.APPROVAL_VOIDED
    assert found is not None
    assert "1 approval from team risk" in found.reason


def test_step_is_judged_by_what_came_and_when_its_time_is_over(there: Releases) -> None:
    release, finder = there.start(*TO_CANARY), there.finder()
    began_ms = int(NOW.timestamp() * 1000)

    def seen(seconds: float) -> Any:
        found = finder.of(release, NOW + timedelta(seconds=seconds)).verdict
        assert found is not None
        return found

    finder.refresh([release])
    assert seen(1).outcome is StepOutcome.WAITING
    there.told.add([window("2", start=began_ms, answers=[GOOD] * 7)])
    told = " ".join(finding.sentence for finding in seen(2).findings)
    assert "7" in told
    same = seen(2 + JUDGED_EVERY_S / 2)
    assert same is seen(3)  # nothing new was told
    assert seen(601).outcome is StepOutcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("embedding", "fault"),
    [
        ([0.6, 0.8], None),
        ([0.7, 0.7], None),
        ([0.8, 0.6], None),
        ([0.8, -0.6], "2 numbers at a cosine of 0.0000"),
        ([0.6, 0.8, 0.0], "3 numbers at a cosine of 0.0000 where 2 numbers were expected"),
    ],
)
def test_loaded_version_must_answer_the_golden_texts_of_the_live_one(
    there: Releases, embedding: list[float], fault: str | None
) -> None:
    root = there.there.service.access.authenticate(there.there.secrets["root"])
    there.there.service.policies.put(root, EXACT)
    release = there.start(*TO_LOADING)
    load = there.finder(Replicas(embedding)).of(release, NOW).load
    assert load is not None
    assert (load.fault is None) == (fault is None)
    assert (fault or "") in (load.fault or "")


def test_golden_texts_are_asked_once_and_forgotten_with_their_release(there: Releases) -> None:
    release, replicas = there.start(*TO_LOADING), Replicas([0.6, 0.8])
    finder = there.finder(replicas)
    for _ in range(3):
        finder.refresh([release])
        finder.of(release, NOW)
    assert replicas.asked == 1
    finder.refresh([])
    finder.of(release, NOW)
    assert replicas.asked == 2
