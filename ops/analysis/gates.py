"""Gates before a version serves: metrics on its card, golden texts, labels. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from ops.policy.policy import GoldenGate, MetricGate, Policy
from serve.agreement import Agreement
from serve.artifact import GoldenRecord, Metric, ModelCard

# Metrics on a card have four decimals; this tolerates differences due to rounding.
ROUNDING = 1e-9
SHOWN_TEXTS = 3
# Answers may be documents, and these sentences are kept in the ledger.
SHOWN_CHARACTERS = 200


class GoldenCase(NamedTuple):
    """A golden text and how the version answered it.

    Attributes:
        expected: Answer in the golden set, as shown to people.
        answer: Answer of the version, as shown to people.
        agrees: Whether both are the same and, for embeddings, close enough.
        live_agrees: Whether the live version's answer agrees; None if there is none.
        exact: Whether the golden set marks it as exact.
        cosine: Cosine of two embeddings, 0 if their dimensions differ; None for other answers.
    """

    text: str
    expected: str
    answer: str
    agrees: bool
    live_agrees: bool | None = None
    exact: bool = False
    cosine: float | None = None


class GateResult(NamedTuple):
    """Result of one gate.

    Attributes:
        name: Name such as ``metric accuracy``, ``golden`` or ``labels``.
        sentence: What was compared, and the outcome.
        evidence: The numbers, for the ledger; JSON.
    """

    name: str
    passed: bool
    sentence: str
    evidence: Mapping[str, Any]


def judge_card(policy: Policy, candidate: ModelCard, live: ModelCard | None) -> list[GateResult]:
    """Judge a version's card by every gate that needs no answers of the version.

    Args:
        live: Card of the version that serves; None if there is none.
    Returns:
        One result for the labels, and one for each gate on a metric.
    """
    metrics = (_metric_result(gate, candidate, live) for gate in policy.gates)
    return [_labels_result(policy, candidate, live), *metrics]


def _metric_result(gate: MetricGate, candidate: ModelCard, live: ModelCard | None) -> GateResult:
    name = f"metric {gate.name}"
    found = _metric_of(candidate, gate.name)
    evidence: dict[str, Any] = gate.model_dump(exclude_none=True)
    if found is None:
        known = ", ".join(metric.name for metric in candidate.metrics) or "no metrics at all"
        sentence = f"The card has no {gate.name}; it has {known}. Evaluate the version on it."
        return GateResult(name, False, sentence, evidence)
    evidence["candidate"] = found.value
    if found.direction != gate.direction:
        sentence = (
            f"The card says that {found.direction} {gate.name} is better, but the policy that "
            f"{gate.direction} is: correct one of them."
        )
        return GateResult(name, False, sentence, evidence)
    before = _metric_of(live, gate.name) if live is not None else None
    if before is not None:
        evidence["live"] = before.value
    parts = [_against_bound(gate, found), _against_live(gate, found, live, before)]
    found_parts = [part for part in parts if part is not None]
    sentence = f"{gate.name} is {found.value:g}: {'; '.join(words for _, words in found_parts)}."
    return GateResult(name, all(passed for passed, _ in found_parts), sentence, evidence)


def _metric_of(card: ModelCard, name: str) -> Metric | None:
    return next((metric for metric in card.metrics if metric.name == name), None)


def _against_bound(gate: MetricGate, found: Metric) -> tuple[bool, str] | None:
    if gate.at_least is not None:
        passed = found.value >= gate.at_least
        return passed, f"{'at least' if passed else 'below'} {gate.at_least:g}"
    if gate.at_most is not None:
        passed = found.value <= gate.at_most
        return passed, f"{'at most' if passed else 'above'} {gate.at_most:g}"
    return None


def _against_live(
    gate: MetricGate, found: Metric, live: ModelCard | None, before: Metric | None
) -> tuple[bool, str] | None:
    if gate.not_worse_by is None:
        return None
    if before is None:
        which = "no live version" if live is None else f"no {gate.name} of the live version"
        return True, f"there is {which} to compare with"
    better = found.value - before.value
    worse = -better if gate.direction == "higher" else better
    passed = worse <= gate.not_worse_by + ROUNDING
    if worse <= 0:
        return passed, f"not worse than the live version's {before.value:g}"
    return passed, (
        f"{worse:.4g} worse than the live version's {before.value:g}; up to "
        f"{gate.not_worse_by:g} is allowed"
    )


def golden_case(
    record: GoldenRecord,
    answer: bytes | None,
    gate: GoldenGate,
    *,
    agreement: Agreement,
    has_live: bool,
) -> GoldenCase:
    """Compare a version's answer with the golden one: all but the scores, or the embedding.

    Args:
        record: Record of the golden set of the version that serves, if there is one.
        answer: The version's result as JSON; None if it had none.
        agreement: Agreement of the version's task.
        has_live: Whether a version serves; the golden answer is then that version's.
    """
    wanted, live_agrees = agreement.answer(record.result), True if has_live else None
    if answer is None:
        return GoldenCase(record.text, wanted, "nothing", False, live_agrees, record.exact)
    found = orjson.loads(answer)
    given, near = agreement.answer(found), agreement.cosine(found, record.result)
    agrees = given == wanted
    if near is not None:
        given += f" at a cosine of {near:.4f}"
        agrees = agrees and near >= gate.min_cosine
    return GoldenCase(record.text, wanted, given, agrees, live_agrees, record.exact, near)


def judge_golden(gate: GoldenGate, cases: Sequence[GoldenCase]) -> GateResult:
    """Judge a version's answers to a golden set; no cases if there is no set."""
    evidence: dict[str, Any] = {**gate.model_dump(exclude_none=True), "texts": len(cases)}
    if not cases:
        wanted = gate.min_agreement is not None or gate.not_worse_by is not None
        sentence = "There is no golden set" + (
            ", but the policy requires agreement with one: import or train the version with "
            "--golden FILE."
            if wanted
            else ", so nothing was compared."
        )
        return GateResult("golden", not wanted, sentence, evidence)
    parts = [
        _agreement(gate, cases, evidence),
        _exactness(gate, cases, evidence),
        *_nearness(gate, cases, evidence),
    ]
    sentence = f"Of {len(cases)} golden texts {'; '.join(words for _, words in parts)}."
    return GateResult("golden", all(passed for passed, _ in parts), sentence, evidence)


def _agreement(
    gate: GoldenGate, cases: Sequence[GoldenCase], evidence: dict[str, Any]
) -> tuple[bool, str]:
    share = sum(case.agrees for case in cases) / len(cases)
    evidence["agreement"] = share
    passed, words = True, f"{share:.1%} are answered as expected"
    if gate.min_agreement is not None:
        passed = share >= gate.min_agreement
        words += f", but {gate.min_agreement:.1%} must be" if not passed else ""
    compared = [case for case in cases if case.live_agrees is not None]
    if gate.not_worse_by is None:
        return passed, words
    if not compared:
        return passed, f"{words}; there is no live version to compare with"
    # Compare on the same texts: the live version may not have answered all.
    own = sum(case.agrees for case in compared) / len(compared)
    live = sum(bool(case.live_agrees) for case in compared) / len(compared)
    evidence["live_agreement"] = live
    words += f"; the live version has {live:.1%}"
    if live - own > gate.not_worse_by + ROUNDING:
        return False, f"{words}, but only {gate.not_worse_by:.1%} less is allowed"
    return passed, words


def _exactness(
    gate: GoldenGate, cases: Sequence[GoldenCase], evidence: dict[str, Any]
) -> tuple[bool, str]:
    exact = [case for case in cases if case.exact]
    wrong = [case for case in exact if not case.agrees]
    evidence["exact"], evidence["exact_wrong"] = len(exact), len(wrong)
    if not gate.exact:
        return True, "exact ones are not required"
    if not wrong:
        return True, f"all {len(exact)} exact ones are right" if exact else "none is marked exact"
    shown = ", ".join(
        f"{_shown(case.text)!r} as {_shown(case.answer)} instead of {_shown(case.expected)}"
        for case in wrong[:SHOWN_TEXTS]
    )
    more = f" and {len(wrong) - SHOWN_TEXTS} more" if len(wrong) > SHOWN_TEXTS else ""
    return False, f"{len(wrong)} of {len(exact)} exact ones are wrong: {shown}{more}"


def _nearness(
    gate: GoldenGate, cases: Sequence[GoldenCase], evidence: dict[str, Any]
) -> list[tuple[bool, str]]:
    """Describe the embedding furthest from its golden one; the other parts judge it."""
    embeddings = [(case.cosine, case) for case in cases if case.cosine is not None]
    if not embeddings:
        return []
    lowest, case = min(embeddings, key=itemgetter(0))
    evidence["lowest_cosine"] = round(lowest, 6)
    words = f"furthest is {_shown(case.text)!r}, {case.answer} where {case.expected} were expected"
    return [(True, f"{words}; {gate.min_cosine:g} or more agrees")]


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _labels_result(policy: Policy, candidate: ModelCard, live: ModelCard | None) -> GateResult:
    evidence: dict[str, Any] = {"task": candidate.task, "labels": list(candidate.labels)}
    if live is None:
        sentence = "There is no live version whose labels consumers could rely on."
        return GateResult("labels", True, sentence, evidence)
    evidence |= {"live_task": live.task, "live_labels": list(live.labels)}
    if candidate.task != live.task:
        sentence = (
            f"The version does {candidate.task} but the live one {live.task}: consumers could not "
            "read its results. Register it under another name."
        )
        return GateResult("labels", False, sentence, evidence)
    added, gone = set(candidate.labels) - set(live.labels), set(live.labels) - set(candidate.labels)
    if not added and not gone:
        return GateResult("labels", True, "The labels equal the live version's.", evidence)
    changes = (("new are", added), ("removed are", gone))
    diff = " and ".join(f"{what} {', '.join(sorted(which))}" for what, which in changes if which)
    if policy.labels == "may-change":
        sentence = f"The labels differ from the live version's: {diff}. The policy allows this."
        return GateResult("labels", True, sentence, evidence)
    sentence = (
        f"The labels differ from the live version's: {diff}. If consumers know the new ones, set "
        "labels: may-change in the policy."
    )
    return GateResult("labels", False, sentence, evidence)
