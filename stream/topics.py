"""Names of the topics of the platform and of pipelines, and their settings at creation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from stream.settings import PipelineSettings

TELEMETRY_TOPIC: Final = "bertstream.telemetry"
CONSUMERS_TOPIC: Final = "bertstream.consumers"
CONTROL_TOPIC: Final = "bertstream.control"
COMPARISONS_TOPIC: Final = "bertstream.comparisons"

# A dead letter is its input plus headers: its topic must accept more than the broker's default of
# 1,048,588 bytes, which the input alone may use up.
DEAD_LETTER_MAX_BYTES = 4 * 1024 * 1024
CONSUMERS_RETENTION_MS = 3600 * 1000
TELEMETRY_RETENTION_MS = 7 * 24 * 3600 * 1000


class TopicSpec(NamedTuple):
    """Settings with which a topic is created; an existing topic is not changed."""

    partitions: int
    configs: Mapping[str, str] = {}


def platform_topics() -> dict[str, TopicSpec]:
    """Return the topics that every installation has."""
    return {
        CONTROL_TOPIC: TopicSpec(1, {"cleanup.policy": "compact"}),
        CONSUMERS_TOPIC: TopicSpec(1, {"retention.ms": str(CONSUMERS_RETENTION_MS)}),
        COMPARISONS_TOPIC: TopicSpec(1, {"retention.ms": str(TELEMETRY_RETENTION_MS)}),
        TELEMETRY_TOPIC: TopicSpec(1, {"retention.ms": str(TELEMETRY_RETENTION_MS)}),
    }


def pipeline_topics(pipeline: PipelineSettings) -> dict[str, TopicSpec]:
    """Return the topics of one pipeline: its inputs, its results and its dead letters."""
    names = [*pipeline.input_topics, pipeline.output_topic]
    specs = {name: TopicSpec(pipeline.partitions) for name in names}
    large = {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)}
    return specs | {pipeline.dead_letters: TopicSpec(pipeline.partitions, large)}
