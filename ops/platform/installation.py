"""What an installation must find again (``state.json``), its Ray and Kafka, who works on it.

One ``up`` or ``down`` at a time holds the state directory; whoever reads the state needs no leave.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ops.errors import Busy
from ops.platform import ray_head
from ops.platform.ray_head import RayHead
from ops.processes.log_files import KEPT
from ops.processes.state_file import replace_file
from ops.serving.cluster import Cluster
from stream.settings import KafkaSettings

if TYPE_CHECKING:
    from ops.embedded_kafka.broker import EmbeddedBroker

STATE_FILE = "state.json"


class PlatformState(BaseModel):
    """What must be found again; ``state.json``.

    Attributes:
        instance: Mark of everything that this installation starts.
        bootstrap_servers: Of the brokers in use.
        head: The own Ray head; None where a running cluster was joined.
        address: Of the Ray cluster.
        dashboard: URL of its dashboard.
        apps: Digest of the settings that each app runs with.
        operator_pid: Of the process that starts the operator, again and again where it dies;
            None where none was started.
        operator_config: Digest of the configuration that it was given.
        api: URL of its control API.
    """

    instance: str
    bootstrap_servers: str = ""
    head: RayHead | None = None
    address: str = ""
    dashboard: str = ""
    apps: dict[str, str] = {}
    operator_pid: int | None = None
    operator_config: str = ""
    api: str = ""

    @classmethod
    def load(cls, state_dir: Path) -> PlatformState | None:
        """Read it; None where there is none."""
        path = state_dir / STATE_FILE
        return cls.model_validate_json(path.read_bytes()) if path.exists() else None

    def save(self, state_dir: Path) -> None:
        """Write it, whole or not at all."""
        replace_file(state_dir / STATE_FILE, self.model_dump_json(indent=2))

    def kafka(self, settings: KafkaSettings) -> KafkaSettings:
        """The Kafka settings with the address that is really in use."""
        return settings.model_copy(update={"bootstrap_servers": self.bootstrap_servers})


def connection(state_dir: Path, state: PlatformState) -> Cluster:
    """Connect to the platform's Ray cluster as a driver."""
    return Cluster(state.address, environment(state_dir, state))


def environment(state_dir: Path, state: PlatformState) -> dict[str, str]:
    """What drivers need in their environment; nothing for a cluster that was joined."""
    return ray_head.environment(state_dir, state.instance) if state.head else {}


def token_path(state_dir: Path, state: PlatformState) -> Path | None:
    """Where the cluster's token lies; None for a cluster that was joined."""
    return ray_head.token_file(state_dir) if state.head else None


def logs(state_dir: Path) -> Path | None:
    """Where the logs of consumers and replicas are: Ray's own while it runs, what was kept of them
    when it does not; None where there are none, or another cluster has them."""
    state = PlatformState.load(state_dir)
    if state is not None and state.head is not None:
        return ray_head.logs(state.instance)
    kept = state_dir / KEPT
    return kept if state is None and kept.is_dir() else None


def embedded_broker(state_dir: Path) -> EmbeddedBroker:
    """The embedded Kafka of an installation, running or not."""
    # Brings its own way of fetching files, which the operator does not need.
    from ops.embedded_kafka.broker import EmbeddedBroker
    from ops.embedded_kafka.broker_config import BrokerSettings

    return EmbeddedBroker(BrokerSettings(data_dir=(state_dir / "kafka").resolve()))


def is_at_work(state_dir: Path) -> bool:
    """Whether ``up`` or ``down`` is under way on a state directory."""
    try:
        with alone(state_dir):
            return False
    except Busy:
        return True


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for one ``up`` or ``down`` at a time."""
    with (state_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise Busy(f"another bertstream is at work on {state_dir}; wait for it") from exc
        yield
