"""Serve as the operator sees it, for tests of what it does beside releases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.scaling.backlog import Backlog
from ops.serving.cluster import Node
from ops.serving.observed_app import ObservedApp

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
RESOURCES = {"CPU": 0.5}


def running(replicas: int = 1, **changes: Any) -> ObservedApp:
    nodes = {"node-a": replicas}
    made = ObservedApp("RUNNING", replicas, "", target=replicas, resources=RESOURCES, nodes=nodes)
    return made._replace(**changes)


@dataclass
class Apps:
    """What there is, and what was asked for; deploying works at once or fails."""

    found: dict[str, ObservedApp] = field(default_factory=dict)
    scaled: list[tuple[str, int]] = field(default_factory=list)
    remade: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)

    def scale(self, name: str, replicas: int) -> None:
        self.scaled.append((name, replicas))
        self.found[name] = running(replicas)

    def redeploy(self, name: str, work: Callable[[Any], object]) -> None:
        self.remade.append(name)

    def fault(self, name: str) -> str | None:
        return self.faults.get(name)

    def is_busy(self, name: str) -> bool:
        return name in self.busy


@dataclass
class Kafka:
    """How far pipelines are behind."""

    backlogs: dict[str, Backlog] = field(default_factory=dict)

    def of(self, pipeline: str) -> Backlog:
        return self.backlogs.get(pipeline, Backlog())


@dataclass
class Clock:
    """A time that stands until somebody moves it; also as seconds of another clock."""

    now: datetime = NOW

    def __call__(self) -> float:
        return (self.now - NOW).total_seconds()

    def advance(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


NODES = [
    Node("node-a", None, {"CPU": 2.0, "memory": 1e9}),
    Node("node-b", "big", {"CPU": 8.0, "GPU": 1.0}),
]
