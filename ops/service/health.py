"""Actions of the control API: health of the platform."""

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

# Kinds of findings and alerts whose key names a model or a version after this prefix.
OF_MODELS: Final = frozenset({"app", "golden", "control", "cost", "repair"})


def unwatched() -> Health:
    """Refuse, in a process that does not check the health.

    Raises:
        NotReady: Always. Retriable with the operator's API.
    """
    raise NotReady("health is not checked here; ask the API of the operator")


@dataclass(frozen=True)
class ShownHealth:
    """The part of the last health check that one person may read.

    Attributes:
        status: Worst severity of all findings, shown or not.
        hidden: Number of findings that are not shown.
    """

    health: Health
    status: Severity
    hidden: int


class HealthActions:
    """Health as one person may read it: everyone reads the status, findings require ``read``."""

    def __init__(self, latest: Callable[[], Health]) -> None:
        self._latest = latest

    def latest(self, actor: Actor) -> ShownHealth:
        """Return the last check; readings and findings of the platform require ``read`` on all.

        Raises:
            NotReady: Nothing has been checked yet. Retriable.
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
    """Return whether an actor may read a finding or alert: ``read`` on its model, else on all.

    Args:
        models: Model of each known pipeline.
    """
    kind, _, rest = key.partition("/")
    # The key of a cost alert has the kind of problem before the model.
    name = key.rpartition("/")[2] if kind == "cost" else rest.partition("/")[0]
    if kind == "pipeline":
        model = models.get(name, EVERYTHING)
    else:
        model = AppName.parse(name).model if kind in OF_MODELS else EVERYTHING
    return actor.may(Permission.READ, model or EVERYTHING)
