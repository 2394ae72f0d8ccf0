"""Settings of the Kafka connection and of pipelines. Frozen; read once from the YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, SecretStr, model_validator

from serve.contract import WINDOW_STRIDE, AppName, CallOptions, LongText
from serve.settings import NAME_PATTERN, Settings

TOPIC_PATTERN = r"^[a-zA-Z0-9._-]{1,249}$"


def secret_of(secret: SecretStr | None) -> str | None:
    """Return a secret in plain text."""
    return None if secret is None else secret.get_secret_value()


class KafkaSettings(Settings):
    """How to connect to the brokers; the names are the usual ones of Kafka clients.

    Attributes:
        bootstrap_servers: ``host:port``, several separated by commas; with ``embedded``,
            ``bertstream up`` starts its own broker on loopback.
        security_protocol: SSL and SASL_SSL need a broker certificate that the machine, or
            ``ssl_cafile``, trusts.
        sasl_mechanism: Required with SASL_*, as are ``sasl_username`` and ``sasl_password``.
        ssl_password: Pass phrase of ``ssl_keyfile``, if it has one.
        ssl_check_hostname: Disable only for a broker that is reached under another name.
    """

    bootstrap_servers: str = "embedded"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: SecretStr | None = None
    ssl_check_hostname: bool = True

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL"):
            wanted = {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_username": self.sasl_username,
                "sasl_password": self.sasl_password,
            }
            missing = [key for key, value in wanted.items() if value is None]
            if missing:
                raise ValueError(f"{self.security_protocol} also needs {', '.join(missing)}")
        return self

    def client_options(self) -> dict[str, Any]:
        """Return keyword arguments for any kafka-python client; the password is in plain text."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            assert self.sasl_password is not None  # checked by the validator
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        if self.security_protocol.endswith("SSL"):
            files = {
                "ssl_cafile": self.ssl_cafile,
                "ssl_certfile": self.ssl_certfile,
                "ssl_keyfile": self.ssl_keyfile,
            }
            options |= {key: str(value) for key, value in files.items() if value is not None}
            options["ssl_check_hostname"] = self.ssl_check_hostname
            # Never None: OpenSSL would prompt at the terminal.
            options["ssl_password"] = secret_of(self.ssl_password) or ""
        return options


class PipelineSettings(Settings):
    """Settings of one pipeline: its topics, its model and its guarantees.

    Attributes:
        name: Name of the pipeline, its consumer group, and the stem of its transactional ids.
        model: The model whose routing table on the control topic the pipeline follows.
        input_topics: Topics that all consumers of the pipeline read as one group.
        output_topic: Receives a prediction for each record that has one.
        dead_letter_topic: Receives the others; None means ``<output_topic>.dead-letters``.
        delivery: ``exactly-once``: results and offsets in one transaction; readers must use
            ``read_committed``. ``at-least-once``: faster when idle; after a crash some results
            appear twice.
        consumers: Minimum number of consumer processes; a backlog may add more, up to the number
            of input partitions, beyond which consumers are idle.
        format: ``json``: an object with a field for each input of the model's task; ``text``: the
            value is the task's only required input.
        fields: Names of the record's fields by input of the task, where they differ from the
            input's name. An optional input that is named is required.
        long_text: Handling of a text longer than the model accepts: cut and flagged, divided into
            overlapping windows whose outputs the task merges, or dead-lettered.
        window_stride: Tokens that two neighbouring windows have in common.
        output_per_head: Whether a multi-task model's answer is one record for each head, instead of
            one with all results.
        parameters: Parameters of the model's task by name, such as ``top_k``.
        partitions: Number of partitions of topics that the pipeline creates.
        start_from: Start of a group without committed offsets: oldest records or new ones only.
        max_batch_records: Maximum records of one micro-batch, which is one call to a replica.
            Larger ones waste less padding, smaller ones spread better over replicas.
        max_batch_bytes: Maximum bytes of one micro-batch; a larger record goes alone.
        window: Micro-batches in flight. Memory is bounded by window times the batch limits;
            2 per replica keep every replica busy.
        commit_interval_ms: Under load, results are collected this long into one transaction.
            Longer costs latency, shorter costs throughput; when nothing is in flight a commit
            never waits.
        call_timeout_s: Timeout of one call to a replica; then it is cancelled and retried.
        model_deadline_s: How long the model may be unavailable before the pipeline stops. It
            keeps its offsets; no record becomes a dead letter.
        fallback_after_s: A version that has a fallback, such as a canary, must answer a
            micro-batch within this time; otherwise the fallback answers it, and it counts
            against the version.
        max_attempts: Calls that may kill a replica or time out before the batch is divided to
            find the record at fault.
        max_poison_run: Maximum poison records in a row, without an answer in between. More mean
            that the model is broken and not the records: the pipeline stops.
        session_timeout_ms: How long the group waits for a member that died without replacement.
        transaction_timeout_ms: Maximum time that a transaction left open by a dead process hides
            later results; a replacement of the same rank ends it at once.
        delivery_timeout_ms: Timeout of one send to Kafka, including retries.
        stall_timeout_s: A loop that is stuck for this long counts as hung; its process ends
            itself and is replaced.
        telemetry_interval_s: Length of a telemetry window, and time between two heartbeats.
    """

    name: str = Field(pattern=NAME_PATTERN)
    model: str = Field(pattern=NAME_PATTERN)
    input_topics: tuple[str, ...] = Field(min_length=1)
    output_topic: str = Field(pattern=TOPIC_PATTERN)
    dead_letter_topic: str | None = Field(default=None, pattern=TOPIC_PATTERN)
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once"
    consumers: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=0.25, ge=0)
    format: Literal["json", "text"] = "json"
    fields: Mapping[str, str] = {}
    long_text: LongText = "truncate"
    window_stride: int = Field(default=WINDOW_STRIDE, ge=0)
    parameters: Mapping[str, JsonValue] = {}
    output_per_head: bool = False
    create_topics: bool = True
    partitions: int = Field(default=4, ge=1)
    start_from: Literal["earliest", "latest"] = "earliest"

    max_batch_records: int = Field(default=256, ge=1)
    max_batch_bytes: int = Field(default=1_000_000, ge=1)
    window: int = Field(default=4, ge=1)
    commit_interval_ms: int = Field(default=100, ge=0)
    call_timeout_s: float = Field(default=60.0, gt=0)
    model_deadline_s: float = Field(default=300.0, gt=0)
    fallback_after_s: float = Field(default=5.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    max_poison_run: int = Field(default=50, ge=1)
    session_timeout_ms: int = Field(default=10_000, ge=6_000)
    transaction_timeout_ms: int = Field(default=15_000, ge=1_000)
    delivery_timeout_ms: int = Field(default=10_000, ge=1_000)
    stall_timeout_s: float = Field(default=60.0, gt=0)
    telemetry_interval_s: float = Field(default=5.0, gt=0)

    @property
    def app_name(self) -> str:
        """Name of the pipeline's Serve app."""
        return str(AppName(pipeline=self.name))

    @property
    def dead_letters(self) -> str:
        """Topic of the dead letters."""
        return self.dead_letter_topic or f"{self.output_topic}.dead-letters"

    def call_options(self) -> CallOptions:
        """Return the options with which a replica reads this pipeline's records."""
        return CallOptions(
            format=self.format,
            fields=self.fields,
            long_text=self.long_text,
            window_stride=self.window_stride,
            parameters=self.parameters,
        )
