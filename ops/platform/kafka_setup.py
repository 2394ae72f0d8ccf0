"""Prepares topics and consumer groups on the brokers before anything reads or writes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ops.errors import GroupTaken
from stream.group import foreign
from stream.kafka.admin import Admin
from stream.settings import PipelineSettings
from stream.topics import pipeline_topics, platform_topics

# The group coordinator removes members with an expired session only periodically.
SESSION_GRACE_S = 5.0
POLL_S = 0.5


def ensure_topics(admin: Admin, pipelines: Sequence[PipelineSettings]) -> list[str]:
    """Create missing topics, and check all topics that are written to.

    Returns:
        Names of the topics that were created.
    Raises:
        TopicMissing: A pipeline that does not create its topics lacks one.
        TopicUnfit: A topic would refuse what a pipeline writes.
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


def ensure_groups(
    admin: Admin, new: Sequence[PipelineSettings], running: Sequence[PipelineSettings]
) -> None:
    """Check that only a pipeline's own consumers use its group.

    Args:
        new: Pipelines that this installation does not run yet: their groups must be empty. Waits
            until the sessions of members that a crash left behind have expired.
        running: Pipelines whose consumers may already be in their groups.
    Raises:
        GroupTaken: Other consumers use a group; the message names them.
    """
    for pipeline in (*new, *running):
        _refuse_foreign(admin, pipeline)
    for pipeline in new:
        _wait_until_left(admin, pipeline)


def _refuse_foreign(admin: Admin, pipeline: PipelineSettings) -> None:
    others = foreign(pipeline.name, admin.groups([pipeline.name])[pipeline.name])
    if others is not None:
        raise GroupTaken(
            f"another application uses consumer group {pipeline.name}, which belongs to pipeline "
            f"{pipeline.name}: {others}. Give the pipeline another name, or stop that application"
        )


def _wait_until_left(admin: Admin, pipeline: PipelineSettings) -> None:
    end = time.monotonic() + pipeline.session_timeout_ms / 1000 + SESSION_GRACE_S
    while (group := admin.groups([pipeline.name])[pipeline.name]).is_in_use:
        if time.monotonic() > end:
            members = ", ".join(map(str, group.members))
            raise GroupTaken(
                f"another installation runs a pipeline {pipeline.name} on these brokers; its "
                f"consumer group has {members}. They would stop each other: give this pipeline "
                "another name, or stop the other with `bertstream down` where it was started"
            )
        time.sleep(POLL_S)
