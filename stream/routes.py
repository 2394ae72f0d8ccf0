"""One model's part of the routing table: the version and digest that answer a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from serve.routing import route
from stream.control import RoutingTable
from stream.errors import ModelUnavailable
from stream.records import Record
from stream.schema import ControlRecord


class ShadowRoute(NamedTuple):
    """A candidate, and the fraction of the micro-batches that it gets."""

    version: str
    share: float


class Routes:
    """Reads the current routing table; may be used from any thread."""

    def __init__(self, model: str, table: Callable[[], RoutingTable]) -> None:
        self._model = model
        self._table = table
        self._weights: tuple[tuple[str, float], ...] = ()
        self._weights_of: ControlRecord | None = None
        self._seen: ControlRecord | None = None

    def choose(self, record: Record) -> str:
        """Return the version that answers a record.

        A route may be deleted between two polls; records read after that use the old weights.
        """
        found = self._table().get(self._model)
        if found is not None and found is not self._weights_of:
            self._weights = tuple((v, routed.weight) for v, routed in found.versions.items())
            self._weights_of = found
        place = b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)
        return route(record.key, place, self._weights)

    def has_changed(self) -> bool:
        """Return whether the route has changed since the last call."""
        before, self._seen = self._seen, self._table().get(self._model)
        return before is not self._seen and self._seen is not None

    def has(self, version: str) -> bool:
        """Return whether a version may have records."""
        found = self._table().get(self._model)
        if found is None:
            return True  # records in flight stay with their version
        routed = found.versions.get(version)
        return version == found.fallback or (routed is not None and routed.weight > 0)

    def fallback_of(self, version: str) -> str | None:
        """Return the version that answers what this one does not; None if it has no fallback."""
        found = self._table().get(self._model)
        return found.fallback if found and found.fallback != version else None

    def shadow_of(self, version: str) -> ShadowRoute | None:
        """Return the candidate that must answer a version's records too; None if there is none."""
        found = self._table().get(self._model)
        if found is None or found.shadow is None or version == found.shadow:
            return None
        return ShadowRoute(found.shadow, found.shadow_share)

    def digest(self, version: str) -> str | None:
        """Return the digest of the model directory that must answer; None if none is named."""
        found = self._table().get(self._model)
        routed = found.versions.get(version) if found else None
        return routed.digest if routed else None

    def epoch(self) -> int | None:
        """Return the epoch of the current route; None if there is none."""
        found = self._table().get(self._model)
        return found.epoch if found else None

    def fault(self) -> ModelUnavailable | None:
        """Return why no version can be chosen for a record; None if one can."""
        if self._model in self._table():
            return None
        return ModelUnavailable(f"the control topic has no route for model {self._model}")
