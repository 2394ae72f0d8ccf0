"""Owns what `up` sees to on the brokers before anything reads or writes: topics and groups."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ops.errors import GroupTaken
from stream.group import foreign
from stream.kafka.admin import Admin
from stream.settings import PipelineSettings
from stream.topics import pipeline_topics, platform_topics

# The group's coordinator looks for members whose session is over only now and then.
SESSION_GRACE_S = 5.0
LOOK_AGAIN_S = 0.5


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


def ensure_groups(
    admin: Admin, new: Sequence[PipelineSettings], running: Sequence[PipelineSettings]
) -> None:
    """Check that only a pipeline's own consumers read with its group.

    Args:
        new: Pipelines that this installation does not run yet: nobody may be in their groups.
            Members that a crash has left are waited for until their session is over.
        running: Those whose consumers may be there already.
    Raises:
        GroupTaken: Names those who are there.
    """
    for pipeline in (*new, *running):
        _refuse_foreign(admin, pipeline)
    for pipeline in new:
        _wait_until_left(admin, pipeline)


def _refuse_foreign(admin: Admin, pipeline: PipelineSettings) -> None:
    others = foreign(pipeline.name, admin.groups([pipeline.name])[pipeline.name])
    if others is not None:
        raise GroupTaken(
            f"another application uses consumer group {pipeline.name}, which is that of pipeline "
            f"{pipeline.name}: {others}. Give the pipeline another name, or end that application"
        )


def _wait_until_left(admin: Admin, pipeline: PipelineSettings) -> None:
    end = time.monotonic() + pipeline.session_timeout_ms / 1000 + SESSION_GRACE_S
    while (group := admin.groups([pipeline.name])[pipeline.name]).is_in_use:
        if time.monotonic() > end:
            members = ", ".join(map(str, group.members))
            raise GroupTaken(
                f"another installation runs a pipeline {pipeline.name} on these brokers; in its "
                f"consumer group are {members}. Both would stop each other: give this pipeline "
                "another name, or end the other with `bertstream down` where it was started"
            )
        time.sleep(LOOK_AGAIN_S)
