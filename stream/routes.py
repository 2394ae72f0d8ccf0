"""One model's part of the routing table: which version answers a record, and with which bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from serve.routing import route
from stream.control import RoutingTable
from stream.errors import ModelUnavailable
from stream.records import Record
from stream.schema import ControlRecord


class ShadowRoute(NamedTuple):
    """A candidate, and the share of the micro-batches that it gets."""

    version: str
    share: float


class Routes:
    """Follows the routing table as it stands; from any thread."""

    def __init__(self, model: str, table: Callable[[], RoutingTable]) -> None:
        self._model = model
        self._table = table
        self._weights: tuple[tuple[str, float], ...] = ()
        self._weights_of: ControlRecord | None = None
        self._seen: ControlRecord | None = None

    def choose(self, record: Record) -> str:
        """The version that answers a record.

        A route may be taken away between two polls: what is read then goes the old way.
        """
        found = self._table().get(self._model)
        if found is not None and found is not self._weights_of:
            self._weights = tuple((v, routed.weight) for v, routed in found.versions.items())
            self._weights_of = found
        place = b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)
        return route(record.key, place, self._weights)

    def has_changed(self) -> bool:
        """Whether the route is another than when this was last asked."""
        before, self._seen = self._seen, self._table().get(self._model)
        return before is not self._seen and self._seen is not None

    def has(self, version: str) -> bool:
        """Whether records may be with a version."""
        found = self._table().get(self._model)
        if found is None:
            return True  # what is under way goes on the old way
        routed = found.versions.get(version)
        return version == found.fallback or (routed is not None and routed.weight > 0)

    def fallback_of(self, version: str) -> str | None:
        """The version that answers what this one does not; None where it is alone."""
        found = self._table().get(self._model)
        return found.fallback if found and found.fallback != version else None

    def shadow_of(self, version: str) -> ShadowRoute | None:
        """The candidate that shall answer what a version has answered, too; None for none."""
        found = self._table().get(self._model)
        if found is None or found.shadow is None or version == found.shadow:
            return None
        return ShadowRoute(found.shadow, found.shadow_share)

    def digest(self, version: str) -> str | None:
        """Of the bytes that must answer; None where the table names none."""
        found = self._table().get(self._model)
        routed = found.versions.get(version) if found else None
        return routed.digest if routed else None

    def epoch(self) -> int | None:
        """Of the route in use; None where there is none."""
        found = self._table().get(self._model)
        return found.epoch if found else None

    def fault(self) -> ModelUnavailable | None:
        """Why no record can be given a version; None where one can."""
        if self._model in self._table():
            return None
        return ModelUnavailable(f"the control topic has no route for model {self._model}")
