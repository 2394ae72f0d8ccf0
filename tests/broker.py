"""Brokers for tests: one for the whole session, private ones, and one behind TLS and login.

``BERTSTREAM_TEST_BOOTSTRAP`` names a plaintext broker to use for the shared one instead.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from kafka import KafkaAdminClient

from ops.embedded_kafka.broker import EmbeddedBroker
from ops.embedded_kafka.broker_config import BrokerSettings, BrokerUser
from stream.settings import KafkaSettings
from tests.certificates import write_certificates

EXTERNAL = "BERTSTREAM_TEST_BOOTSTRAP"
START_DEADLINE_S = 60.0

NewTopic = Callable[..., str]


class Broker(NamedTuple):
    """A broker that answers.

    Attributes:
        bootstrap_servers: Its address.
        kafka: The same with login and TLS, as programs are configured.
        embedded: To stop, kill and start it; None for an external one.
    """

    bootstrap_servers: str
    kafka: KafkaSettings
    embedded: EmbeddedBroker | None

    @property
    def process(self) -> EmbeddedBroker:
        """The embedded broker itself."""
        assert self.embedded is not None, f"{EXTERNAL} names a broker that is not ours"
        return self.embedded

    def create_topic(self, name: str, *, partitions: int = 1, **configs: str) -> str:
        """Create a topic and wait until it can be used; returns its name.

        Args:
            name: Of the topic.
            partitions: How many.
            configs: Of the topic, with ``_`` for ``.``: ``cleanup_policy="compact"``.
        """
        topic: dict[str, Any] = {
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": {key.replace("_", "."): value for key, value in configs.items()},
        }
        admin = KafkaAdminClient(**self.kafka.client_options())
        try:
            admin.create_topics({name: topic}, wait_for_metadata=True)
        finally:
            admin.close()
        return name


@contextmanager
def running_broker(settings: BrokerSettings) -> Iterator[Broker]:
    """Run an embedded broker; afterwards nothing of it is left running, whatever happened."""
    embedded = EmbeddedBroker(settings)
    try:
        servers = embedded.start(START_DEADLINE_S)
        yield Broker(servers, _client_settings(settings, servers), embedded)
    finally:
        embedded.stop()
        assert not processes_of(settings.data_dir)


def processes_of(data_dir: Path) -> list[int]:
    """Pids of all processes that have the directory on their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if any(str(data_dir) in part for part in process.info["cmdline"] or ()):
            found.append(process.info["pid"])
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's broker. Shared: take new topic names and group ids, never stop it."""
    external = os.environ.get(EXTERNAL)
    if external:
        yield Broker(external, KafkaSettings(bootstrap_servers=external), embedded=None)
        return
    with running_broker(BrokerSettings(data_dir=tmp_path_factory.mktemp("broker"))) as shared:
        yield shared


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that the test may stop, kill and start again."""
    with running_broker(BrokerSettings(data_dir=tmp_path / "own-broker")) as own:
        yield own


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A shared broker that wants TLS and a SCRAM-SHA-512 login."""
    folder = tmp_path_factory.mktemp("secure-broker")
    certificates = write_certificates(folder)
    settings = BrokerSettings(
        data_dir=folder / "data",
        security="sasl_ssl",
        users=(BrokerUser(name="app", password="app-secret-1"),),
        keystore_file=certificates.keystore,
        ca_file=certificates.ca,
    )
    with running_broker(settings) as secure:
        yield secure


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> NewTopic:
    """A maker of names that no other test has: ``topic_name("input")``."""
    test = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60].strip("-")
    run, numbers = uuid.uuid4().hex[:8], itertools.count(1)
    return lambda purpose="topic": f"{purpose}-{test}-{run}-{next(numbers)}"


def _client_settings(settings: BrokerSettings, servers: str) -> KafkaSettings:
    if settings.security == "plaintext":
        return KafkaSettings(bootstrap_servers=servers)
    user = settings.users[0]
    return KafkaSettings(
        bootstrap_servers=servers,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=user.name,
        sasl_password=user.password,
        ssl_cafile=settings.ca_file,
    )
