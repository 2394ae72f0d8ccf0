"""The machines of the cluster, read periodically."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ops.errors import NotRunning
from ops.serving.cluster import Node

MACHINES_EVERY_S = 30.0


class Machines:
    """The nodes of the cluster, read in a thread."""

    def __init__(self, ask: Callable[[], list[Node]], *, grows: bool) -> None:
        """Prepare; no nodes are known yet.

        Args:
            grows: Whether the cluster adds nodes by itself when it lacks capacity.
        """
        self._ask = ask
        self._grows = grows
        self._nodes: dict[str, Node] = {}

    def run(self, stopping: threading.Event) -> None:
        """Refresh periodically until ``stopping`` is set."""
        while not stopping.is_set():
            self.refresh()
            stopping.wait(MACHINES_EVERY_S)

    def refresh(self) -> None:
        """Read the nodes once; if there is no answer, the last ones are kept."""
        try:
            self._nodes = {node.id: node for node in self._ask()}
        except NotRunning:
            return

    def total(self) -> Mapping[str, float] | None:
        """Return the total resources, by Ray's names; None if unknown or if the cluster grows."""
        if self._grows or not self._nodes:
            return None
        nodes = self._nodes.values()
        return {name: sum(n.resources.get(name, 0.0) for n in nodes) for name in ("CPU", "GPU")}

    def kind(self, node: str) -> str | None:
        """Return the group of a node, as a price table names it."""
        known = self._nodes.get(node)
        return known.kind if known else None
