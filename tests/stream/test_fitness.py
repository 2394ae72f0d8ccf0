"""Settings by which a topic refuses what is written there."""

from __future__ import annotations

import pytest

from stream.fitness import TopicState, faults, purposes
from stream.settings import PipelineSettings

PIPELINE = PipelineSettings(name="p", model="m", input_topics=("in",), output_topic="out")
GOOD: dict[str, str | None] = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.after.max.ms": "3600000",
    "min.insync.replicas": "1",
}


def found(topic: str, **changes: str | None) -> list[str]:
    settings = GOOD | {name.replace("_", "."): value for name, value in changes.items()}
    purpose = purposes(PIPELINE, ("bertstream.telemetry",))[topic]
    state = TopicState(settings, replicas=2)
    return [*faults(topic, purpose, state, delivery_timeout_ms=PIPELINE.delivery_timeout_ms)]


TOPICS = ["out", "out.dead-letters", "bertstream.telemetry"]


@pytest.mark.parametrize("topic", TOPICS)
def test_the_usual_settings_are_fit(topic: str) -> None:
    assert found(topic) == []
    assert found(topic, min_insync_replicas="2") == []
    assert found(topic, message_timestamp_before_max_ms="10000") == []
    # A setting that these brokers do not know yet, or no longer.
    assert found(topic, message_timestamp_after_max_ms=None) == []


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("max.message.bytes", "1000"),
        ("message.timestamp.before.max.ms", "9999"),
        ("message.timestamp.after.max.ms", "0"),
        ("message.timestamp.difference.max.ms", "1000"),
        ("min.insync.replicas", "3"),
    ],
)
def test_each_fault_names_topic_value_and_remedy(topic: str, setting: str, value: str) -> None:
    (fault,) = found(topic, **{setting: value})
    assert fault.startswith(f"topic {topic} is for ")
    assert f"{setting}={value}" in fault
    assert f"--entity-name {topic} --add-config {setting}=" in fault


def test_a_topic_with_a_setting_of_its_own_can_be_exchanged() -> None:
    (fault,) = found("out.dead-letters", cleanup_policy="compact")
    assert "Name another topic (dead_letter_topic), or" in fault
    (fault,) = found("bertstream.telemetry", cleanup_policy="compact")
    assert "Name another" not in fault


def test_the_time_of_a_record_does_not_matter_where_the_broker_sets_it() -> None:
    late = {"message.timestamp.before.max.ms": "1"}
    assert found("out", message_timestamp_type="LogAppendTime", **late) == []


def test_results_may_be_smaller_than_dead_letters() -> None:
    assert found("out", max_message_bytes="8000") == []
    assert len(found("out.dead-letters", max_message_bytes="8000")) == 1
