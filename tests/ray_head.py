"""Ray heads for tests: one that the whole run shares, and others beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ops.config.settings import RaySettings
from ops.platform import ray_head
from ops.platform.ray_head import RayHead


class Running(NamedTuple):
    """A head that answers.

    Attributes:
        instance: Its mark.
        state_dir: Where its token and its log lie.
    """

    instance: str
    state_dir: Path
    head: RayHead

    @property
    def environment(self) -> dict[str, str]:
        """What drivers must have in their environment."""
        return ray_head.environment(self.state_dir, self.instance)


def instance(folder: Path) -> str:
    """The mark of the head whose state lies in a folder."""
    return f"test-{os.getpid()}-{folder.name}"


def start(folder: Path) -> Running:
    """Start one; whoever does ends it by its mark, also if this fails."""
    folder.mkdir()
    settings = RaySettings(num_cpus=2, object_store_mb=80)
    return Running(instance(folder), folder, ray_head.start(settings, folder, instance(folder)))


@pytest.fixture(scope="session")
def shared_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that want any cluster and leave it empty: a start takes seconds of both cores."""
    folder = tmp_path_factory.mktemp("ray") / "shared"
    try:
        yield start(folder)
    finally:
        assert ray_head.stop(instance(folder)) == []
