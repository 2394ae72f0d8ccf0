"""Measure rounds of the operator with many models, and calls of the control API.

``python -m bench.operator [--models N --rounds N --calls N]`` uses the real database, evidence,
verdicts and API, and stubs for Kafka and Ray, which other threads wait for. It prints one line
of JSON and exits with 1 if the slowest round or the 99th percentile of calls is above its limit.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import uvicorn

from bench.registry import directories
from ops.access.first_admin import ensure_local_admin
from ops.api.app import create_app
from ops.catalogue.deployments import keep_deployment
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.config.prices import PriceTable
from ops.config.scaling import ScalingSettings
from ops.cost.metering import UsageMeter
from ops.cost.utilisation import LoadSampler
from ops.operator.loop import Operator
from ops.operator.repairs import Deploy, Repairs
from ops.operator.upkeep import Scaling, Upkeep
from ops.policy import store as policy_store
from ops.policy.file import load
from ops.releases.facts import FactFinder
from ops.releases.releases import Release, Start, move, start
from ops.releases.routes import put_route
from ops.releases.state_machine import Event
from ops.scaling.backlog import Backlog
from ops.scaling.rates import OffsetSample, Rates
from ops.scaling.scaler import Scaler
from ops.service.service import Service
from ops.serving.apps import Apps
from ops.serving.cluster import Node
from ops.serving.nodes import Machines
from ops.serving.observed_app import ObservedApp
from ops.serving.readiness import Readiness
from ops.sql.database import Database
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from serve.contract import app_name
from serve.settings import ModelSettings
from stream.schema import (
    ComparisonRecord,
    ConsumerRecord,
    ControlRecord,
    TelemetryRecord,
    VersionRoute,
)
from stream.settings import PipelineSettings

TICK_LIMIT_MS = 100.0
API_LIMIT_MS = 50.0
WINDOW_MS = 5_000
ROUNDS_OF_A_WINDOW = 5
MILLISECOND = timedelta(milliseconds=1)
STEP_AGE = timedelta(minutes=9)
LABELS = {"negative": 240, "positive": 260}
LATENCY = {40: 200, 44: 250, 48: 45, 52: 5}
POLICY = """
model: {name}
windows:
  allow: [{{cron: "0 * * * *", duration: 1h, time_zone: Europe/Berlin}}]
  deny: [{{cron: "0 0 24 12 *", duration: 72h}}]
approvals: [{{team: risk, count: 1}}]
rollout:
  shadow: {{records: 100000000, timeout: 30m}}
  canary: [{{weight: 0.25, records: 100000000, timeout: 30m}}]
  bake: {{duration: 20m, records: 100000000, timeout: 30m}}
"""
# Events that bring a release to its state, each with the number of models out of ten.
TO_SHADOW = (Event.GATES_PASSED, Event.APPROVED, Event.MAY_GO, Event.LOADED)
PLACES: tuple[tuple[int, tuple[Event, ...]], ...] = (
    (4, (Event.GATES_PASSED, Event.APPROVAL_NEEDED)),
    (2, TO_SHADOW),
    (3, (*TO_SHADOW, Event.STEP_PASSED)),
    (1, (*TO_SHADOW, Event.STEP_PASSED, Event.STEP_PASSED)),
)


class Taken(NamedTuple):
    """Duration of a round in milliseconds: wall time, and CPU time of the round (``own``)."""

    wall: float
    own: float


class StandingApps:
    """Stub of the apps in which every app runs."""

    def __init__(self, models: list[str]) -> None:
        names = [app_name(model, label) for model in models for label in ("1", "2")]
        names += [pipeline_of(model).app_name for model in models]
        standing = ObservedApp("RUNNING", 1, "", resources={"CPU": 1.0}, nodes={"node": 1})
        self.found: Mapping[str, ObservedApp] = dict.fromkeys(names, standing)

    def refresh(self) -> None:
        """Do nothing: the apps never change."""

    def reconcile(
        self, wanted: Mapping[str, object], known: set[str], _others: Container[str]
    ) -> None:
        """Check that every desired app exists."""
        assert set(wanted) <= set(self.found), known

    def load(self, name: str, *, age_s: float, deadline_s: float) -> Readiness:
        """Report every known app as ready."""
        return Readiness(name in self.found, None, age_s, deadline_s)

    def fault(self, _name: str) -> str | None:
        """Report no fault for any app."""
        return None

    def is_busy(self, _name: str) -> bool:
        """Report that no operation is in progress."""
        return False

    def scale(self, name: str, replicas: int) -> None:
        """Fail: with a steady backlog no app needs to be scaled."""
        raise AssertionError(f"{name} to {replicas}")

    def close(self) -> None:
        """Do nothing: the stub has no resources."""


class Steady:
    """Stub of the backlogs in which every pipeline keeps up with its input."""

    def of(self, _pipeline: str) -> Backlog:
        """Return a backlog measured now."""
        now_s = time.monotonic()
        return Backlog(Rates(OffsetSample(now_s, 1000.0, 990.0), 100.0, 100.0), 4, now_s, 0.0)


class Topic:
    """Stub of the control topic."""

    def publish(self, record: ControlRecord) -> None:
        """Discard the record."""


def main() -> int:
    """Measure rounds and calls; return 0 if both were fast enough, otherwise 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with closing(Database(f"sqlite:///{folder}/ops.db", timeout_s=60)) as database:
            models = fill(database, folder, arguments.models)
            ticks = _ticks(database, folder, models, arguments.rounds)
            calls_ms = _calls(database, folder, models, arguments.calls)
    worst_ms = max(tick.wall for tick in ticks)
    p99_ms = statistics.quantiles(calls_ms, n=100)[-1]
    figures = {
        "models": arguments.models,
        "open_releases": arguments.models,
        "tick_ms_first": round(ticks[0].wall, 1),
        "tick_ms_p50": round(statistics.median(tick.wall for tick in ticks), 1),
        "tick_ms_max": round(worst_ms, 1),
        "tick_cpu_ms_max": round(max(tick.own for tick in ticks), 1),
        "tick_limit_ms": TICK_LIMIT_MS,
        "api_p50_ms": round(statistics.median(calls_ms), 1),
        "api_p99_ms": round(p99_ms, 1),
        "api_limit_ms": API_LIMIT_MS,
    }
    print(json.dumps(figures))
    return 1 if worst_ms > TICK_LIMIT_MS or p99_ms > API_LIMIT_MS else 0


def fill(database: Database, folder: Path, count: int) -> list[str]:
    """Create models with a live version and an open release each; return their names."""
    database.migrate()
    registry = Registry(database, ArtifactStore(folder / "store"))
    made, now = directories(folder), datetime.now(UTC)
    names = [f"model-{number:03}" for number in range(count)]
    places = [events for times, events in PLACES for _ in range(times)]
    for number, name in enumerate(names):
        digests = [
            registry.register(name, next(made), author="ada", now=now - timedelta(days=1)).digest
            for _ in range(2)
        ]
        _release(database, name, digests[0], places[number % len(places)], now - STEP_AGE)
    return names


def _release(
    database: Database, name: str, digest: str, events: tuple[Event, ...], at: datetime
) -> Release:
    text = POLICY.format(name=name)
    with database.begin() as connection:
        policy_store.put(connection, load(text, now=at), text, author="ada", now=at)
        keep_deployment(connection, name, "1", {"num_cpus": 1.0}, at)
        route = {"1": VersionRoute(digest=digest, weight=1.0)}
        put_route(connection, ControlRecord(model=name, epoch=1, versions=route))
        release = start(connection, Start(model=name, version=2, actor="ada"), at)
        for event in events:
            release = move(
                connection, release, event, actor="bench", reason="set up", evidence={}, now=at
            )
    return release


def _ticks(database: Database, folder: Path, models: list[str], rounds: int) -> list[Taken]:
    """Measure each round; the first one takes leadership and reads all windows of all steps."""
    observations = Observations()
    end_ms = int(time.time() * 1000)
    for name in models:
        observations.add(windows_of(name, end_ms - STEP_AGE // MILLISECOND, end_ms))
        observations.add([heartbeat_of(name)])
    operator = operator_of(database, folder, models, observations)
    gc.collect()
    taken = []
    for number in range(rounds):
        began, computed = time.perf_counter(), time.thread_time()
        operator.tick()
        wall_s, own_s = time.perf_counter() - began, time.thread_time() - computed
        taken.append(Taken(1000 * wall_s, 1000 * own_s))
        assert operator.leads
        # A window spans several rounds, so in each round only some consumers report one.
        reporting = models[number % ROUNDS_OF_A_WINDOW :: ROUNDS_OF_A_WINDOW]
        for name in reporting:
            observations.add(windows_of(name, end_ms, end_ms + WINDOW_MS))
            observations.add([heartbeat_of(name)])
    return taken


def operator_of(
    database: Database, folder: Path, models: list[str], observations: Observations
) -> Operator:
    """Return an operator of these models whose apps all run."""
    view = PlatformView(database, observations, cast(Apps, StandingApps(models)))
    facts = FactFinder(view, ArtifactStore(folder / "store"), cache_dir=folder / "cache")
    templates = {name: ModelSettings(name=name, path=folder) for name in models}
    return Operator(
        view,
        Topic(),
        facts,
        templates,
        clock=lambda: datetime.now(UTC),
        upkeep=_upkeep(view, templates),
    )


def _upkeep(view: PlatformView, templates: Mapping[str, ModelSettings]) -> Upkeep:
    """Return the upkeep for one pipeline per model, with prices, repairs and scaling."""
    pipelines, backlogs = [pipeline_of(name) for name in templates], Steady()
    machines = Machines(lambda: [Node("node", None, {"CPU": 1000.0})], grows=False)
    machines.refresh()
    deploys: dict[str, Deploy] = {p.app_name: lambda _cluster: None for p in pipelines}
    scaler = Scaler(ScalingSettings(), [*templates.values()], pipelines)
    prices, least = PriceTable(cpu_hour=0.05), dict.fromkeys(templates, 1)
    return Upkeep(
        UsageMeter(view, machines, least=least, pipelines=pipelines, prices=prices),
        Repairs(view, backlogs, pipelines=pipelines, deploys=deploys, deadline_s=1.0),
        Scaling(view, scaler, machines, pipelines=pipelines, backlogs=backlogs),
        LoadSampler(view, has_bf16=False),
    )


def pipeline_of(model: str) -> PipelineSettings:
    """Return the settings of a model's pipeline."""
    return PipelineSettings(
        name=model, model=model, input_topics=(f"{model}.in",), output_topic=f"{model}.out"
    )


def windows_of(
    model: str, begin_ms: int, end_ms: int
) -> Iterator[TelemetryRecord | ComparisonRecord]:
    """Yield what one consumer reports about both versions between two times."""
    for start_ms in range(begin_ms, end_ms, WINDOW_MS):
        place = {"pipeline": model, "consumer": 0, "model": model}
        times = {"start_ms": start_ms, "end_ms": start_ms + WINDOW_MS}
        for version in ("1", "2"):
            yield TelemetryRecord.model_validate(_window() | place | times | {"version": version})
        yield ComparisonRecord.model_validate(_comparison() | place | times)


def heartbeat_of(model: str) -> ConsumerRecord:
    """Return the current heartbeat of the consumer of a model's pipeline."""
    return ConsumerRecord(
        pipeline=model,
        consumer=0,
        model=model,
        pid=1,
        at_ms=int(time.time() * 1000),
        epoch=1,
        versions=("1",),
        waiting=10,
        committed_ago_s=0.1,
        trouble=None,
        ended=False,
    )


def _window() -> dict[str, Any]:
    return {
        "engine": "openvino",
        "precision": "bf16",
        "digest": None,
        "answers": 500,
        "failures": {"model_error": 1},
        "rescued": {},
        "deleted": {},
        "retries": 0,
        "calls": 10,
        "tokens": 9_000,
        "padded_tokens": 9_500,
        "distinct_texts": 480,
        "truncated": 0,
        "replica_us": 900_000,
        "latency": LATENCY,
        "confidence": {18: 300, 19: 200},
        "lengths": {4: 300, 5: 200},
        "labels": LABELS,
    }


def _comparison() -> dict[str, Any]:
    return {
        "live": "1",
        "candidate": "2",
        "compared": 500,
        "agreed": 490,
        "failed": 0,
        "live_failed": 0,
        "skipped": 0,
        "matrix": {
            "negative": {"negative": 235, "positive": 5},
            "positive": {"positive": 255, "negative": 5},
        },
        "live_calls": LATENCY,
        "candidate_calls": LATENCY,
        "samples": (),
    }


def _calls(database: Database, folder: Path, models: list[str], count: int) -> list[float]:
    """Return milliseconds of each call over loopback; each opens a connection, as the CLI does."""
    ensure_local_admin(database, folder, now=datetime.now(UTC))
    token = (folder / "token").read_text().strip()
    service = Service(database, ArtifactStore(folder / "store"))
    taken = []
    with served(service) as port:
        _call(port, "/healthz", token)  # waits until the server has started
        for number in range(count):
            path = _path(number, VersionId(models[number % len(models)], 2))
            began = time.perf_counter()
            _call(port, path, token)
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def _call(port: int, path: str, token: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
    assert answer.status == 200, (path, answer.status)


def _path(number: int, version: VersionId) -> str:
    """Return one of the most frequent requests."""
    own = f"/api/v1/models/{version.model}"
    paths = (
        "/api/v1/models",
        f"{own}/release",
        f"{own}/versions",
        f"{own}/versions/{version.number}/explanation",
        "/api/v1/releases",
        f"/api/v1/ledger?model={version.model}",
        "/api/v1/me",
    )
    return paths[number % len(paths)]


@contextmanager
def served(service: Service) -> Iterator[int]:
    """Serve the control API of a service and provide its port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            create_app(service), log_level="error", access_log=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            # A client that connects before the server accepts waits in the socket's queue.
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)


if __name__ == "__main__":
    sys.exit(main())
