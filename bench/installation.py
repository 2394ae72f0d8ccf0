"""A private platform for one benchmark: started with ``up`` and always taken down."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from ops.config.settings import PlatformConfig, RaySettings
from ops.embedded_kafka.broker import EmbeddedBroker
from ops.platform import bring_up
from ops.platform.installation import PlatformState, embedded_broker, token_path
from ops.processes.children import MARK
from ops.serving.cluster import applications
from serve.artifact import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelCard,
    seal,
    write_card,
)
from serve.contract import app_name
from serve.settings import EngineSettings, ModelSettings
from serve.tasks.text_classification import ClassificationHead
from stream.kafka.admin import Admin
from stream.settings import KafkaSettings, PipelineSettings
from stream.topics import pipeline_topics

Say = Callable[[str], None]


def model_without_weights(path: Path) -> Path:
    """Write and seal a model directory that no engine can load."""
    for name in (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE):
        (path / name).touch()
    card = ModelCard(
        task="text-classification",
        head=ClassificationHead(labels=("ECHO",), problem_type="single_label"),
        max_length=512,
    )
    write_card(path, card)
    seal(path)
    return path


def echo_model(path: Path) -> ModelSettings:
    """Return settings of the model ``echo``, which computes nothing, for any model directory."""
    return ModelSettings(name="echo", path=path, engine=EngineSettings(kind="echo"), num_cpus=0.25)


class Installation:
    """A platform in its own directory; the first ``run`` starts Kafka and Ray."""

    def __init__(self, state_dir: Path, models: tuple[ModelSettings, ...], say: Say) -> None:
        self._state_dir = state_dir
        self._models = models
        self._say = say
        self._state = PlatformState(instance="")

    def run(self, *pipelines: PipelineSettings) -> None:
        """Run exactly these pipelines; the models stay as they are."""
        config = PlatformConfig(
            models=self._models,
            pipelines=pipelines,
            ray=RaySettings(address="local", num_cpus=max(4, os.cpu_count() or 1)),
            # Measure one replica and one consumer at any backlog, without an operator, which would
            # restart at every change of the pipelines.
            scaling=None,
            operator=False,
            state_dir=self._state_dir,
        )
        self._state = bring_up.up(config, self._say)

    def create_topics(self, pipeline: PipelineSettings) -> None:
        """Create a pipeline's topics, so that they can be filled before it runs."""
        with Admin(KafkaSettings(bootstrap_servers=self.bootstrap_servers)) as admin:
            admin.ensure_topics(pipeline_topics(pipeline))

    @property
    def bootstrap_servers(self) -> str:
        """Address of the embedded Kafka."""
        return self._state.bootstrap_servers

    @property
    def broker(self) -> EmbeddedBroker:
        """The embedded Kafka, to stop, kill and start it."""
        return embedded_broker(self._state_dir)

    def pids_of_pipeline(self, pipeline: PipelineSettings) -> list[int]:
        """Return the process ids of a pipeline's consumers, as reported by Ray's API."""
        return self._pids(pipeline.app_name)

    def pids_of_model(self, name: str) -> list[int]:
        """Return the process ids of the replicas of a model's first version."""
        return self._pids(app_name(name, "1"))

    def rss_mb(self, pids: list[int]) -> float:
        """Return the total memory of the processes, in 10^6 bytes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6

    def kill(self, pid: int) -> None:
        """Kill a process with SIGKILL, which looks like a crash.

        Raises:
            RuntimeError: The process does not belong to this installation.
        """
        if psutil.Process(pid).environ().get(MARK) != self._state.instance:
            raise RuntimeError(f"process {pid} does not belong to this installation")
        os.kill(pid, signal.SIGKILL)

    def _pids(self, app: str) -> list[int]:
        token = token_path(self._state_dir, self._state)
        return replica_pids(applications(self._state.dashboard, token).get(app, {}))


def replica_pids(app: dict[str, Any]) -> list[int]:
    """Return the pids of an app's running replicas, from Ray's description of the app."""
    return [
        int(replica["pid"])
        for deployment in app.get("deployments", {}).values()
        for replica in deployment.get("replicas", ())
        if replica.get("state") == "RUNNING" and replica.get("pid")
    ]


@contextmanager
def installation(models: tuple[ModelSettings, ...], say: Say) -> Iterator[Installation]:
    """Start a platform with these models and no pipeline; always take it down afterwards."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="bertstream-bench-") as directory:
            state_dir = Path(directory)
            try:
                running = Installation(state_dir, models, say)
                running.run()
                yield running
            finally:
                bring_up.down(state_dir, say)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
