"""Settings of the whole platform: the content of the YAML file. Frozen; read once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from ops.config.prices import PriceTable
from ops.config.scaling import ScalingSettings
from serve.settings import ModelSettings, Settings
from stream.settings import KafkaSettings, PipelineSettings

EMBEDDED = "embedded"
DATABASE_FILE = "bertstream.db"
# Prefix of the topics that are reserved for the platform.
OWN_TOPICS = "bertstream."

KeyPath = tuple[str | int, ...]
# Place, full name and content of an item.
Named = tuple[KeyPath, str, Mapping[str, Any]]


class RaySettings(Settings):
    """The Ray cluster that everything runs on.

    Attributes:
        address: ``auto`` joins the cluster that RAY_ADDRESS names or that `ray start` left
            running on this machine, and otherwise starts one; ``local`` always starts one;
            ``host:port`` joins that one. A joined cluster is never stopped.
        num_cpus: CPUs of a started cluster; None uses all of the machine.
        num_gpus: GPUs of a started cluster; None uses all of the machine.
        dashboard_port: Port of a started cluster's dashboard, on loopback; 0 chooses a free one.
        object_store_mb: Shared memory of a started cluster; micro-batches need little.
    """

    address: str = "auto"
    num_cpus: float | None = Field(default=None, gt=0)
    num_gpus: float | None = Field(default=None, ge=0)
    dashboard_port: int = Field(default=0, ge=0, le=65_535)
    object_store_mb: int = Field(default=200, ge=80)


class ApiSettings(Settings):
    """The control API.

    Attributes:
        host: Address to listen on. Any other than loopback needs TLS, as every request carries
            a token.
        port: Port to listen on; 0 chooses a free one.
        tls_certfile: PEM of the certificate and of those that signed it.
        tls_keyfile: PEM of its key.
        tls_password: Pass phrase of the key, if it has one.
        insecure: Listen for other machines without TLS, too, if a proxy in front of the API
            terminates TLS.
        max_upload_bytes: Largest model directory that may be registered.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=0, ge=0, le=65_535)
    tls_certfile: Path | None = None
    tls_keyfile: Path | None = None
    tls_password: SecretStr | None = None
    insecure: bool = False
    max_upload_bytes: int = Field(default=20_000_000_000, ge=1)

    @model_validator(mode="after")
    def _tokens_stay_secret(self) -> Self:
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile belong together; one is missing")
        if not (self.is_loopback or self.tls_certfile or self.insecure):
            raise ValueError(
                f"on {self.host} other machines could read the tokens: set tls_certfile and "
                "tls_keyfile, or set insecure: true if a proxy in front terminates TLS"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can connect."""
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
        models: Model versions to serve.
        pipelines: Pipelines from topics through a model to topics.
        state_dir: Directory of the platform's state.
        deploy_deadline_s: How long a replica may take to be ready; up to five times as long on
            a machine with more load than its cores can handle.
        database: URL of the SQL database, ``sqlite:///FILE`` or ``postgresql://...``; None keeps
            it under ``state_dir``.
        artifacts: Where the files of versions are kept: a folder, or a URL such as
            ``s3://bucket/folder``; None keeps them under ``state_dir``.
        operator: Run the operator, which advances releases and repairs apps.
        scaling: How replicas and consumers follow the backlog; None keeps their numbers fixed.
        prices: Prices of the cluster; without them only hours are counted.
        tick_s: Seconds between two rounds of the operator.
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
        """Return the URL of the SQL database, its password in clear text."""
        if self.database is not None:
            return self.database.get_secret_value()
        return f"sqlite:///{(self.state_dir / DATABASE_FILE).resolve()}"

    def artifact_store(self) -> str:
        """Return the folder or URL where the files of versions are kept."""
        return self.artifacts or str((self.state_dir / "artifacts").resolve())

    @model_validator(mode="after")
    def _names_fit_together(self) -> Self:
        found = [message for _, message in conflicts(self.model_dump())]
        if found:
            raise ValueError("; ".join(found))
        return self


def conflicts(content: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield contradictions within a configuration whose parts may each be valid.

    Args:
        content: Raw content of the file: keys may be missing, values may have any type.
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
            known = ", ".join(served) or "there are none"
            message = f"pipeline {name} uses model {model}, which is not under models ({known})"
            yield (*steps, "model"), message
        yield from _topic_conflicts(steps, name, pipeline)
    yield from _circles(pipelines)
    scaling = content.get("scaling")
    scaled = scaling.get("models") if isinstance(scaling, Mapping) else None
    for model in scaled if isinstance(scaled, Mapping) else ():
        if model not in served:
            known = ", ".join(served) or "there are none"
            message = f"{model} is not under models ({known})"
            yield ("scaling", "models", str(model)), message


def _topic_conflicts(
    steps: KeyPath, name: str, pipeline: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    inputs, (output, dead_letters) = _inputs(pipeline), _outputs(pipeline)
    if dead_letters == output:
        yield (*steps, "dead_letter_topic"), f"pipeline {name} also writes its results there"
    for topic in dict.fromkeys((output, dead_letters)):
        if topic in inputs:
            yield (*steps, "input_topics"), f"pipeline {name} reads and writes topic {topic}"
    keys: list[tuple[str, Any]] = [("input_topics", topic) for topic in inputs]
    keys += [("output_topic", output), ("dead_letter_topic", pipeline.get("dead_letter_topic"))]
    for key, topic in keys:
        if str(topic).startswith(OWN_TOPICS):
            message = f"topic {topic} is reserved for the platform, like all {OWN_TOPICS}* topics"
            yield (*steps, key), message


def _circles(pipelines: Sequence[Named]) -> Iterator[tuple[KeyPath, str]]:
    """Yield circles of pipelines that feed each other, each once, at its last pipeline."""
    seen: set[frozenset[int]] = set()
    for start in reversed(range(len(pipelines))):
        way = _way_back(pipelines, start)
        members = frozenset(at for at, _ in way)
        if not way or members in seen:
            continue
        seen.add(members)
        topics = " -> ".join(f"{topic} -> {pipelines[at][1]}" for at, topic in way)
        steps, name, _ = pipelines[start]
        message = f"records would circulate forever: {topics} -> {way[0][1]}"
        yield (*steps, "input_topics"), f"pipeline {name} is part of a circle, {message}"


def _way_back(pipelines: Sequence[Named], start: int) -> list[tuple[int, str]]:
    """Return the shortest circle of several pipelines through one; empty if there is none.

    Each pipeline comes with the topic that it reads."""
    waiting: deque[list[tuple[int, str]]] = deque([[(start, "")]])
    reached = {start}
    while waiting:
        way = waiting.popleft()
        written = _outputs(pipelines[way[-1][0]][2])
        for at, (_, _, pipeline) in enumerate(pipelines):
            topic = next((name for name in _inputs(pipeline) if name in written), None)
            if topic is None:
                continue
            if at == start and len(way) > 1:
                return [(start, topic), *way[1:]]
            if at not in reached:
                reached.add(at)
                waiting.append([*way, (at, topic)])
    return []


def _inputs(pipeline: Mapping[str, Any]) -> list[str]:
    topics = pipeline.get("input_topics")
    return [str(topic) for topic in topics] if isinstance(topics, list | tuple) else []


def _outputs(pipeline: Mapping[str, Any]) -> tuple[str, str]:
    output = str(pipeline.get("output_topic"))
    return output, str(pipeline.get("dead_letter_topic") or f"{output}.dead-letters")


def _named(content: Mapping[str, Any], kind: str, keys: tuple[str, ...]) -> Iterator[Named]:
    """Yield every item of a list that has a name."""
    items = content.get(kind)
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping) and item.get("name") is not None:
            yield (kind, index), "@".join(str(item.get(key, "1")) for key in keys), item


def _twice(kind: str, items: list[Named]) -> Iterator[tuple[KeyPath, str]]:
    seen: set[str] = set()
    for steps, name, _ in items:
        if name in seen:
            yield (*steps, "name"), f"{kind} {name} is listed twice"
        seen.add(name)
