"""What ``up`` reports of a configuration that runs, but not as meant, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.config.settings import PlatformConfig
from ops.errors import ConfigError
from ops.platform.bring_up import idle_consumers, up
from ops.platform.installation import PlatformState, embedded_broker
from serve.settings import ModelSettings
from stream.kafka.admin import Admin
from stream.settings import PipelineSettings
from tests.broker import Broker, NewTopic
from tests.ops.directories import make_directory


@pytest.mark.kafka
def test_consumers_without_a_partition_are_told(broker: Broker, topic_name: NewTopic) -> None:
    topics = tuple(broker.create_topic(topic_name(), partitions=n) for n in (1, 2))
    with Admin(broker.kafka) as admin:
        told = [
            idle_consumers(
                admin,
                PipelineSettings(
                    name="reviews",
                    model="m",
                    input_topics=topics,
                    output_topic="out",
                    consumers=consumers,
                ),
            )
            for consumers in (1, 3, 5)
        ]
    assert told[:2] == [None, None]
    assert told[2] is not None
    assert told[2].startswith("Pipeline reviews: 2 of its 5 consumers will be idle")
    assert "3 partitions" in told[2]


def test_pipeline_with_a_parameter_that_its_model_lacks_starts_nothing(tmp_path: Path) -> None:
    config = PlatformConfig(
        state_dir=tmp_path / "state",
        models=(ModelSettings(name="m", path=make_directory(tmp_path / "model")),),
        pipelines=(
            PipelineSettings(
                name="reviews",
                model="m",
                input_topics=("in",),
                output_topic="out",
                parameters={"topk": 3},
            ),
        ),
    )
    steps: list[str] = []
    with pytest.raises(ConfigError) as raised:
        up(config, steps.append)
    assert str(raised.value) == (
        "pipeline reviews does not fit m: parameters: text-classification: there is no topk; did "
        "you mean top_k?"
    )
    assert steps == ["Startup failed; stopping what was started"]
    assert PlatformState.load(config.state_dir) is None
    assert not embedded_broker(config.state_dir).is_running()
