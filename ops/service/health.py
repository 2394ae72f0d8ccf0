"""How the platform stands, for people and programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ops.access.permissions import EVERYTHING, Permission
from ops.access.transactions import Actor
from ops.errors import NotReady
from ops.health.findings import Severity
from ops.health.rules import Health
from serve.contract import AppName

# Findings and alerts whose key names a model, or a version of one, behind this.
OF_MODELS: Final = frozenset({"app", "golden", "control", "cost", "repair"})


def unwatched() -> Health:
    """What is said where nobody looks.

    Raises:
        NotReady: Always. Retriable, at an operator's own API.
    """
    raise NotReady("nobody looks at health here; ask the API of the operator")


@dataclass(frozen=True)
class ShownHealth:
    """What one person may know of the last judgement.

    Attributes:
        status: Of all findings, whether shown or not.
        hidden: How many findings are not shown.
    """

    health: Health
    status: Severity
    hidden: int


class HealthVerbs:
    """Health as one person may read it: the status is for all, a finding for readers."""

    def __init__(self, latest: Callable[[], Health]) -> None:
        self._latest = latest

    def latest(self, actor: Actor) -> ShownHealth:
        """The last judgement; readings and the platform's own findings take ``read`` on all.

        Raises:
            NotReady: There is none yet. Retriable.
        """
        found = self._latest()
        if actor.may(Permission.READ, EVERYTHING):
            return ShownHealth(found, found.status, 0)
        consumers = found.readings.telling.consumers if found.readings else ()
        models = {consumer.pipeline: consumer.model for consumer in consumers}
        shown = tuple(f for f in found.findings if may_read_key(actor, f.key, models))
        health = Health(found.at, shown)
        return ShownHealth(health, found.status, len(found.findings) - len(shown))


def may_read_key(actor: Actor, key: str, models: Mapping[str, str]) -> bool:
    """Whether somebody may read a finding or an alert: ``read`` on its model, else on all models.

    Args:
        models: The model of each pipeline, as far as known.
    """
    kind, _, rest = key.partition("/")
    # An alert of cost says what is wrong before it names the model.
    name = key.rpartition("/")[2] if kind == "cost" else rest.partition("/")[0]
    if kind == "pipeline":
        model = models.get(name, EVERYTHING)
    else:
        model = AppName.parse(name).model if kind in OF_MODELS else EVERYTHING
    return actor.may(Permission.READ, model or EVERYTHING)
