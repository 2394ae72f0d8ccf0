"""Releases on a live stream: real Kafka, Ray and models; an independent consumer counts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ops.platform import operator_process
from ops.platform.installation import PlatformState
from ops.processes import children as processes
from serve.artifact import MANIFEST_FILE, Artifact, seal
from stream.settings import PipelineSettings
from tests.integration.harness import Ledger, leaves_sockets

pytestmark = [pytest.mark.kafka, pytest.mark.ray, pytest.mark.timeout(1200), leaves_sockets]

BERTSTREAM = Path(sys.executable).parent / "bertstream"
CONFIG = """
state_dir: {state_dir}
ray: {{address: local, num_cpus: 2}}
tick_s: 0.3
models:
  - {{name: sentiment, path: {path}, num_cpus: 0.2, engine: {{threads: 1, precision: f32}}}}
pipelines:
  - name: words
    model: sentiment
    input_topics: [words]
    output_topic: words.out
    partitions: 2
    telemetry_interval_s: 0.3
"""
# Calls of so small a model take no time: what is measured is the machine's noise.
POLICY = """
model: sentiment
rollout:
  shadow: {records: 100, timeout: 5m}
  canary: [{weight: 0.5, records: 100, timeout: 5m}]
  bake: {duration: 2s, records: 50, timeout: 5m}
analysis: {latency: null}
"""
PIPELINE = PipelineSettings(
    name="words", model="sentiment", input_topics=("words",), output_topic="words.out"
)
DEADLINE_S = 300.0
RESTART_S = 60.0


class Platform:
    """A running platform, its command, and a stream of records that never stops."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.config = folder / "bertstream.yaml"
        self.config.write_text(CONFIG.format(state_dir=self.state_dir, path=model))

    def run(self, *words: str, code: int | None = 0) -> str:
        place = ["--state-dir", str(self.state_dir)]
        if words[0] in ("up", "down"):
            place = ["--config", str(self.config)]
        done = subprocess.run(
            [str(BERTSTREAM), *words, *place],
            check=False,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert code is None or done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    def state(self) -> PlatformState:
        state = PlatformState.load(self.state_dir)
        assert state is not None
        return state

    def release(self) -> dict[str, Any]:
        story = json.loads(self.run("release", "status", "sentiment", "--json"))
        found: dict[str, Any] = story["release"]
        return found

    def kill_operator(self) -> None:
        """With SIGKILL; nobody but its supervisor sees to it that another answers soon."""
        before, state = operator_process.operators(self.state().instance), self.state()
        assert len(before) == 1
        before[0].kill()
        before[0].wait(RESTART_S)
        host, port = state.api.rpartition("//")[2].rsplit(":", 1)
        ends = time.monotonic() + RESTART_S
        while True:
            assert time.monotonic() < ends, "no other operator answers"
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        assert len(operator_process.operators(state.instance)) == 1
        assert self.state() == state

    def wait_for(self, *states: str) -> dict[str, Any]:
        ends = time.monotonic() + DEADLINE_S
        while (found := self.release())["state"] not in states:
            assert time.monotonic() < ends, self.run("release", "status", "sentiment")
            assert not found["ended_at"], self.run("release", "explain", "sentiment")
            time.sleep(1.0)  # each question is a process, which takes from what is asked about
        return found


class Stream:
    """Produces until stopped; every record is accounted for at the end."""

    def __init__(self, platform: Platform) -> None:
        self.ledger = Ledger(platform.state().bootstrap_servers, PIPELINE)
        self._stop = threading.Event()
        self.flows = threading.Event()
        self.flows.set()
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def _produce(self) -> None:
        while not self._stop.wait(0.1):
            if not self.flows.is_set():
                continue
            self.ledger.produce(20, text=f"word {time.monotonic_ns()} was rather good")

    def end(self) -> Counter[str]:
        """Stop, and count the results by version."""
        self._stop.set()
        self._thread.join(10)
        self.ledger.wait_for_count(self.ledger.sent, deadline_s=60)
        self.ledger.assert_exactly_once()
        return Counter(r.header("bertstream-model") for r in self.ledger.received)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.ledger.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, sentiment: Artifact) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("releases"), sentiment.path)
    running.run("up", "--detach")
    instance = running.state().instance
    policy = running.folder / "policy.yaml"
    policy.write_text(POLICY)
    running.run("policy", "set", str(policy))
    try:
        yield running
    finally:
        running.run("down")
        assert not processes.marked(instance)


@pytest.fixture(scope="module")
def stream(platform: Platform) -> Iterator[Stream]:
    flowing = Stream(platform)
    yield flowing
    flowing.close()


def altered(source: Artifact, out: Path, change: Callable[[str, torch.Tensor], None]) -> Path:
    """The same model with other weights."""
    shutil.copytree(source.path, out, ignore=shutil.ignore_patterns(".cache", MANIFEST_FILE))
    weights = load_file(out / "model.safetensors")
    for name, weight in weights.items():
        change(name, weight)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    seal(out)
    return out


def test_a_version_goes_live_though_the_operator_is_killed_on_the_way(
    platform: Platform, stream: Stream, sentiment: Artifact
) -> None:
    def hardly(_name: str, weight: torch.Tensor) -> None:
        weight.add_(1e-6)

    directory = altered(sentiment, platform.folder / "good", hardly)
    assert "sentiment@2" in platform.run("models", "register", "sentiment", str(directory))
    stream.flows.clear()  # a step that has no records waits for them
    platform.run("release", "start", "sentiment@2", "--note", "less noise")
    assert "already" not in platform.run("release", "history", "sentiment")
    refused = platform.run("release", "start", "sentiment@2", code=1)
    assert "is" in refused
    assert "abort" in refused
    platform.wait_for("shadow", "canary")
    platform.kill_operator()
    stream.flows.set()
    platform.wait_for("live")
    assert "operator.restart" in platform.run("ledger")
    told = platform.run("release", "explain", "sentiment")
    assert "sentiment@2 is live" in told
    platform.run("ledger", "verify")


def test_a_version_that_answers_otherwise_is_taken_back_by_itself(
    platform: Platform, stream: Stream, sentiment: Artifact
) -> None:
    def turned_round(name: str, weight: torch.Tensor) -> None:
        if name.startswith("classifier"):
            weight.neg_()

    directory = altered(sentiment, platform.folder / "bad", turned_round)
    platform.run("models", "register", "sentiment", str(directory))
    shown = platform.run("release", "start", "sentiment@3", "--watch", code=1)
    assert "rolled_back" in shown
    assert "agreement" in platform.run("release", "explain", "sentiment")


def test_a_person_takes_the_live_version_back(platform: Platform, stream: Stream) -> None:
    platform.run("rollback", "sentiment", "--reason", "customers complain")
    assert platform.wait_for("live")["version"] == 1
    # The live version is the first one now, and nothing stands before it.
    assert "no earlier version" in platform.run("rollback", "sentiment", code=1)


def test_nothing_was_lost_doubled_or_reordered_by_any_of_it(
    platform: Platform, stream: Stream
) -> None:
    # Results of the version that was gone back to, on top of all.
    counts = stream.end()
    assert counts["sentiment@1"] > 100
    assert counts["sentiment@2"] > 100
    assert counts["sentiment@3"] == 0
