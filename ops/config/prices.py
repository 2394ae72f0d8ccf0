"""What an hour of a node costs."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from serve.settings import Settings


class NodePrice(Settings):
    """What one hour costs on a type of node.

    Attributes:
        cpu_hour: Of one CPU that is reserved, in the table's currency.
        gpu_hour: Of one GPU that is reserved.
    """

    cpu_hour: float = Field(ge=0, allow_inf_nan=False)
    gpu_hour: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class PriceTable(NodePrice):
    """Prices of the cluster.

    Attributes:
        currency: For people; nothing is converted.
        node_types: Prices of single types of nodes; the others cost what stands above.
    """

    currency: str = "EUR"
    node_types: Mapping[str, NodePrice] = {}

    def of(self, node_type: str | None) -> NodePrice:
        """Prices on a type of node."""
        return self if node_type is None else self.node_types.get(node_type, self)
