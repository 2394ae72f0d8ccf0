"""One model's part of the routing table: which version answers a record, and with which bytes."""

from __future__ import annotations

from collections.abc import Callable

from serve.routing import route
from stream.control import RoutingTable
from stream.errors import ModelUnavailable
from stream.records import Record
from stream.schema import ControlRecord


class Routes:
    """Follows the routing table as it stands; from any thread."""

    def __init__(self, model: str, table: Callable[[], RoutingTable]) -> None:
        self._model = model
        self._table = table
        self._weights: tuple[tuple[str, float], ...] = ()
        self._weights_of: ControlRecord | None = None

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
