"""A Ray head of our own: on loopback, behind a token, beside others, and ended whole."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.config.settings import RaySettings
from ops.errors import ClusterStartFailed, NotRunning
from ops.platform import ray_head
from ops.processes import children as processes
from ops.serving.cluster import applications
from tests.integration.harness import wait_until
from tests.ray_head import Running, instance
from tests.ray_head import start as start_head

# The head outlives whoever started it, and is ended by others.
outlived = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def session(running: Running) -> list[str]:
    """Names of living processes of the session that a head leads, titled or not."""
    return [p.name() for p in psutil.process_iter() if _is_in_session(p, running.head.pid)]


def _is_in_session(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getsid(process.pid) == leader and processes.is_alive(process)
    except (OSError, psutil.Error):
        return False


@pytest.fixture(scope="module")
def heads(
    tmp_path_factory: pytest.TempPathFactory, shared_head: Running
) -> Iterator[tuple[Running, Running]]:
    """One of this module's own, and another beside it."""
    folder = tmp_path_factory.mktemp("heads") / "own"
    started = None
    try:
        started = start_head(folder)
        yield started, shared_head
    finally:
        assert ray_head.stop(instance(folder)) == []
        if started is not None:
            wait_until(lambda: session(started) == [], "the end of its session")


@outlived
@pytest.mark.ray
def test_head_listens_on_loopback_alone(heads: tuple[Running, Running]) -> None:
    ours = processes.using(ray_head.temporary_folder(heads[0].instance))
    addresses = {
        connection.laddr.ip
        for process in ours
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.ray
def test_api_answers_to_the_token_and_to_nothing_else(heads: tuple[Running, Running]) -> None:
    one, other = heads
    token = ray_head.token_file(one.state_dir)
    assert token.stat().st_mode & 0o777 == 0o600
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{one.head.dashboard}/api/serve/applications/", timeout=10)
    assert applications(one.head.dashboard, token) == {}
    with pytest.raises(NotRunning):
        applications(other.head.dashboard, token)


@pytest.mark.ray
def test_what_a_killed_head_leaves_is_ended_and_another_cluster_goes_on(
    heads: tuple[Running, Running],
) -> None:
    one, other = heads
    os.kill(one.head.pid, signal.SIGKILL)
    assert session(one)
    assert ray_head.stop(one.instance) == []
    # A process that ends has no files and no environment any more, for a moment.
    wait_until(lambda: session(one) == [], "the end of its session")
    assert processes.marked(one.instance) == []
    assert not ray_head.temporary_folder(one.instance).exists()
    assert not ray_head.is_running(one.head)
    assert ray_head.is_running(other.head)


def test_taken_dashboard_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterStartFailed, match=rf"{port}.*ray\.dashboard_port"):
            ray_head.start(RaySettings(dashboard_port=port), tmp_path, "test-port")


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `ray start` notes its cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_cluster_of_somebody_else_is_found_while_it_listens(noted: Path) -> None:
    assert ray_head.running_elsewhere() is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        noted.write_text(address)
        assert ray_head.running_elsewhere() == address
    assert ray_head.running_elsewhere() is None


def test_cluster_that_the_environment_names_goes_before(
    noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted.write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "ray.example.com:6379")
    assert ray_head.running_elsewhere() == "ray.example.com:6379"
