"""Policies of models, for people."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ops.access.permissions import Permission
from ops.access.transactions import Access, Actor, Attempt
from ops.analysis import power
from ops.catalogue.versions import VersionId
from ops.errors import Invalid
from ops.policy import store as policy_store
from ops.policy.file import check, examine, load
from ops.policy.policy import Policy
from ops.policy.store import KeptPolicy
from ops.problems import Problem, ProblemSeverity
from ops.releases.eligibility import facts_of
from ops.releases.explanation import Explanation, explain


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """What became of a policy.

    Attributes:
        changed: False where the same is in force already, however it is written.
        warnings: What it can be used in spite of.
    """

    model: str
    digest: str
    changed: bool
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class CheckedPolicy:
    """What is to be said of a policy before it is in force.

    Attributes:
        problems: Every mistake.
        finds: How surely its steps find a worse version, in a sentence; None where it cannot be
            used.
    """

    problems: tuple[Problem, ...]
    finds: str | None


class PolicyVerbs:
    """Policies as one person may use them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def check(self, text: str) -> CheckedPolicy:
        """Every mistake in a text, and what it finds; open to everybody who has a token."""
        policy, problems = examine(text, now=self._access.clock())
        return CheckedPolicy(tuple(problems), power.in_words(policy) if policy else None)

    def put(self, actor: Actor, text: str) -> SetPolicy:
        """Put a policy into force for the model that it names; takes ``admin``.

        Raises:
            Invalid: It has mistakes; lists them. Not retriable.
            NotAllowed: Not retriable.
        """
        now = self._access.clock()
        problems = tuple(check(text, now=now))
        if any(problem.severity == ProblemSeverity.ERROR for problem in problems):
            raise Invalid("the policy cannot be used", problems)
        policy = load(text, now=now)
        attempt = Attempt("policy.set", Permission.ADMIN, policy.model)
        with self._access.change(actor, attempt) as change:
            before = policy_store.in_force(change.connection, policy.model)
            if before is not None and before.digest == policy.digest():
                change.nothing_changed()
                return SetPolicy(policy.model, before.digest, False, problems)
            kept = policy_store.put(
                change.connection, policy, text, author=actor.name, now=change.now
            )
            evidence = {"before": before and before.digest}
            change.describe(policy_digest=kept.digest, evidence=evidence)
            return SetPolicy(policy.model, kept.digest, True, problems)

    def show(self, actor: Actor, model: str) -> KeptPolicy:
        """The policy in force; takes ``read``.

        Raises:
            NotFound, NotAllowed: Not retriable.
        """
        attempt = Attempt("policy.show", Permission.READ, model)
        with self._access.reading(actor, attempt) as connection:
            return policy_store.require(connection, model)

    def explain(self, actor: Actor, version: VersionId) -> Explanation:
        """May this version go out now, and if not, what is missing; takes ``read``.

        The last sentence says how surely the steps would find a worse version. A model without a
        policy is under the one that has every default.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        attempt = Attempt("policy.explain", Permission.READ, *version)
        with self._access.reading(actor, attempt) as connection:
            kept = policy_store.in_force(connection, version.model)
            policy = Policy(model=version.model) if kept is None else kept.policy()
            glass = actor.may(Permission.BREAK_GLASS, version.model)
            facts = facts_of(connection, policy, version, may_break_glass=glass)
        found = explain(policy, facts, self._access.clock())
        return replace(found, sentences=(*found.sentences, power.in_words(policy)))
