"""The machines of the cluster, asked for now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ops.errors import NotRunning
from ops.serving.cluster import Node

MACHINES_EVERY_S = 30.0


class Machines:
    """The nodes of the cluster, asked for in a thread."""

    def __init__(self, ask: Callable[[], list[Node]], *, grows: bool) -> None:
        """Nothing is known yet.

        Args:
            grows: Others see to it that it has room.
        """
        self._ask = ask
        self._grows = grows
        self._nodes: dict[str, Node] = {}

    def run(self, stopping: threading.Event) -> None:
        """Ask until told to stop."""
        while not stopping.is_set():
            self.refresh()
            stopping.wait(MACHINES_EVERY_S)

    def refresh(self) -> None:
        """Ask once; without an answer the last one holds."""
        try:
            self._nodes = {node.id: node for node in self._ask()}
        except NotRunning:
            return

    def total(self) -> Mapping[str, float] | None:
        """What they have, by Ray's names; None where the cluster grows, or nobody knows."""
        if self._grows or not self._nodes:
            return None
        nodes = self._nodes.values()
        return {name: sum(n.resources.get(name, 0.0) for n in nodes) for name in ("CPU", "GPU")}

    def kind(self, node: str) -> str | None:
        """The group of a node, as a price table names it."""
        known = self._nodes.get(node)
        return known.kind if known else None
