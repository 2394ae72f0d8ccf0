"""Configures the embedded Kafka: its settings, its properties file, its command line.

The values suit one broker alongside other work on a laptop: little memory whatever the backlog,
low latency, bounded disk usage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from ops.processes.ports import HOST
from serve.settings import Settings

SCRAM = "SCRAM-SHA-512"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"
# Direct buffers, class metadata and compiled code outside the heap; without these limits they
# grow with the number of clients.
DIRECT_MEMORY_MB = 64
METASPACE_MB = 96
CODE_CACHE_MB = 48
# Loggers at level INFO: what started, stopped, joined, left or was fenced. All others log only
# warnings, as Kafka's INFO lines are 500 for each start.
NEWS = (
    "kafka.server.KafkaRaftServer",
    "kafka.server.BrokerServer",
    "kafka.coordinator.transaction.TransactionCoordinator",
    "org.apache.kafka.coordinator.group",
)

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node: nothing to replicate to.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Each partition costs files, an index in memory and time at start.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # A topic created automatically for a mistyped name has one partition and hides the mistake.
    "auto.create.topics.enable": "false",
    # A killed broker can register again only when its previous session has expired (9 s by
    # default); late heartbeats only fence it until the next one.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    # Latency: do not wait for further members to join or for coordinator writes to batch.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.coordinator.append.linger.ms": "0",
    # Threads: the default of 8 + 3 + 10 is for a server with as many cores.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
    # Memory: the cleaner's map is allocated on the heap at start, 128 MB by default.
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.cleaner.io.buffer.size": "131072",
    # Queued requests are on the heap: many clients with large ones would fill it.
    "socket.request.max.bytes": "33554432",
    "queued.max.request.bytes": "50331648",
    "log.index.size.max.bytes": "2097152",
    # Disk: small segments, so that data above the limit is really deleted. By size only: age is
    # counted from a record's own time, so old events would be deleted before they are read.
    "log.segment.bytes": "67108864",
    "log.retention.bytes": "1073741824",
    "log.retention.ms": "-1",
    # A group that is away for a while must not lose its offsets while records stay: ten years.
    "offsets.retention.minutes": "5256000",
    # An idle broker writes a record to its metadata log twice a second by default.
    "metadata.max.idle.interval.ms": "5000",
}


class BrokerUser(Settings):
    """A client's login, SCRAM-SHA-512."""

    name: str = Field(pattern=r"^[a-zA-Z0-9._-]+$")
    password: SecretStr = Field(min_length=8)


class BrokerSettings(Settings):
    """The embedded broker.

    Attributes:
        data_dir: Directory of all its files, created if missing. One broker per directory.
        port: Port for clients; 0 chooses a free one at the first start, kept in ``data_dir``.
        security: ``plaintext``, or ``sasl_ssl``: TLS and login by SCRAM-SHA-512.
        users: Logins, fixed at the first start; the broker itself uses the first.
        keystore_file: PEM: private key (PKCS 8), then the certificate chain; for ``sasl_ssl``.
        ca_file: PEM of the authority that signed it; for ``sasl_ssl``.
        heap_mb: Heap of the Java process, which needs about 200 MB in addition. Raise it only
            for very large requests or thousands of partitions.
    """

    data_dir: Path
    port: int = Field(default=0, ge=0, le=65_535)
    security: Literal["plaintext", "sasl_ssl"] = "plaintext"
    users: tuple[BrokerUser, ...] = ()
    keystore_file: Path | None = None
    ca_file: Path | None = None
    heap_mb: int = Field(default=192, ge=96)

    @model_validator(mode="after")
    def _sasl_ssl_is_complete(self) -> BrokerSettings:
        if self.security == "sasl_ssl" and not (self.users and self.keystore_file and self.ca_file):
            raise ValueError("sasl_ssl also needs users, keystore_file and ca_file")
        return self


def data_folder(settings: BrokerSettings) -> Path:
    """Return the folder of Kafka's own data."""
    return settings.data_dir.resolve() / "data"


def write_properties(
    path: Path, settings: BrokerSettings, *, port: int, controller_port: int
) -> None:
    """Write Kafka's configuration, readable by its owner only: it may contain a password."""
    name = "CLIENT"
    protocol = settings.security.upper()
    properties = {
        **PROPERTIES,
        "log.dirs": str(data_folder(settings)),
        "listeners": f"{name}://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"{name}://{HOST}:{port}",
        "listener.security.protocol.map": f"{name}:{protocol},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": name,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
    }
    if settings.security == "sasl_ssl":
        properties |= _sasl_ssl_properties(settings, listener=name)
    lines = (f"{key}={_escaped(value)}\n" for key, value in properties.items())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)


def scram_arguments(settings: BrokerSettings) -> list[str]:
    """Return arguments that make the storage tool create the users."""
    arguments = []
    for user in settings.users:
        password = user.password.get_secret_value()
        arguments += ["--add-scram", f"{SCRAM}=[name={user.name},password={password}]"]
    return arguments


def java_command(
    settings: BrokerSettings, java: Path, jars: Sequence[Path], *, main: str, arguments: list[str]
) -> list[str]:
    """Return the command line of a Kafka program, tuned for little memory and a quick start."""
    return [
        str(java),
        "-Xms64m",
        f"-Xmx{settings.heap_mb}m",
        # One small heap: the parallel collectors cost memory and threads, and the second
        # compiler costs more processor time at start than it saves here.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xss512k",
        f"-XX:MaxDirectMemorySize={DIRECT_MEMORY_MB}m",
        f"-XX:MaxMetaspaceSize={METASPACE_MB}m",
        f"-XX:ReservedCodeCacheSize={CODE_CACHE_MB}m",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *(f"-Dorg.slf4j.simpleLogger.log.{name}=info" for name in NEWS),
        "-cp",
        os.pathsep.join(str(jar) for jar in jars),
        main,
        *arguments,
    ]


def _sasl_ssl_properties(settings: BrokerSettings, *, listener: str) -> dict[str, str]:
    assert settings.keystore_file is not None  # ensured by the validator
    assert settings.ca_file is not None
    own = settings.users[0]
    login = f'{SCRAM_LOGIN} required username="{own.name}" password="{_quoted(own.password)}";'
    return {
        "sasl.enabled.mechanisms": SCRAM,
        "sasl.mechanism.inter.broker.protocol": SCRAM,
        f"listener.name.{listener.lower()}.{SCRAM.lower()}.sasl.jaas.config": login,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(settings.keystore_file.resolve()),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(settings.ca_file.resolve()),
        "ssl.enabled.protocols": "TLSv1.2,TLSv1.3",
    }


def _quoted(password: SecretStr) -> str:
    return password.get_secret_value().replace("\\", "\\\\").replace('"', '\\"')


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
