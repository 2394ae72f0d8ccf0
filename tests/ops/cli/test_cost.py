"""``bertstream cost`` and ``bertstream alerts`` against a real control API."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ops.access import grants
from ops.access.permissions import Permission
from ops.config.prices import NodePrice, PriceTable
from ops.cost import usage, workloads
from ops.cost.advice import Size, Workload
from ops.cost.billing import Usage, UsageSource
from ops.health import alerts
from ops.health.alerts import raise_alert
from ops.health.findings import Finding, Severity
from ops.service.cost import CostActions
from tests.ops.cli.command import Bertstream, as_json
from tests.ops.installation import NOW, Installation

HOUR = NOW.replace(minute=0)
DAY = timedelta(days=1)


@pytest.fixture
def used(there: Installation) -> Installation:
    """An hour of two replicas and a consumer today, and an hour yesterday."""
    rows = [
        Usage(HOUR, UsageSource("sentiment", "3"), 7200, 7200, 0, 500_000),
        Usage(HOUR, UsageSource("sentiment", pipeline="words"), 3600, 900),
        Usage(HOUR, UsageSource("topics", "1"), 3600, 36_000, 0, 0),
        Usage(HOUR - DAY, UsageSource("sentiment", "2"), 3600, 3600, 0, 100),
    ]
    with there.database.begin() as connection:
        usage.add(connection, rows)
        grants.give(connection, "mlops", Permission.RELEASE, "*", by="root", now=NOW)
        grants.give(connection, "risk", Permission.RELEASE, "topics", by="root", now=NOW)
    prices = PriceTable(cpu_hour=0.5)
    there.service.cost = CostActions(there.service.access, prices)
    return there


def test_cost_by_version_and_team(bertstream: Bertstream, used: Installation) -> None:
    found = as_json(bertstream("cost", "--json"))
    assert found["currency"] == "EUR"
    told = [
        (bill["model"], bill["version"], bill["team"], bill["money"], bill["per_million"])
        for bill in found["bills"]
    ]
    assert told == [
        ("topics", "1", "risk", 5.0, None),
        ("sentiment", "3", "mlops", 1.0, 2.0),
        ("sentiment", None, "mlops", 0.125, None),
    ]
    lines = bertstream("cost").stdout.splitlines()
    assert lines[1].split() == [
        *("topics", "1", "risk", "1.00", "10.00", "0.00", "0", "5.0000", "-"),
    ]


def test_cost_of_a_model_and_of_days(bertstream: Bertstream, used: Installation) -> None:
    found = as_json(bertstream("cost", "--model", "sentiment", "--by", "model", "--json"))
    (bill,) = found["bills"]
    assert (bill["version"], bill["money"], bill["per_million"]) == (None, 1.125, 2.25)
    found = as_json(bertstream("cost", "--days", "2", "--by", "version", "--json"))
    assert {bill["version"]: bill["money"] for bill in found["bills"]} == {
        "1": 5.0,
        "3": 1.0,
        "2": 0.5,
        None: 0.125,
    }


def test_cost_takes_the_right_to_read(bertstream: Bertstream, used: Installation) -> None:
    assert "read on *" in bertstream("cost", who="eve", code=1).stderr
    bertstream("cost", "--model", "sentiment", who="ana")


def test_cost_without_prices_is_in_hours(bertstream: Bertstream, used: Installation) -> None:
    used.service.cost = CostActions(used.service.access, None)
    result = bertstream("cost", "--model", "topics")
    assert result.stdout.split()[-4:] == ["1.00", "10.00", "0.00", "0"]
    assert "set `prices` in the configuration" in result.stderr


@pytest.fixture
def watched(used: Installation) -> Installation:
    """Two days of a version that has little to do, three hours of another, and one that is gone."""
    size = Size("bf16", True, 2.0, 0.0, min_replicas=1, max_replicas=4)
    hours = [("sentiment", "3", h) for h in range(48)] + [("topics", "1", h) for h in range(3)]
    hours += [("sentiment", "2", h) for h in range(24, 72)]
    rows = []
    for model, label, before in hours:
        at = HOUR - timedelta(hours=before)
        amounts = dict.fromkeys(("watched_s", "replica_s", "at_min_s"), 3600.0)
        done = {**amounts, "busy_at_min_s": 720.0, "lagging_s": 0.0}
        rows.append(Workload(at, model, label, size, at, **done))
    with used.database.begin() as connection:
        workloads.add(connection, rows)
    return used


def test_advice_from_measured_load(bertstream: Bertstream, watched: Installation) -> None:
    found = as_json(bertstream("cost", "--advice", "--json"))
    assert [(one["model"], one["version"], one["observed_h"]) for one in found["watched"]] == [
        ("sentiment", "3", 48.0),
        ("topics", "1", 3.0),
    ]
    assert [(one["setting"], one["saving_per_day"]) for one in found["advice"]] == [
        ("num_cpus", 18.0),
        ("max_replicas", None),
    ]
    result = bertstream("cost", "--advice")
    words = " ".join(result.stdout.split())
    assert "num_cpus sentiment@3 is busy 20% of the time at its minimum of 1" in words
    assert "18.00 EUR a day less" in words
    assert result.stderr.split("\n")[0] == (
        "topics@1 was measured for 3.0 h at this size: advice to enlarge needs 1 h, to reduce 24 h"
    )
    result = bertstream("cost", "--advice", "--model", "topics")
    assert result.stdout == "nothing to change\n"


def test_advice_of_few_days_and_before_anything_was_seen(
    bertstream: Bertstream, used: Installation, watched: Installation
) -> None:
    found = as_json(bertstream("cost", "--advice", "--days", "1", "--json"))
    assert found["advice"] == []
    assert found["watched"][0]["observed_h"] == NOW.hour + 1
    said = bertstream("cost", "--advice", "--model", "none").stdout
    assert said.startswith("no advice: no running version has been measured")


def test_advice_uses_the_prices_of_the_nodes(bertstream: Bertstream, watched: Installation) -> None:
    spot = Usage(HOUR, UsageSource("sentiment", "3", node_type="spot"), 360_000, 1)
    with watched.database.begin() as connection:
        usage.add(connection, [spot])
    prices = PriceTable(cpu_hour=0.5, node_types={"spot": NodePrice(cpu_hour=0.1)})
    watched.service.cost = CostActions(watched.service.access, prices)
    first, _ = as_json(bertstream("cost", "--advice", "--json"))["advice"]
    assert first["saving_per_day"] == pytest.approx(3.6)


def test_advice_is_for_who_may_read_and_about_versions(
    bertstream: Bertstream, watched: Installation
) -> None:
    assert "read on *" in bertstream("cost", "--advice", who="eve", code=1).stderr
    bertstream("cost", "--advice", "--model", "sentiment", who="ana")
    assert "leave out --by" in bertstream("cost", "--advice", "--by", "team", code=2).stderr


def test_cost_refuses_what_cannot_be(bertstream: Bertstream, used: Installation) -> None:
    bertstream("cost", "--by", "planet", code=2)
    bertstream("cost", "--days", "0", code=2)
    assert "nothing was used since" in bertstream("cost", "--model", "none").stdout


def test_alerts(bertstream: Bertstream, there: Installation) -> None:
    assert bertstream("alerts").stdout == "no alerts\n"
    notice = Finding("repair/app", Severity.DOWN, "it is broken", NOW, "records wait", "look")
    with there.database.begin() as connection:
        raise_alert(connection, notice, NOW)
        raise_alert(connection, replace(notice, key="cost/m", what="dear"), NOW)
        alerts.close(connection, "cost/m", NOW)
    assert bertstream("alerts", who="eve").stdout == "no alerts\n"
    words = " ".join(bertstream("alerts").stdout.split())
    assert "down it is broken; hurts: records wait; do: look" in words
    assert "dear" not in words
    page = as_json(bertstream("alerts", "--all", "--limit", "1", "--json"))
    assert [(alert["what"], alert["closed_at"] is None) for alert in page["items"]] == [
        ("dear", False)
    ]
    assert "more: --before 2" in bertstream("alerts", "--all", "--limit", "1").stderr
