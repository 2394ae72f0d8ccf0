"""Starts, finds and ends the platform's own Ray head, on loopback and with a token.

It never touches another Ray on the machine: it has its own ports and its own temporary folder,
and what it starts carries the installation's mark.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import psutil

from ops.config.settings import RaySettings
from ops.errors import ClusterStartFailed
from ops.platform.supervisor import how
from ops.processes import children as processes
from ops.processes.log_files import keep, last_error
from ops.processes.ports import HOST, can_listen, free_port
from ops.processes.start_limits import Patience

logger = logging.getLogger(__name__)

START_DEADLINE_S = 90.0
POLL_S = 0.2
# In the state directory: the output of `ray start`.
LOG = "ray.log"
# Its line about which of Ray's processes ended, and how.
ENDED = re.compile(r"(\w+) \[exit code=(-?\d+)\]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# It gives Ray's processes 30 s, which cannot be configured: on a busy machine it is retried.
TOO_SLOW = "timed out during startup"
# The file in Ray's temporary folder to which `ray start` writes the cluster's address.
NOTE = "ray_current_cluster"
# Short: Ray has nothing to save, and its processes, terminated together, wait for each other.
GRACE_S = 1.0


class RayHead(NamedTuple):
    """Addresses and process of a running head.

    Attributes:
        address: Address of the cluster, for drivers.
        dashboard: URL of the dashboard and of the REST API.
        pid: Id of the process that started all others.
    """

    address: str
    dashboard: str
    pid: int


def token_file(state_dir: Path) -> Path:
    """Return the path of the cluster's token, which only its owner can read."""
    return state_dir / "ray-token"


def environment(state_dir: Path, instance: str) -> dict[str, str]:
    """Return the environment variables that the head, its workers and every driver need."""
    return {
        processes.MARK: instance,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(state_dir).resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's switch for "this machine only": everything listens on 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Size and number of the files of each log; by default half a gigabyte, six times.
        "RAY_ROTATION_MAX_BYTES": str(10 * 1024 * 1024),
        "RAY_ROTATION_BACKUP_COUNT": "2",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }


def start(settings: RaySettings, state_dir: Path, instance: str) -> RayHead:
    """Start a head and wait until its API answers.

    Args:
        instance: Mark of the installation; also names the temporary folder.
    Raises:
        ClusterStartFailed: Ray died or did not answer in time; names the cause and the log.
    """
    if settings.dashboard_port and not can_listen(settings.dashboard_port):
        raise ClusterStartFailed(
            f"port {settings.dashboard_port} of the dashboard is in use; set ray.dashboard_port to "
            "another, or to 0 for a free one"
        )
    _write_token(token_file(state_dir))
    patience = Patience(START_DEADLINE_S)
    while True:
        try:
            return _start_once(settings, state_dir, instance, patience)
        except ClusterStartFailed:
            stop(instance, state_dir)
            if TOO_SLOW not in (state_dir / LOG).read_text(errors="replace") or patience.is_over():
                raise


def _start_once(
    settings: RaySettings, state_dir: Path, instance: str, patience: Patience
) -> RayHead:
    port, client_port = free_port(), free_port()
    dashboard_port = settings.dashboard_port or free_port()
    log = state_dir / LOG
    with log.open("wb") as output:
        head = subprocess.Popen(
            _command(settings, instance, port, client_port, dashboard_port),
            env=_head_environment(state_dir, instance),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://{HOST}:{dashboard_port}"
    # Ray writes its address last, when its node runs.
    noted = temporary_folder(instance) / NOTE
    while not (noted.exists() and api_answers(url)):
        if head.poll() is not None:
            why = cause(log) or how(head.returncode)
            raise ClusterStartFailed(f"Ray exited during startup ({why}); its log is {log}")
        if patience.is_over():
            raise ClusterStartFailed(
                f"Ray did not answer within {patience}; its log is {log}. Try again when this "
                "machine is less busy"
            )
        time.sleep(POLL_S)
    return RayHead(f"{HOST}:{port}", url, head.pid)


def stop(instance: str, state_dir: Path | None = None) -> list[int]:
    """End an installation's head and everything it started, even after an incomplete start.

    Args:
        state_dir: Where the last part of each log is kept; None keeps nothing.
    Returns:
        Ids of processes that did not end; empty when all have ended.
    """
    folder = temporary_folder(instance)

    def ours() -> list[psutil.Process]:
        named = [p for p in processes.marked(instance) if str(folder) in _line(p)]
        return list({*named, *processes.using(folder)})

    left = processes.end(ours, grace_s=GRACE_S)
    if state_dir is not None:
        keep(logs(instance), state_dir)
    shutil.rmtree(folder, ignore_errors=True)
    return left


def running_elsewhere() -> str | None:
    """Return the address of a cluster that is not ours: RAY_ADDRESS, or noted by `ray start`.

    A noted address that no longer accepts connections is ignored.
    """
    if "RAY_ADDRESS" in os.environ:
        return os.environ["RAY_ADDRESS"]
    parent = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        address = (Path(parent) / "ray" / NOTE).read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2.0):
            return address
    except (OSError, ValueError):
        return None


def is_alive(head: RayHead) -> bool:
    """Return whether the head's process runs; it exits when one of Ray's processes does."""
    try:
        return processes.is_alive(psutil.Process(head.pid))
    except psutil.NoSuchProcess:
        return False


def is_running(head: RayHead) -> bool:
    """Return whether the head's process runs and its API answers."""
    return is_alive(head) and api_answers(head.dashboard)


def cause(log: Path) -> str:
    """Return why a head ended, by its log: its first process that ended, or the last error."""
    text = COLOUR.sub("", log.read_text(errors="replace")) if log.exists() else ""
    if ended := ENDED.search(text):
        return f"{ended[1]} ended: {how(int(ended[2]))}"
    return last_error(text)


def api_answers(url: str) -> bool:
    """Return whether the REST API answers, even if only to report that a token is missing."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=2.0):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def temporary_folder(instance: str) -> Path:
    """Return Ray's folder; short, as paths of sockets in it may have 107 characters at most."""
    name = hashlib.sha256(instance.encode()).hexdigest()[:10]
    return Path("/tmp") / f"bertstream-{name}"


def logs(instance: str) -> Path:
    """Return the folder of the logs of consumers, replicas and Ray's processes while it runs."""
    return temporary_folder(instance) / "session_latest" / "logs"


def _command(
    settings: RaySettings, instance: str, port: int, client_port: int, dashboard_port: int
) -> list[str]:
    # Run as a module of this interpreter, so that no other Ray on the PATH is used.
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--port={port}",
        f"--ray-client-server-port={client_port}",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={dashboard_port}",
        f"--temp-dir={temporary_folder(instance)}",
        f"--object-store-memory={settings.object_store_mb * 1024 * 1024}",
        # There is no autoscaler to monitor, and no driver that would print the workers' logs.
        "--no-monitor",
        "--include-log-monitor=false",
        # By default all clusters of a machine choose these from the same range.
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--dashboard-agent-listen-port=0",
        "--disable-usage-stats",
    ]
    if settings.num_cpus is not None:
        command.append(f"--num-cpus={settings.num_cpus:g}")
    if settings.num_gpus is not None:
        command.append(f"--num-gpus={settings.num_gpus:g}")
    return command


def _head_environment(state_dir: Path, instance: str) -> dict[str, str]:
    ours = os.environ | environment(state_dir, instance)
    ours.pop("RAY_ADDRESS", None)
    # Ray's default is the same port for all clusters of a machine.
    return ours | {"DASHBOARD_METRIC_PORT": str(free_port())}


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _write_token(path: Path) -> None:
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
