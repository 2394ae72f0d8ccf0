"""The platform as a user meets it: one command after the other, on a real Kafka and Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.platform import operator_process, ray_head
from ops.platform.installation import PlatformState
from ops.processes import children as processes
from tests.ops.directories import make_directory

pytestmark = [pytest.mark.kafka, pytest.mark.ray, pytest.mark.timeout(400)]

BERTSTREAM = Path(sys.executable).parent / "bertstream"
CONFIG = """
state_dir: {state_dir}
ray: {{address: local, num_cpus: 2}}
models:
  - {{name: echo, path: {model}, num_cpus: 0.2, engine: {{kind: echo}}}}
pipelines:
  - name: words
    model: echo
    input_topics: [words]
    output_topic: words.out
    partitions: 2
    telemetry_interval_s: 1
"""


class Platform:
    """A running platform and the command to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "bertstream.yaml"
        self.state_dir = folder / "state"
        self.asked = 0
        self.model = make_directory(folder / "model")
        self.config.write_text(CONFIG.format(state_dir=self.state_dir, model=self.model))

    def run(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        command = [str(BERTSTREAM), *words, "--config", str(self.config)]
        done = subprocess.run(
            command, check=False, input=stdin, capture_output=True, text=True, timeout=180
        )
        assert code is None or done.returncode == code, done.stderr + done.stdout
        return done.stdout

    def state(self) -> PlatformState:
        state = PlatformState.load(self.state_dir)
        assert state is not None
        return state

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json"))
        return found

    def ask(self, count: int) -> list[dict[str, Any]]:
        """Produce, and read the results of all that was ever produced, and a moment longer."""
        lines = "".join(json.dumps({"id": n, "text": f"word {n}"}) + "\n" for n in range(count))
        self.run("produce", "words", "--key-field", "id", stdin=lines)
        self.asked += count
        reading = ("consume", "words.out", "--from-beginning", "--json")
        self.run(*reading, "--max", str(self.asked), "--timeout", "60")
        out = self.run(*reading, "--timeout", "2")
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform"))
    running.run("up", "--detach")
    instance = running.state().instance
    try:
        yield running
    finally:
        running.run("down")
        assert not processes.marked(instance)
        kept = running.state_dir / "logs"
        assert [*kept.glob("replica_pipeline-words*")]
        assert str(kept) in running.run("health", code=2)


def eventually(question: Callable[[], bool], deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not question():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_records_come_back_once_with_their_headers(platform: Platform) -> None:
    results = platform.ask(50)
    assert sorted(result["value"]["id"] for result in results) == list(range(50))
    one = results[0]
    assert one["value"]["result"] == [{"label": "ECHO", "score": 1.0}]
    assert one["key"] == str(one["value"]["id"])
    assert dict(one["headers"])["bertstream-model"] == "echo@1"
    source = one["value"]["source"]
    place = f"{source['topic']}/{source['partition']}/{source['offset']}"
    assert dict(one["headers"])["bertstream-source"] == place


def test_status_says_how_it_stands(platform: Platform) -> None:
    eventually(lambda: platform.status()["pipelines"][0]["lag"] == 0, 30)
    now = platform.status()
    assert now["healthy"]
    assert {app["name"]: app["status"] for app in now["apps"]} == {
        "echo@1": "RUNNING",
        "pipeline-words": "RUNNING",
    }
    assert Path(now["token_file"]).stat().st_mode & 0o077 == 0
    assert now["operator"] == {"running": True, "message": "", "api": platform.state().api}
    assert f"API {platform.state().api}" in platform.run("status")


def test_status_tells_of_an_operator_that_is_gone_and_up_brings_it_back(platform: Platform) -> None:
    before = platform.state().operator_pid
    assert before is not None
    psutil.Process(before).kill()
    eventually(lambda: not operator_process.operators(platform.state().instance), 30)
    told = platform.run("status", code=1)
    assert "operator: not running; `bertstream up` starts it" in told
    platform.run("up", "--detach")
    assert platform.status()["healthy"]
    assert platform.state().operator_pid != before


def test_health_names_the_logs_of_consumers_and_replicas(platform: Platform) -> None:
    told = platform.run("health", code=None)
    folder = Path(told.rpartition("Logs of consumers and replicas: ")[2].strip())
    assert [*(folder / "serve").glob("replica_echo@1*")]


def test_up_again_changes_nothing(platform: Platform) -> None:
    before = platform.state()
    platform.run("up", "--detach")
    assert platform.state() == before


def test_served_model_answers_without_kafka(platform: Platform) -> None:
    answer = json.loads(platform.run("predict", "echo", "hello", "--json"))
    wanted = [{"label": "ECHO", "score": 1.0}]
    assert answer == {"index": 0, "text": "hello", "result": wanted}


def test_killed_consumer_comes_back_and_nothing_doubles(platform: Platform) -> None:
    victims = [p for p in processes.marked(platform.state().instance) if _is_pipeline(p)]
    assert len(victims) == 1
    os.kill(victims[0].pid, signal.SIGKILL)
    results = platform.ask(40)
    places = [dict(result["headers"])["bertstream-source"] for result in results]
    assert len(places) == len(set(places)) == platform.asked


def _is_pipeline(process: psutil.Process) -> bool:
    try:
        return "pipeline-words" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_up_repairs_a_dead_broker(platform: Platform) -> None:
    before = platform.state()
    broker = json.loads((platform.state_dir / "kafka" / "broker.json").read_text())
    os.kill(broker["pid"], signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(broker["pid"]), 20)
    platform.run("up", "--detach")
    assert platform.state().bootstrap_servers == before.bootstrap_servers
    assert len(platform.ask(5)) == platform.asked


def test_model_without_room_is_told_and_what_runs_goes_on(platform: Platform) -> None:
    text = platform.config.read_text()
    big = f"  - {{name: big, path: {platform.model}, num_cpus: 64, engine: {{kind: echo}}}}\n"
    platform.config.write_text(text.replace("pipelines:", f"{big}pipelines:"))
    try:
        done = subprocess.run(
            [str(BERTSTREAM), "up", "--detach", "--config", str(platform.config)],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
    finally:
        platform.config.write_text(text)
    assert done.returncode == 1
    assert "needs 64 CPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert platform.status()["healthy"]


def test_failed_up_leaves_nothing(tmp_path: Path) -> None:
    broken = Platform(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"num_cpus: 2, dashboard_port: {taken.getsockname()[1]}}}"
        broken.config.write_text(broken.config.read_text().replace("num_cpus: 2}", port))
        done = subprocess.run(
            [str(BERTSTREAM), "up", "--detach", "--config", str(broken.config)],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
    assert done.returncode == 1
    assert "dashboard_port" in done.stderr
    assert PlatformState.load(broken.state_dir) is None
    running = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in running if str(tmp_path) in " ".join(line)]


@pytest.mark.parametrize("victim", ["gcs_server", "raylet", "java"])
def test_up_ends_at_once_when_what_it_needs_dies(victim: str, tmp_path: Path) -> None:
    starting = Platform(tmp_path)
    command = [str(BERTSTREAM), "up", "--detach", "--config", str(starting.config)]
    with (tmp_path / "said").open("wb+") as said:
        up = subprocess.Popen(command, stderr=said, stdout=said)
        eventually(lambda: b"echo@1: deploying" in (tmp_path / "said").read_bytes(), 180)
        instance = starting.state().instance
        ours = processes.using(ray_head.temporary_folder(instance))
        ours += processes.marked(instance)
        next(p for p in ours if _is_named(p, victim)).kill()
        killed_at = time.monotonic()
        assert up.wait(60) == 1
    told = (tmp_path / "said").read_text()
    # Ending all that was started takes most of it.
    assert time.monotonic() - killed_at < 30
    what, log = ("Kafka", "broker.log") if victim == "java" else ("Ray's head", "ray.log")
    assert f"error: {what} died while this was under way: echo@1: deploying" in told
    assert victim == "java" or f"{victim} ended: SIGKILL" in told
    assert f"its log is {starting.state_dir}" in told
    assert f"/{log}" in told
    assert "task_manager.cc" not in told
    assert "Traceback" not in told
    assert not processes.marked(instance)


def _is_named(process: psutil.Process, name: str) -> bool:
    try:
        return processes.is_alive(process) and process.name().startswith(name)
    except psutil.Error:
        return False
