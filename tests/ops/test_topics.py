"""What `up` finds on the brokers that is not as it must be."""

from __future__ import annotations

import pytest

from ops.topics import ensure_topics
from stream.admin import Admin
from stream.errors import TopicUnfit
from stream.settings import PipelineSettings
from tests.broker import Broker, NewTopic

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("purpose", ["results", "dead letters"])
def test_a_compacted_topic_is_refused_with_its_name_and_the_remedy(
    broker: Broker, topic_name: NewTopic, purpose: str
) -> None:
    names = {kind: topic_name(kind.replace(" ", "-")) for kind in ("results", "dead letters")}
    topic = broker.create_topic(names[purpose], cleanup_policy="compact")
    pipeline = PipelineSettings(
        name="reviews",
        model="m",
        input_topics=(topic_name("input"),),
        output_topic=names["results"],
        dead_letter_topic=names["dead letters"],
    )
    with Admin(broker.kafka) as admin:
        with pytest.raises(TopicUnfit) as refused:
            ensure_topics(admin, [pipeline])
        told = str(refused.value)
        assert told.startswith(f"topic {topic} is for the {purpose} of pipeline reviews")
        assert told.endswith("cleanup.policy=delete")
        other = pipeline.model_copy(
            update={"output_topic": topic_name(), "dead_letter_topic": topic_name()}
        )
        created = ensure_topics(admin, [other])
    assert {other.output_topic, other.dead_letters} <= {*created}
