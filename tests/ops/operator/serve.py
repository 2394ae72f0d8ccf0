"""Serve without a cluster."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from ops.errors import NotRunning
from tests.ops.upkeep import Apps


class Serve(Apps):
    """Answers the operator, unless it is away; remembers what was wanted."""

    away = False
    wanted: Mapping[str, Any] = {}
    others: Container[str] = ()

    def refresh(self) -> None:
        if self.away:
            raise NotRunning("away")

    def reconcile(self, wanted: Mapping[str, Any], known: set[str], others: Container[str]) -> None:
        self.wanted, self.others = wanted, others
