"""Checks whether the settings of a topic suit what is written to it, with remedies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from stream.settings import PipelineSettings

COMPACT: Final = "compact"
# A result of typical size; a larger one becomes a dead letter.
LEAST_RESULT_BYTES: Final = 1_024
# A dead letter without the input's value, key and headers.
LEAST_DEAD_LETTER_BYTES: Final = 8_192
# A window of telemetry with its labels.
LEAST_TELEMETRY_BYTES: Final = 65_536
_AT_MOST = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms")
_BEFORE_KAFKA_3_6 = "message.timestamp.difference.max.ms"


class Purpose(NamedTuple):
    """Purpose of a topic.

    Attributes:
        what: The purpose in words.
        instead: Setting that names another topic; empty if the topic's name is fixed.
        least_bytes: Minimum of ``max.message.bytes``.
    """

    what: str
    instead: str
    least_bytes: int


class TopicState(NamedTuple):
    """A topic as the brokers describe it.

    Attributes:
        settings: All settings in effect.
        replicas: Number of replicas of the partition that has the fewest.
    """

    settings: Mapping[str, str | None]
    replicas: int


def purposes(pipeline: PipelineSettings, telemetry: tuple[str, ...]) -> dict[str, Purpose]:
    """Return the purpose of each topic that a pipeline writes to in one transaction.

    Args:
        telemetry: Topics for metrics.
    """
    own = {topic: Purpose("telemetry", "", LEAST_TELEMETRY_BYTES) for topic in telemetry}
    of = f"of pipeline {pipeline.name}"
    return own | {
        pipeline.output_topic: Purpose(f"the results {of}", "output_topic", LEAST_RESULT_BYTES),
        pipeline.dead_letters: Purpose(
            f"the dead letters {of}", "dead_letter_topic", LEAST_DEAD_LETTER_BYTES
        ),
    }


def faults(
    topic: str, purpose: Purpose, state: TopicState, *, delivery_timeout_ms: int
) -> Iterator[str]:
    """Yield a sentence for each setting that makes brokers refuse or lose valid records.

    Args:
        delivery_timeout_ms: Maximum age of a record when it reaches the broker.
    """
    settings = state.settings
    if COMPACT in (settings.get("cleanup.policy") or ""):
        yield (
            f"topic {topic} is for {purpose.what} and has cleanup.policy="
            f"{settings['cleanup.policy']}: a record without a key is refused, and of several "
            f"records with one key only the last is kept. {_remedy(topic, purpose)} "
            "cleanup.policy=delete"
        )
    limit = _number(settings, "max.message.bytes")
    if limit is not None and limit < purpose.least_bytes:
        yield (
            f"topic {topic} is for {purpose.what} and has max.message.bytes={limit}, which a "
            f"record can exceed. {_remedy(topic, purpose)} max.message.bytes="
            f"{purpose.least_bytes} or more"
        )
    if settings.get("message.timestamp.type") != "LogAppendTime":
        for name in (*_AT_MOST, _BEFORE_KAFKA_3_6):
            bound = _number(settings, name)
            if bound is not None and bound < delivery_timeout_ms:
                yield (
                    f"topic {topic} is for {purpose.what} and has {name}={bound}: a record that "
                    f"takes longer to arrive is refused, and delivery_timeout_ms allows "
                    f"{delivery_timeout_ms}. {_remedy(topic, purpose)} "
                    f"{name}={delivery_timeout_ms} or more"
                )
    in_sync = _number(settings, "min.insync.replicas")
    if in_sync is not None and in_sync > state.replicas:
        yield (
            f"topic {topic} is for {purpose.what} and has min.insync.replicas={in_sync} with "
            f"{state.replicas} replicas: every record is refused. {_remedy(topic, purpose)} "
            f"min.insync.replicas={state.replicas} or less, or give it more replicas"
        )


def _remedy(topic: str, purpose: Purpose) -> str:
    other = f"Name another topic ({purpose.instead}), or " if purpose.instead else ""
    command = f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config"
    return f"{other}{'correct' if other else 'Correct'} the setting with {command}"


def _number(settings: Mapping[str, str | None], name: str) -> int | None:
    value = settings.get(name)
    return int(value) if value is not None else None
