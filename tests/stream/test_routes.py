"""One model's part of the routing table, as it changes under the loop."""

from __future__ import annotations

import pytest

from stream.control import RoutingTable
from stream.errors import ModelUnavailable
from stream.routes import Routes, ShadowRoute
from stream.schema import ControlRecord, VersionRoute
from tests.stream.records import PlainRecord


class Table:
    def __init__(self) -> None:
        self.routes: dict[str, ControlRecord] = {}

    def set(self, weights: dict[str, float], **rest: object) -> None:
        versions = {v: VersionRoute(weight=w, digest=f"d{v}") for v, w in weights.items()}
        self.routes["m"] = ControlRecord.model_validate(
            {"model": "m", "epoch": 1, "versions": versions} | rest
        )

    def __call__(self) -> RoutingTable:
        return self.routes


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def routes(table: Table) -> Routes:
    return Routes("m", table)


def test_without_a_route_it_says_so(routes: Routes, table: Table) -> None:
    assert isinstance(routes.fault(), ModelUnavailable)
    assert routes.epoch() is None
    table.set({"1": 1.0})
    assert routes.fault() is None
    assert routes.epoch() == 1
    assert routes.digest("1") == "d1"
    assert routes.digest("2") is None


def test_a_route_that_is_taken_away_goes_on_for_what_was_read(routes: Routes, table: Table) -> None:
    table.set({"7": 1.0})
    record = PlainRecord(offset=1)
    assert routes.choose(record) == "7"
    table.routes.clear()
    assert routes.choose(record) == "7"
    assert routes.has("7")


def test_a_change_is_told_once(routes: Routes, table: Table) -> None:
    assert not routes.has_changed()
    table.set({"1": 1.0})
    assert routes.has_changed()
    assert not routes.has_changed()
    table.set({"1": 0.5, "2": 0.5})
    assert routes.has_changed()


def test_a_fallback_has_records_without_a_weight(routes: Routes, table: Table) -> None:
    table.set({"1": 0.0, "2": 1.0, "3": 0.0}, fallback="1")
    assert routes.has("1")
    assert routes.has("2")
    assert not routes.has("3")
    assert not routes.has("4")
    assert routes.fallback_of("2") == "1"
    assert routes.fallback_of("1") is None


def test_a_shadow_follows_every_version_but_itself(routes: Routes, table: Table) -> None:
    table.set({"1": 0.9, "2": 0.1}, shadow="2", shadow_share=0.25)
    assert routes.shadow_of("1") == ShadowRoute("2", 0.25)
    assert routes.shadow_of("2") is None
