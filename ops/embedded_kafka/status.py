"""How the embedded Kafka stands: address, process, memory, place."""

from __future__ import annotations

from pathlib import Path

import psutil

from ops.embedded_kafka.broker import EmbeddedBroker
from ops.errors import BrokerNotStarted
from serve.settings import Settings


class BrokerStatus(Settings):
    """What ``bertstream broker status`` shows.

    Attributes:
        running: Whether its process lives.
        bootstrap_servers: Its address; None before the first start.
        pid: Of its process; None when it does not run.
        memory_bytes: That its process holds of the machine's memory; None when it does not run.
        state_dir: Where its files lie.
    """

    running: bool
    bootstrap_servers: str | None
    pid: int | None
    memory_bytes: int | None
    state_dir: Path


def broker_status(embedded: EmbeddedBroker) -> BrokerStatus:
    """Look at the process as it is now."""
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
