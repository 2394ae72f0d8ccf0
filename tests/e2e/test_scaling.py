"""A platform that follows its load and repairs itself: real Kafka and Ray, counted from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.access import ledger
from ops.platform import operator_process
from ops.platform.installation import PlatformState, token_path
from ops.processes import children as processes
from ops.serving import cluster as deploy
from ops.sql.database import Database
from stream.settings import PipelineSettings
from tests.integration.harness import Ledger, leaves_sockets, wait_until
from tests.ops.directories import make_directory

pytestmark = [pytest.mark.kafka, pytest.mark.ray, pytest.mark.timeout(300), leaves_sockets]

BERTSTREAM = Path(sys.executable).parent / "bertstream"
# One micro-batch of few records at a time: a consumer is slow enough to be too few.
CONFIG = """
state_dir: {state_dir}
ray: {{address: local, num_cpus: 2}}
tick_s: 0.2
scaling:
  {{max_replicas: 2, target_drain_s: 2, up_delay_s: 0.5, down_delay_s: 3, smoothing_s: 1}}
models:
  - {{name: echo, path: {model}, num_cpus: 0.2, engine: {{kind: echo}}}}
pipelines:
  - name: words
    model: echo
    input_topics: [words]
    output_topic: words.out
    partitions: 4
    num_cpus: 0.2
    telemetry_interval_s: 0.5
    max_batch_records: 4
    window: 1
"""
PIPELINE = PipelineSettings(
    name="words", model="echo", input_topics=("words",), output_topic="words.out"
)
CONNECTED = """
import sys
from pathlib import Path
from ops.platform.installation import PlatformState, connection
from serve.settings import EngineSettings, ModelSettings
folder = Path(sys.argv[1])
with connection(folder, PlatformState.load(folder)) as cluster:
"""
DELETE = CONNECTED + "    cluster.delete([sys.argv[2]])"
DEPLOY = (
    CONNECTED
    + """
    echo = EngineSettings(kind="echo")
    name, num_cpus, path = sys.argv[2:]
    model = ModelSettings(name=name, path=path, num_cpus=float(num_cpus), engine=echo)
    cluster.deploy_model(model, deadline_s=60)
"""
)
APP, MODEL = "pipeline-words", "echo@1"
DEADLINE_S = 120.0
# More than one consumer gets through in `target_drain_s`, on whatever machine: one call of four
# records at a time.
BACKLOG = 4_000


class Platform:
    """A running platform, seen through Ray's API and its ledger."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.config = folder / "bertstream.yaml"
        self.model = make_directory(folder / "model")
        self.config.write_text(CONFIG.format(state_dir=self.state_dir, model=self.model))

    def run(self, *words: str) -> None:
        command = [str(BERTSTREAM), *words, "--config", str(self.config)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr + done.stdout

    def state(self) -> PlatformState:
        state = PlatformState.load(self.state_dir)
        assert state is not None
        return state

    def pids(self, app: str) -> set[int]:
        """Of the replicas that run."""
        state = self.state()
        apps = deploy.applications(state.dashboard, token_path(self.state_dir, state))
        found = apps.get(app, {}).get("deployments", {}).values()
        replicas = [replica for one in found for replica in one["replicas"]]
        return {int(r["pid"]) for r in replicas if r["state"] == "RUNNING"}

    @contextmanager
    def operator_stopped(self) -> Iterator[None]:
        """Nobody decides meanwhile."""
        (operator,) = operator_process.operators(self.state().instance)
        operator.suspend()
        try:
            yield
        finally:
            operator.resume()

    def scale(self, app: str, replicas: int) -> None:
        """As the operator does."""
        state = self.state()
        deploy.scale(state.dashboard, token_path(self.state_dir, state), app, replicas)

    def connected(self, script: str, *words: str) -> None:
        """Do something behind the operator's back; a driver is ended with its cluster."""
        command = [sys.executable, "-c", script, str(self.state_dir), *words]
        subprocess.run(command, check=True, timeout=2 * DEADLINE_S)

    def watched(self) -> set[str]:
        """Versions whose load advice goes by."""
        command = [str(BERTSTREAM), "cost", "--advice", "--json", "--state-dir"]
        done = subprocess.run(
            [*command, str(self.state_dir)], check=True, capture_output=True, timeout=DEADLINE_S
        )
        return {f"{one['model']}@{one['version']}" for one in json.loads(done.stdout)["watched"]}

    def told(self, action: str) -> list[Any]:
        """Rows of the ledger, oldest first."""
        with (
            closing(Database(f"sqlite:///{self.state_dir / 'bertstream.db'}")) as database,
            database.read() as reading,
        ):
            rows = ledger.entries(reading, ledger.LedgerQuery(limit=200))[::-1]
        return [row for row in rows if row.action == action]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("scaling"))
    running.run("up", "--detach")
    instance = running.state().instance
    try:
        yield running
    finally:
        running.run("down")
        assert not processes.marked(instance)


@pytest.fixture(scope="module")
def records(platform: Platform) -> Iterator[Ledger]:
    with closing(Ledger(platform.state().bootstrap_servers, PIPELINE)) as records:
        yield records


def test_backlog_takes_consumers_and_quiet_takes_them_away(
    platform: Platform, records: Ledger
) -> None:
    records.produce(50)
    records.wait_for_count(50)
    first, model = platform.pids(APP), platform.pids(MODEL)
    assert (len(first), len(model)) == (1, 1)
    records.produce(BACKLOG)
    wait_until(lambda: len(platform.pids(APP)) == 2, "two consumers", deadline_s=DEADLINE_S)
    with platform.operator_stopped():
        platform.scale(MODEL, 2)
        wait_until(lambda: len(platform.pids(MODEL)) == 2, "two replicas", deadline_s=DEADLINE_S)
        records.produce(500)
    records.wait_for_count(records.sent)
    wait_until(lambda: len(platform.pids(APP)) == 1, "one consumer", deadline_s=DEADLINE_S)
    wait_until(lambda: platform.pids(MODEL) == model, "one replica", deadline_s=DEADLINE_S)
    assert platform.pids(APP) == first  # who was there has stayed
    records.produce(100)
    records.wait_for_count(records.sent)
    records.assert_exactly_once()
    rows = [row for row in platform.told("app.scale") if row.reason.startswith(APP)]
    assert [row.to_state for row in rows[:2]] == ["2", "1"]
    assert "lag " in rows[0].reason
    wait_until(lambda: platform.watched() == {"echo@1"}, "a watched load", deadline_s=DEADLINE_S)


def test_consumer_that_was_added_makes_room_for_a_version_that_has_none(
    platform: Platform, records: Ledger
) -> None:
    records.produce(BACKLOG)
    wait_until(lambda: len(platform.pids(APP)) == 2, "two consumers", deadline_s=DEADLINE_S)
    with ThreadPoolExecutor(1) as pool:
        # Of 2 CPUs, 0.2 of which each of the others has.
        deployed = pool.submit(platform.connected, DEPLOY, "large", "1.5", str(platform.model))
        # Or the added consumer would go because of the quiet.
        records.flow_until(deployed.done, "it is deployed", behind=BACKLOG)
        deployed.result()
    rows = [row for row in platform.told("app.scale") if "frees capacity" in row.reason]
    assert [(row.from_state, row.to_state) for row in rows] == [("2", "1")]
    assert rows[0].reason.startswith(f"{APP}: frees capacity for another app, stays at 1 consumer")
    platform.connected(DELETE, "large@1")
    records.wait_for_count(records.sent, deadline_s=DEADLINE_S)
    records.assert_exactly_once()
    wait_until(lambda: len(platform.pids(APP)) == 1, "one consumer", deadline_s=DEADLINE_S)


def test_operator_gets_a_changed_configuration(platform: Platform, records: Ledger) -> None:
    before, apps = platform.state(), (platform.pids(APP), platform.pids(MODEL))
    platform.config.write_text(platform.config.read_text() + "prices: {cpu_hour: 1}\n")
    platform.run("up", "--detach")
    after = platform.state()
    assert after.operator_pid != before.operator_pid
    assert (platform.pids(APP), platform.pids(MODEL)) == apps


def test_app_that_is_gone_is_deployed_anew(platform: Platform, records: Ledger) -> None:
    platform.connected(DELETE, APP)
    records.produce(50)
    records.wait_for_count(records.sent, deadline_s=DEADLINE_S)
    records.assert_exactly_once()
    (row,) = platform.told("app.repair")
    assert row.reason == f"{APP}: it is not deployed; attempt 1 of 3"
