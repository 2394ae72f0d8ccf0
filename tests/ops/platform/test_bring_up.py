"""What ``up`` tells of a configuration that runs, but not as meant."""

from __future__ import annotations

import pytest

from ops.platform.bring_up import idle_consumers
from stream.kafka.admin import Admin
from stream.settings import PipelineSettings
from tests.broker import Broker, NewTopic

pytestmark = pytest.mark.kafka


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
