"""The state of an installation (``state.json``), access to its Ray and Kafka, and its lock.

One ``up`` or ``down`` at a time locks the state directory; reading the state needs no lock.
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
    """Facts about an installation that later commands need; ``state.json``.

    Attributes:
        instance: Mark of everything that this installation starts.
        bootstrap_servers: Address of the brokers in use.
        head: The installation's own Ray head; None if a running cluster was joined.
        address: Address of the Ray cluster.
        dashboard: URL of its dashboard.
        apps: Digest of the settings of each running app, by name.
        operator_pid: Process id of the operator's supervisor; None if none was started.
        operator_config: Digest of the operator's configuration.
        api: URL of the operator's control API.
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
        """Read the state; None if there is none."""
        path = state_dir / STATE_FILE
        return cls.model_validate_json(path.read_bytes()) if path.exists() else None

    def save(self, state_dir: Path) -> None:
        """Write the state atomically."""
        replace_file(state_dir / STATE_FILE, self.model_dump_json(indent=2))

    def kafka(self, settings: KafkaSettings) -> KafkaSettings:
        """Return the Kafka settings with the address that is actually in use."""
        return settings.model_copy(update={"bootstrap_servers": self.bootstrap_servers})


def connection(state_dir: Path, state: PlatformState) -> Cluster:
    """Connect to the platform's Ray cluster as a driver."""
    return Cluster(state.address, environment(state_dir, state))


def environment(state_dir: Path, state: PlatformState) -> dict[str, str]:
    """Return the environment variables that drivers need; none for a joined cluster."""
    return ray_head.environment(state_dir, state.instance) if state.head else {}


def token_path(state_dir: Path, state: PlatformState) -> Path | None:
    """Return the path of the cluster's token; None for a joined cluster."""
    return ray_head.token_file(state_dir) if state.head else None


def logs(state_dir: Path) -> Path | None:
    """Return the folder of consumers' and replicas' logs: Ray's own, or what was kept of it.

    None if there is neither, or if a joined cluster has the logs."""
    state = PlatformState.load(state_dir)
    if state is not None and state.head is not None:
        return ray_head.logs(state.instance)
    kept = state_dir / KEPT
    return kept if state is None and kept.is_dir() else None


def embedded_broker(state_dir: Path) -> EmbeddedBroker:
    """Return the embedded Kafka of an installation, running or not."""
    # This imports a download library, which the operator does not need.
    from ops.embedded_kafka.broker import EmbeddedBroker
    from ops.embedded_kafka.broker_config import BrokerSettings

    return EmbeddedBroker(BrokerSettings(data_dir=(state_dir / "kafka").resolve()))


def is_at_work(state_dir: Path) -> bool:
    """Return whether ``up`` or ``down`` is working on a state directory."""
    try:
        with alone(state_dir):
            return False
    except Busy:
        return True


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Lock the state directory for one ``up`` or ``down``."""
    with (state_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise Busy(f"another bertstream is using {state_dir}; wait until it is done") from exc
        yield
