"""What `up` finds on the brokers that is not as it must be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer

from ops.errors import GroupTaken
from ops.platform import kafka_setup
from ops.platform.kafka_setup import ensure_groups, ensure_topics
from stream.errors import BrokerUnreachable, TopicUnfit
from stream.kafka.admin import Admin
from stream.kafka.source import GroupSource
from stream.settings import PipelineSettings
from stream.topics import pipeline_topics
from tests.broker import Broker, NewTopic

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


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


@pytest.fixture
def pipeline(broker: Broker, topic_name: NewTopic) -> PipelineSettings:
    """With topics."""
    settings = PipelineSettings(
        name=topic_name("p").lower()[-40:].strip("-"),
        model="m",
        input_topics=(topic_name("input"),),
        output_topic=topic_name("output"),
        partitions=1,
        session_timeout_ms=6_000,
    )
    with Admin(broker.kafka) as admin:
        admin.ensure_topics(pipeline_topics(settings))
    return settings


@contextmanager
def another_application(
    broker: Broker, pipeline: PipelineSettings, **options: str
) -> Iterator[None]:
    """A consumer of librdkafka that has joined the pipeline's group."""
    client = {"bootstrap.servers": broker.bootstrap_servers, "client.id": "billing", "log_level": 0}
    consumer = Consumer(client | {"group.id": pipeline.name} | options)
    consumer.subscribe([*pipeline.input_topics])
    end = time.monotonic() + DEADLINE_S
    while not consumer.assignment():
        assert time.monotonic() < end, "it did not join"
        consumer.poll(0.1)
    try:
        yield
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({}, "billing at 127.0.0.1"),
        ({"group.instance.id": "worker-1"}, "worker-1 at 127.0.0.1"),
        ({"group.protocol": "consumer"}, "members of the consumer protocol"),
    ],
    ids=["usual", "static", "new protocol"],
)
@pytest.mark.parametrize("runs", [False, True])
def test_a_group_of_another_application_is_told_with_its_members(
    broker: Broker, pipeline: PipelineSettings, options: dict[str, str], who: str, runs: bool
) -> None:
    new, running = ([], [pipeline]) if runs else ([pipeline], [])
    with Admin(broker.kafka) as admin:
        told = f"another application .*{pipeline.name}.*{who}"
        with (
            another_application(broker, pipeline, **options),
            pytest.raises(GroupTaken, match=told),
        ):
            ensure_groups(admin, new, running)
        if "group.instance.id" not in options:
            ensure_groups(admin, new, running)


def member(broker: Broker, pipeline: PipelineSettings) -> GroupSource:
    """A consumer of a pipeline, that has joined."""
    source = GroupSource(broker.kafka, pipeline, rank=0, revoked=lambda gone, lost: None)
    end = time.monotonic() + DEADLINE_S
    try:
        while not source.assignment():
            assert time.monotonic() < end, "it did not join"
            source.poll(100)
    except BaseException:
        source.close()
        raise
    return source


def test_a_consumer_beside_another_application_says_so(
    broker: Broker, pipeline: PipelineSettings
) -> None:
    with (
        another_application(broker, pipeline),
        pytest.raises(BrokerUnreachable, match="another application is in the consumer group"),
    ):
        member(broker, pipeline)


def test_a_pipeline_of_another_installation_is_told(
    broker: Broker, pipeline: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_setup, "SESSION_GRACE_S", 0.0)
    source = member(broker, pipeline)
    hurried = pipeline.model_copy(update={"session_timeout_ms": 0})
    with Admin(broker.kafka) as admin:
        ensure_groups(admin, [], [pipeline])
        with pytest.raises(GroupTaken, match=rf"another installation .*{pipeline.name}-0 at 127"):
            ensure_groups(admin, [hurried], [])
    source.close()


def test_members_that_a_crash_left_are_waited_for(
    broker: Broker, pipeline: PipelineSettings
) -> None:
    member(broker, pipeline).close()  # static members stay until their session is over
    with Admin(broker.kafka) as admin:
        assert admin.groups([pipeline.name])[pipeline.name].is_in_use
        ensure_groups(admin, [pipeline], [])
        assert not admin.groups([pipeline.name])[pipeline.name].is_in_use
