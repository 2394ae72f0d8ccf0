"""Prices of nodes per hour."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from serve.settings import Settings


class NodePrice(Settings):
    """Prices per hour on one type of node.

    Attributes:
        cpu_hour: Price of one reserved CPU, in the table's currency.
        gpu_hour: Price of one reserved GPU.
    """

    cpu_hour: float = Field(ge=0, allow_inf_nan=False)
    gpu_hour: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class PriceTable(NodePrice):
    """Prices of the cluster.

    Attributes:
        currency: Shown to people; nothing is converted.
        node_types: Prices of particular types of nodes; the prices above apply to all others.
    """

    currency: str = "EUR"
    node_types: Mapping[str, NodePrice] = {}

    def of(self, node_type: str | None) -> NodePrice:
        """Return the prices on a type of node."""
        return self if node_type is None else self.node_types.get(node_type, self)
