"""Policies of models, for people."""

from __future__ import annotations

from typing import NamedTuple

from ops import policy_store
from ops.access import Access, Actor, Attempt
from ops.catalogue import VersionId
from ops.document import Problem, Severity
from ops.errors import Invalid
from ops.explanation import Explanation, explain
from ops.facts import facts_of
from ops.permissions import Permission
from ops.policy import Policy
from ops.policy_file import check, load
from ops.policy_store import KeptPolicy


class SetPolicy(NamedTuple):
    """What became of a policy.

    Attributes:
        changed: False where the same is in force already, however it is written.
        warnings: What it can be used in spite of.
    """

    kept: KeptPolicy
    changed: bool
    warnings: tuple[Problem, ...]


class PolicyVerbs:
    """Policies as one person may use them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def check(self, text: str) -> list[Problem]:
        """Every mistake in a text; open to everybody who has a token."""
        return check(text, now=self._access.clock())

    def put(self, actor: Actor, text: str) -> SetPolicy:
        """Put a policy into force for the model that it names; takes ``admin``.

        Raises:
            Invalid: It has mistakes; lists them. Not retriable.
            NotAllowed: Not retriable.
        """
        now = self._access.clock()
        problems = tuple(check(text, now=now))
        if any(problem.severity == Severity.ERROR for problem in problems):
            raise Invalid("the policy cannot be used", problems)
        policy = load(text, now=now)
        attempt = Attempt("policy.set", Permission.ADMIN, policy.model)
        with self._access.change(actor, attempt) as change:
            before = policy_store.in_force(change.connection, policy.model)
            if before is not None and before.digest == policy.digest():
                change.nothing_changed()
                return SetPolicy(before, False, problems)
            kept = policy_store.put(
                change.connection, policy, text, author=actor.name, now=change.now
            )
            evidence = {"before": before and before.digest}
            change.tell(policy_digest=kept.digest, evidence=evidence)
            return SetPolicy(kept, True, problems)

    def show(self, actor: Actor, model: str) -> KeptPolicy:
        """The policy in force; takes ``read``.

        Raises:
            NotFound, NotAllowed: Not retriable.
        """
        attempt = Attempt("policy.show", Permission.READ, model)
        with self._access.look(actor, attempt) as connection:
            return policy_store.require(connection, model)

    def explain(self, actor: Actor, version: VersionId) -> Explanation:
        """May this version go out now, and if not, what is missing; takes ``read``.

        A model without a policy is under the one that has every default.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        attempt = Attempt("policy.explain", Permission.READ, *version)
        with self._access.look(actor, attempt) as connection:
            kept = policy_store.in_force(connection, version.model)
            policy = Policy(model=version.model) if kept is None else kept.policy()
            glass = actor.may(Permission.BREAK_GLASS, version.model)
            facts = facts_of(connection, policy, version, may_break_glass=glass)
        return explain(policy, facts, self._access.clock())
