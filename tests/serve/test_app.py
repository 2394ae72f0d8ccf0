from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve as ray_serve

from serve.app import MAX_ENGINE_FAILURES, ReplicaServer, build_app
from serve.artifact import CARD_FILE, Artifact
from serve.contract import Answer, BatchReply, CallOptions, Failure, app_name
from serve.errors import EngineError
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings

TEXT = CallOptions(format="text")
CALL_DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this module's own; its sockets need a short path."""
    directory = tempfile.mkdtemp(prefix="bs-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        _temp_dir=directory,
    )
    ray_serve.start(proxy_location="Disabled")
    yield
    ray_serve.shutdown()
    ray.shutdown()
    shutil.rmtree(directory, ignore_errors=True)


def settings(artifact: Artifact, **changes: Any) -> ModelSettings:
    fields = {"name": "sentiment", "version": "3", "num_cpus": 0.5, "path": artifact.path}
    return ModelSettings(**{**fields, "engine": EngineSettings(threads=1), **changes})


def start(wanted: ModelSettings) -> Any:
    name = app_name(wanted.name, wanted.version)
    return ray_serve.run(build_app(wanted), name=name, route_prefix=None)


@pytest.fixture(scope="module")
def handle(cluster: None, sentiment: Artifact) -> Any:
    Replica(settings(sentiment)).close()  # converts it, here where torch is loaded already
    return start(settings(sentiment))


def call(handle: Any, values: list[bytes]) -> BatchReply:
    reply: BatchReply = handle.predict.remote(values, TEXT).result(timeout_s=CALL_DEADLINE_S)
    return reply


def test_app_is_named_after_model_and_version() -> None:
    assert app_name("sentiment", "3") == "sentiment@3"


@pytest.mark.ray
def test_replica_answers_over_a_handle(handle: Any, sentiment: Artifact) -> None:
    reply = call(handle, [b"fine", b" "])

    assert isinstance(reply.outcomes[0], Answer)
    assert isinstance(reply.outcomes[1], Failure)
    assert reply.digest == sentiment.digest
    info = handle.info.remote().result(timeout_s=CALL_DEADLINE_S)
    assert (info.model, info.version, info.digest) == ("sentiment", "3", sentiment.digest)


@pytest.mark.ray
def test_calls_of_several_threads_do_not_mix(handle: Any) -> None:
    texts = [b"text number %d" % number for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda text: call(handle, [text] * 3), texts))

    alone = call(handle, texts).outcomes
    for reply, expected in zip(replies, alone, strict=True):
        assert reply.outcomes == [expected] * 3


@pytest.mark.ray
def test_two_versions_stand_side_by_side(handle: Any, sentiment: Artifact) -> None:
    other = start(settings(sentiment, version="4", engine=EngineSettings(kind="echo")))
    try:
        assert call(other, [b"fine"]).outcomes[0] != call(handle, [b"fine"]).outcomes[0]
        assert {"sentiment@3", "sentiment@4"} <= ray_serve.status().applications.keys()
    finally:
        ray_serve.delete("sentiment@4")


@pytest.mark.ray
def test_altered_model_never_runs(cluster: None, sentiment: Artifact, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sentiment.path, tmp_path / "model"))
    (path / CARD_FILE).write_bytes((path / CARD_FILE).read_bytes() + b" ")

    with pytest.raises(RuntimeError, match="failed"):
        start(settings(sentiment, version="altered", path=path))
    status = ray_serve.status().applications["sentiment@altered"]
    assert "ArtifactAltered" in status.deployments["replica"].message
    ray_serve.delete("sentiment@altered")


@pytest.mark.model
def test_health_fails_when_the_engine_only_fails(
    sentiment: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ReplicaServer(settings(sentiment))
    works = Replica.predict

    def fail(self: Replica, values: list[bytes], options: CallOptions) -> BatchReply:
        raise EngineError("out of memory")

    def fail_often(times: int) -> None:
        monkeypatch.setattr(Replica, "predict", fail)
        for _ in range(times):
            with pytest.raises(EngineError):
                server.predict([b"fine"], TEXT)
        monkeypatch.setattr(Replica, "predict", works)

    fail_often(MAX_ENGINE_FAILURES - 1)
    server.predict([b"fine"], TEXT)
    fail_often(MAX_ENGINE_FAILURES - 1)
    server.check_health()
    fail_often(1)
    with pytest.raises(EngineError, match="5 times in a row"):
        server.check_health()


@pytest.mark.model
def test_actor_is_given_what_the_settings_reserve(sentiment: Artifact) -> None:
    wanted = settings(sentiment, replicas=2, num_cpus=1.5, max_ongoing_calls=4)
    deployment = build_app(wanted)._bound_deployment

    assert deployment.num_replicas == 2
    assert deployment.max_ongoing_requests == 4
    options = deployment.ray_actor_options
    assert (options["num_cpus"], options["num_gpus"]) == (1.5, 0)
    assert options["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": "1"}
