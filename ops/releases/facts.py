"""Gathers the facts about a release: gates, approvals, windows, replicas, evidence, consumers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ops.analysis.evidence import ReleaseStep, StepOutcome
from ops.analysis.gates import GateResult, GoldenCase, golden_case, judge_card, judge_golden
from ops.analysis.gathering import Gathered, Pair, disagreements
from ops.analysis.limits import limits_of
from ops.analysis.verdict import judge
from ops.catalogue.deployments import as_served
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId, find, number_of
from ops.policy.policy import Policy
from ops.releases.eligibility import Standing, facts_of, standings_of
from ops.releases.explanation import Explanation, Obstacle, explain
from ops.releases.next_event import Condition, ReleaseFacts
from ops.releases.releases import Release, policy_in_force
from ops.releases.state_machine import STEPS, ReleaseState
from ops.serving.readiness import Readiness
from ops.telemetry.observations import CONSUMER_SILENCE, NOTHING, ReadPosition
from ops.view import PlatformView
from serve.artifact import MAX_GOLDEN_TEXTS, Artifact
from serve.contract import app_name
from serve.golden import golden_options
from serve.registry import task_type
from serve.settings import ModelSettings
from stream.times import to_ms

LOAD_DEADLINE_S = 180.0
# A step without new observations is judged again after this long: it may have timed out.
JUDGED_EVERY_S = 5.0
NO_FACTS = ReleaseFacts()
WAITING = frozenset({ReleaseState.AWAITING_APPROVAL, ReleaseState.SCHEDULED})


@dataclass
class _Judged:
    """A step that is being judged, with the latest facts about it."""

    gathered: Gathered
    seen: ReadPosition = NOTHING
    facts: ReleaseFacts = NO_FACTS
    age_s: float = 0.0


@dataclass
class _Remembered:
    """Cache for open releases only; all of it can be derived again.

    Attributes:
        standings: State of each release's approvals, at this round.
        not_before: Time until which windows and cadence block a release, by its policy digest.
        judged: Steps being judged, by release and the time at which the step began.
        golden: Result of each release's golden gate.
    """

    standings: dict[int, Standing] = field(default_factory=dict)
    not_before: dict[tuple[int, str], datetime] = field(default_factory=dict)
    judged: dict[tuple[int, datetime], _Judged] = field(default_factory=dict)
    golden: dict[int, GateResult] = field(default_factory=dict)


class FactFinder:
    """Finds only the facts that a release needs in its current state."""

    def __init__(
        self,
        view: PlatformView,
        store: ArtifactStore,
        *,
        cache_dir: Path,
        load_deadline_s: float = LOAD_DEADLINE_S,
    ) -> None:
        """Store the sources of facts.

        Args:
            cache_dir: Directory on this machine for versions from a remote store.
            load_deadline_s: Seconds after which a version that is not ready has failed.
        """
        self._database, self._observations, self._apps = view
        self._store = store
        self._cache_dir = cache_dir
        self._load_deadline_s = load_deadline_s
        self._remembered = _Remembered()

    def refresh(self, found: Sequence[Release]) -> None:
        """Read at once what many open releases need, and drop cached facts of all others."""
        known = self._remembered
        with self._database.read() as connection:
            waiting = [release for release in found if release.position.state in WAITING]
            known.standings = standings_of(connection, waiting)
        ids = {release.id for release in found}
        known.golden = {id_: result for id_, result in known.golden.items() if id_ in ids}
        known.not_before = {key: at for key, at in known.not_before.items() if key[0] in ids}
        steps = {(release.id, release.entered_at) for release in found}
        known.judged = {key: judged for key, judged in known.judged.items() if key in steps}

    def of(self, release: Release, now: datetime) -> ReleaseFacts:
        """Return the facts that the release's state requires.

        Raises:
            OpsError, ServeError, StreamError: A source of facts did not answer.
        """
        match release.position.state:
            case ReleaseState.DRAFT:
                return self._policy_changed(release) or ReleaseFacts(gates=self._gates(release))
            case ReleaseState.GATED | ReleaseState.AWAITING_APPROVAL | ReleaseState.SCHEDULED:
                return self._permission(release, now)
            case ReleaseState.LOADING:
                return ReleaseFacts(load=self._load(release, now))
            case ReleaseState.ROLLING_BACK:
                return ReleaseFacts(restored=self._restored(release, now))
            case state if state in STEPS or state is ReleaseState.PAUSED:
                return self._verdict(release, now)
            case _:
                return ReleaseFacts()

    def serving(
        self, template: ModelSettings, label: str, changes: Mapping[str, Any]
    ) -> ModelSettings:
        """Return a version's serving settings, with its files verified and on this machine.

        Raises:
            UnknownVersion, ArtifactStoreError, ArtifactError: Its files are unavailable.
        """
        number = number_of(label)
        path = template.path if number is None else self.directory(template.name, number)
        return as_served(template, label, changes, path)

    def directory(self, model: str, number: int) -> Path:
        """Return the directory of a version's files on this machine."""
        return self._artifact(model, number).path

    def _artifact(self, model: str, number: int) -> Artifact:
        with self._database.read() as connection:
            kept = find(connection, VersionId(model, number))
        return self._store.fetch(kept.uri, kept.digest, self._cache_dir)

    # --- before anything serves it --------------------------------------------------------

    def _gates(self, release: Release) -> Condition:
        if release.is_rollback:
            return Condition(True, ("it was live before",))
        with self._database.read() as connection:
            candidate = find(connection, VersionId(release.model, release.version)).card
            live = None
            if release.previous is not None:
                live = find(connection, VersionId(release.model, release.previous)).card
        # The golden texts are judged once its replicas run.
        return _answer_of(judge_card(release.policy, candidate, live))

    def _permission(self, release: Release, now: datetime) -> ReleaseFacts:
        """Check approvals, windows and cadence by the policy in force now, not at the start."""
        unchanged = None if release.breaks_glass else self._still_waits(release, now)
        if unchanged is not None:
            return unchanged
        found = self.explain(release, now)
        kinds = {missing.obstacle for missing in found.missing}
        sentences = {missing.obstacle: missing.sentence for missing in found.missing}
        rejected = Obstacle.REJECTION in kinds
        missing = tuple(m.sentence for m in found.missing if m.obstacle is Obstacle.APPROVAL)
        waits = [sentences[k] for k in (Obstacle.CADENCE, Obstacle.WINDOW) if k in sentences]
        no = Condition(rejected, (sentences.get(Obstacle.REJECTION, ""),))
        if changed := self._policy_changed(release):
            return changed._replace(rejected=no)
        if release.breaks_glass:
            broken = Condition(True, (f"{release.author} broke the glass: {release.note}",))
            return ReleaseFacts(approved=broken, rejected=no, may_go=broken)
        return ReleaseFacts(
            approved=Condition(not missing and not rejected, missing or ("all have approved.",)),
            rejected=no,
            may_go=Condition(not waits, tuple(waits) or ("window and cadence allow it.",)),
        )

    def _policy_changed(self, release: Release) -> ReleaseFacts | None:
        """Return None if its gates were judged by the policy in force."""
        with self._database.read() as connection:
            digest = policy_in_force(connection, release.model)[1]
        if digest == release.policy_digest:
            return None
        reason = "the policy was changed; its gates are judged and approvals requested again."
        return ReleaseFacts(policy_changed=Condition(True, (reason,)))

    def _still_waits(self, release: Release, now: datetime) -> ReleaseFacts | None:
        """Return the facts from the cache; None if something may have changed."""
        standing = self._remembered.standings.get(release.id)
        if standing is None or standing.approvals_count.rejected_by:
            return None
        if standing.policy.digest() != release.policy_digest:
            return None
        if release.position.state is ReleaseState.AWAITING_APPROVAL:
            lacking = ReleaseFacts(approved=Condition(False, ("approvals are missing",)))
            return lacking if standing.approvals_count.missing else None
        until = self._remembered.not_before.get((release.id, standing.policy.digest()))
        if standing.approvals_count.missing or until is None or now >= until:
            return None
        return ReleaseFacts(may_go=Condition(False, (f"not before {until:%Y-%m-%d %H:%M} UTC",)))

    def explain(self, release: Release, now: datetime) -> Explanation:
        """Explain what blocks a release under the policy in force now."""
        with self._database.read() as connection:
            text, _ = policy_in_force(connection, release.model)
            policy = Policy.model_validate_json(text)
            version = VersionId(release.model, release.version)
            known = facts_of(connection, policy, version, may_break_glass=False)
        if release.version == release.previous:  # the same version with other settings
            known = known._replace(live=None)
        found = explain(policy, known, now)
        until = [missing.until for missing in found.missing if missing.until is not None]
        if until:
            self._remembered.not_before[release.id, policy.digest()] = max(until)
        return found

    # --- loading --------------------------------------------------------------------------

    def _load(self, release: Release, now: datetime) -> Readiness:
        age_s = (now - release.entered_at).total_seconds()
        name = app_name(release.model, release.label)
        load = self._apps.load(name, age_s=age_s, deadline_s=self._load_deadline_s)
        if not load.ready or release.is_rollback:
            return load
        golden = self._golden_gate(release)
        return load if golden.passed else load._replace(fault=f"golden texts: {golden.sentence}")

    def _golden_gate(self, release: Release) -> GateResult:
        """Judge the loaded version's answers to the golden texts, once per release."""
        known = self._remembered.golden
        if release.id not in known:
            known[release.id] = judge_golden(release.policy.golden, self._golden_cases(release))
        return known[release.id]

    def _golden_cases(self, release: Release) -> list[GoldenCase]:
        """Answer the live version's golden texts, else its own: production must not regress."""
        number = release.version if release.previous is None else release.previous
        artifact = self._artifact(release.model, number)
        records = artifact.golden()[:MAX_GOLDEN_TEXTS]
        if not records:
            return []
        values = [record.value for record in records]
        answers = self._apps.ask(
            release.model, release.label, values, golden_options(artifact.card)
        )
        agreement = task_type(artifact.card.task).agreement
        return [
            golden_case(
                record,
                answer and answer.result,
                release.policy.golden,
                agreement=agreement,
                has_live=release.previous is not None,
            )
            for record, answer in zip(records, answers, strict=True)
        ]

    # --- steps ----------------------------------------------------------------------------

    def _verdict(self, release: Release, now: datetime) -> ReleaseFacts:
        """Return the verdict on the step that a release is in, or was paused in."""
        position = release.position
        state = position.resume if position.state is ReleaseState.PAUSED else position.state
        if state not in STEPS or release.previous_label is None:
            return ReleaseFacts()
        step = ReleaseStep(str(state))
        pair = Pair(release.label, release.previous_label)
        judged = self._judged(release, step, pair)
        age_s = (now - release.entered_at).total_seconds()
        windows, comparisons, seen = self._observations.news(release.model, judged.seen)
        if seen == judged.seen and judged.facts.verdict and age_s - judged.age_s < JUDGED_EVERY_S:
            return judged.facts
        judged.gathered.add(windows, comparisons)
        judged.seen, judged.age_s = seen, age_s
        limits = limits_of(release.policy, step, position.step)
        verdict = judge(judged.gathered.evidence(age_s=age_s), limits)
        report = {} if verdict.outcome is StepOutcome.WAITING else self._report(release, pair)
        judged.facts = ReleaseFacts(verdict=verdict, report=report)
        return judged.facts

    def _judged(self, release: Release, step: ReleaseStep, pair: Pair) -> _Judged:
        key = (release.id, release.entered_at)
        if key not in self._remembered.judged:
            gathered = Gathered(step, pair, since_ms=to_ms(release.entered_at))
            self._remembered.judged[key] = _Judged(gathered)
        return self._remembered.judged[key]

    def _report(self, release: Release, pair: Pair) -> dict[str, Any]:
        since_ms = to_ms(release.entered_at)
        compared = self._observations.comparisons(release.model, since_ms=since_ms)
        return disagreements(compared, pair)

    def _restored(self, release: Release, now: datetime) -> Condition:
        """Check whether every active consumer follows the restored route and no longer waits
        for answers of the removed version."""
        if not self._observations.is_current:
            return Condition(False, ("heartbeats of the consumers are still being read",))
        since_ms = to_ms(now - CONSUMER_SILENCE)
        entered_ms = to_ms(release.entered_at)
        active = [
            c for c in self._observations.consumers(since_ms=since_ms) if c.model == release.model
        ]
        late = [
            f"{c.pipeline}/{c.consumer}"
            for c in active
            if c.at_ms < entered_ms or release.label in c.versions
        ]
        if late:
            return Condition(False, (f"not yet followed by {', '.join(late)}",))
        return Condition(True, (f"all {len(active)} active consumers follow the restored route",))


def _answer_of(results: Sequence[GateResult]) -> Condition:
    failed = [result for result in results if not result.passed]
    reasons = tuple(f"Gate {r.name}: {r.sentence}" for r in failed or results)
    return Condition(not failed, reasons, {r.name: dict(r.evidence) for r in results})
