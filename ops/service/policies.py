"""Actions of the control API: check, set, show and explain policies."""

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
    """Result of setting a policy.

    Attributes:
        changed: False if an equal policy was in effect already, however it is written.
        warnings: Problems that do not prevent its use.
    """

    model: str
    digest: str
    changed: bool
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class CheckedPolicy:
    """Result of checking a policy before it takes effect.

    Attributes:
        problems: List of all mistakes.
        finds: Sentence on how likely its steps find a worse version; None if it cannot be
            used.
    """

    problems: tuple[Problem, ...]
    finds: str | None


class PolicyActions:
    """Policies as one person may use them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def check(self, text: str) -> CheckedPolicy:
        """Check a text for mistakes and for what it detects; open to everyone with a token."""
        policy, problems = examine(text, now=self._access.clock())
        return CheckedPolicy(tuple(problems), power.in_words(policy) if policy else None)

    def put(self, actor: Actor, text: str) -> SetPolicy:
        """Set the policy of the model that it names; requires ``admin``.

        Raises:
            Invalid: The text has mistakes; lists them. Not retriable.
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
        """Return the policy in effect; requires ``read``.

        Raises:
            NotFound, NotAllowed: Not retriable.
        """
        attempt = Attempt("policy.show", Permission.READ, model)
        with self._access.reading(actor, attempt) as connection:
            return policy_store.require(connection, model)

    def explain(self, actor: Actor, version: VersionId) -> Explanation:
        """Return whether a version may be released now and what is missing; requires ``read``.

        The last sentence is on how likely the steps would find a worse version. A model without
        a policy has the policy with every default.

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
