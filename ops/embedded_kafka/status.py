"""Reads the status of the embedded Kafka: address, process, memory, directory."""

from __future__ import annotations

from pathlib import Path

import psutil

from ops.embedded_kafka.broker import EmbeddedBroker
from ops.errors import BrokerNotStarted
from serve.settings import Settings


class BrokerStatus(Settings):
    """Output of ``bertstream broker status``.

    Attributes:
        running: Whether its process runs.
        bootstrap_servers: Its address; None before the first start.
        pid: Id of its process; None if it does not run.
        memory_bytes: Resident memory of its process; None if it does not run.
        state_dir: Directory of its files.
    """

    running: bool
    bootstrap_servers: str | None
    pid: int | None
    memory_bytes: int | None
    state_dir: Path


def broker_status(embedded: EmbeddedBroker) -> BrokerStatus:
    """Return the current status of the broker."""
    pid = embedded.pid
    try:
        servers = embedded.bootstrap_servers
    except BrokerNotStarted:
        servers = None
    try:
        memory = None if pid is None else psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:  # it ended just now
        pid = memory = None
    return BrokerStatus(
        running=pid is not None,
        bootstrap_servers=servers,
        pid=pid,
        memory_bytes=memory,
        state_dir=embedded.settings.data_dir,
    )
