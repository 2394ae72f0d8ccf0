"""Calls of a served model over Ray: its errors become those that the pipeline knows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest
import ray
from ray import serve as ray_serve

from serve.app import build_app
from serve.artifact import Artifact
from serve.contract import Answer
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from stream.client import ServeClient
from stream.errors import ModelUnavailable
from stream.settings import PipelineSettings

pytestmark = pytest.mark.ray

PIPELINE = PipelineSettings(
    name="reviews", model="sentiment", input_topics=("in",), output_topic="out", format="text"
)


@pytest.fixture(scope="module")
def served(sentiment: Artifact) -> Iterator[None]:
    """sentiment@3 on a Ray cluster of this module's own; its sockets need a short path."""
    engine = EngineSettings(threads=1)
    settings = ModelSettings(
        name="sentiment", version="3", num_cpus=0.5, path=sentiment.path, engine=engine
    )
    Replica(settings).close()  # converts it, here where torch is loaded already
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
    ray_serve.run(build_app(settings), name="sentiment@3", route_prefix=None)
    yield
    ray_serve.shutdown()
    ray.shutdown()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.usefixtures("served")
def test_parameters_of_the_pipeline_reach_the_model() -> None:
    client = ServeClient(PIPELINE.model_copy(update={"parameters": {"top_k": 2}}))
    (outcome,) = client.call("3", [b"fine"]).outcomes
    assert isinstance(outcome, Answer)
    assert outcome.result.count(b'"label"') == 2


@pytest.mark.usefixtures("served")
def test_model_without_a_parameter_is_waited_for_and_no_record_is_at_fault() -> None:
    client = ServeClient(PIPELINE.model_copy(update={"parameters": {"topk": 2}}))
    with pytest.raises(ModelUnavailable) as raised:
        client.call("3", [b"fine", b"bad"])
    assert str(raised.value) == (
        "sentiment@3 refuses the parameters: text-classification: there is no topk; did you mean "
        "top_k?"
    )


@pytest.mark.usefixtures("served")
def test_version_that_is_not_deployed_is_waited_for() -> None:
    with pytest.raises(ModelUnavailable, match="sentiment@4 is not deployed"):
        ServeClient(PIPELINE).call("4", [b"fine"])
