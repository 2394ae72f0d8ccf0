"""Owns what `up` sees to on the brokers before anything reads or writes: topics and groups."""

from __future__ import annotations

from collections.abc import Sequence

from stream.admin import Admin, pipeline_topics, platform_topics
from stream.settings import PipelineSettings


def ensure_topics(admin: Admin, pipelines: Sequence[PipelineSettings]) -> list[str]:
    """Create the topics that are missing, and check all that are written to.

    Returns:
        Names of those that were created.
    Raises:
        TopicMissing: Of a pipeline that does not create its topics.
        TopicUnfit: What a pipeline writes would be refused there.
    """
    wanted = platform_topics()
    for pipeline in pipelines:
        if pipeline.create_topics:
            wanted |= pipeline_topics(pipeline)
        else:
            admin.require_topics([*pipeline_topics(pipeline)])
    created = admin.ensure_topics(wanted)
    for pipeline in pipelines:
        admin.limits(pipeline)
    return created
