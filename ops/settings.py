"""Settings of the whole platform: what the YAML file holds. Frozen; read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from ops.cost import PriceTable
from ops.scaling import ScalingSettings
from serve.settings import ModelSettings, Settings
from stream.settings import KafkaSettings, PipelineSettings

EMBEDDED = "embedded"
DATABASE_FILE = "bertstream.db"

Steps = tuple[str | int, ...]
# Place, full name and content of an item.
Named = tuple[Steps, str, Mapping[str, Any]]


class RaySettings(Settings):
    """The Ray cluster that everything runs on.

    Attributes:
        address: ``auto`` joins the cluster that RAY_ADDRESS names or that `ray start` left
            running on this machine, and else starts one of its own; ``local`` always starts one
            of its own; ``host:port`` joins that one. What was joined is never stopped.
        num_cpus: Of an own cluster; None takes what the machine has.
        num_gpus: Of an own cluster; None takes what the machine has.
        dashboard_port: Of an own cluster, on loopback; 0 chooses a free one.
        object_store_mb: Shared memory of an own cluster; micro-batches need little.
    """

    address: str = "auto"
    num_cpus: float | None = Field(default=None, gt=0)
    num_gpus: float | None = Field(default=None, ge=0)
    dashboard_port: int = Field(default=0, ge=0, le=65_535)
    object_store_mb: int = Field(default=200, ge=80)


class ApiSettings(Settings):
    """The control API.

    Attributes:
        host: Address to listen on. Any but this machine's own needs TLS, as every request
            carries a token.
        port: 0 chooses a free one.
        tls_certfile: PEM of the certificate and of those that signed it.
        tls_keyfile: PEM of its key.
        insecure: Listen without TLS for other machines, too: where something in front of it
            speaks TLS.
        max_upload_bytes: Of a model directory that is registered.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=0, ge=0, le=65_535)
    tls_certfile: Path | None = None
    tls_keyfile: Path | None = None
    insecure: bool = False
    max_upload_bytes: int = Field(default=20_000_000_000, ge=1)

    @model_validator(mode="after")
    def _tokens_stay_secret(self) -> Self:
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile belong together; one is missing")
        if not (self.is_loopback or self.tls_certfile or self.insecure):
            raise ValueError(
                f"on {self.host} other machines could read the tokens: give tls_certfile and "
                "tls_keyfile, or say insecure: true where something in front speaks TLS"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class PlatformConfig(Settings):
    """Everything that ``bertstream up`` brings up.

    Attributes:
        kafka: The brokers.
        ray: The cluster.
        api: The control API.
        models: Versions that are served.
        pipelines: From topics through a model to topics.
        state_dir: Where the platform keeps what it must find again.
        deploy_deadline_s: How long a replica may take to be ready.
        database: URL of the SQL database, ``sqlite:///FILE`` or ``postgresql://...``; None keeps
            it under ``state_dir``.
        artifacts: Where the files of versions are kept: a folder, or a URL such as
            ``s3://bucket/folder``; None keeps them under ``state_dir``.
        operator: Have releases moved on and apps looked after.
        scaling: How replicas and consumers follow the backlog; None leaves their numbers alone.
        prices: What the cluster costs; without them only hours are counted.
        tick_s: Between two rounds of the operator.
    """

    kafka: KafkaSettings = KafkaSettings()
    ray: RaySettings = RaySettings()
    api: ApiSettings = ApiSettings()
    models: tuple[ModelSettings, ...] = ()
    pipelines: tuple[PipelineSettings, ...] = ()
    state_dir: Path = Path(".bertstream")
    deploy_deadline_s: float = Field(default=180.0, gt=0)
    database: SecretStr | None = None
    artifacts: str | None = None
    operator: bool = True
    scaling: ScalingSettings | None = ScalingSettings()
    prices: PriceTable | None = None
    tick_s: float = Field(default=1.0, gt=0)

    def database_url(self) -> str:
        """Of the SQL database, the password in the clear."""
        if self.database is not None:
            return self.database.get_secret_value()
        return f"sqlite:///{(self.state_dir / DATABASE_FILE).resolve()}"

    def artifact_store(self) -> str:
        """Where the files of versions are kept."""
        return self.artifacts or str((self.state_dir / "artifacts").resolve())

    @model_validator(mode="after")
    def _names_fit_together(self) -> Self:
        found = [message for _, message in conflicts(self.model_dump())]
        if found:
            raise ValueError("; ".join(found))
        return self


def conflicts(content: Mapping[str, Any]) -> Iterator[tuple[Steps, str]]:
    """What does not fit together in a configuration whose parts may each be right.

    Args:
        content: Of the file as it stands there: keys may be missing, values of any type.
    Returns:
        The place, as keys and indices from the top, and what is wrong there.
    """
    models = [*_named(content, "models", ("name", "version"))]
    pipelines = [*_named(content, "pipelines", ("name",))]
    yield from _twice("model", models)
    yield from _twice("pipeline", pipelines)
    served = sorted({str(model["name"]) for _, _, model in models})
    for steps, name, pipeline in pipelines:
        model = pipeline.get("model")
        if model is not None and model not in served:
            known = ", ".join(served) or "none there"
            message = f"pipeline {name} uses model {model}, which is not under models ({known})"
            yield (*steps, "model"), message
        yield from _topic_conflicts(steps, name, pipeline)
    scaling = content.get("scaling")
    scaled = scaling.get("models") if isinstance(scaling, Mapping) else None
    for model in scaled if isinstance(scaled, Mapping) else ():
        if model not in served:
            known = ", ".join(served) or "none there"
            message = f"{model} is not under models ({known})"
            yield ("scaling", "models", str(model)), message


def _topic_conflicts(
    steps: Steps, name: str, pipeline: Mapping[str, Any]
) -> Iterator[tuple[Steps, str]]:
    inputs, output = pipeline.get("input_topics"), pipeline.get("output_topic")
    dead_letters = pipeline.get("dead_letter_topic") or f"{output}.dead-letters"
    if dead_letters == output:
        yield (*steps, "dead_letter_topic"), f"pipeline {name} has its results there, too"
    for topic in dict.fromkeys((output, dead_letters)):
        if isinstance(inputs, list | tuple) and topic in inputs:
            yield (*steps, "input_topics"), f"pipeline {name} reads and writes topic {topic}"


def _named(content: Mapping[str, Any], kind: str, keys: tuple[str, ...]) -> Iterator[Named]:
    """Every item of a list that has a name."""
    items = content.get(kind)
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping) and item.get("name") is not None:
            yield (kind, index), "@".join(str(item.get(key, "1")) for key in keys), item


def _twice(kind: str, items: list[Named]) -> Iterator[tuple[Steps, str]]:
    seen: set[str] = set()
    for steps, name, _ in items:
        if name in seen:
            yield (*steps, "name"), f"{kind} {name} is there twice"
        seen.add(name)
