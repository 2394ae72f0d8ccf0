"""Settings of the whole platform: what the YAML file holds. Frozen; read once."""

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
# Begins the names of the topics that the platform keeps for itself.
OWN_TOPICS = "bertstream."

KeyPath = tuple[str | int, ...]
# Place, full name and content of an item.
Named = tuple[KeyPath, str, Mapping[str, Any]]


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
        tls_password: Pass phrase of that, where it has one.
        insecure: Listen without TLS for other machines, too: where something in front of it
            speaks TLS.
        max_upload_bytes: Of a model directory that is registered.
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
        deploy_deadline_s: How long a replica may take to be ready; up to five times as long where
            the machine has more to do than its cores can.
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


def conflicts(content: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
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
    yield from _circles(pipelines)
    scaling = content.get("scaling")
    scaled = scaling.get("models") if isinstance(scaling, Mapping) else None
    for model in scaled if isinstance(scaled, Mapping) else ():
        if model not in served:
            known = ", ".join(served) or "none there"
            message = f"{model} is not under models ({known})"
            yield ("scaling", "models", str(model)), message


def _topic_conflicts(
    steps: KeyPath, name: str, pipeline: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    inputs, (output, dead_letters) = _inputs(pipeline), _outputs(pipeline)
    if dead_letters == output:
        yield (*steps, "dead_letter_topic"), f"pipeline {name} has its results there, too"
    for topic in dict.fromkeys((output, dead_letters)):
        if topic in inputs:
            yield (*steps, "input_topics"), f"pipeline {name} reads and writes topic {topic}"
    keys: list[tuple[str, Any]] = [("input_topics", topic) for topic in inputs]
    keys += [("output_topic", output), ("dead_letter_topic", pipeline.get("dead_letter_topic"))]
    for key, topic in keys:
        if str(topic).startswith(OWN_TOPICS):
            message = f"topic {topic} is the platform's own, as all that begin with {OWN_TOPICS}"
            yield (*steps, key), message


def _circles(pipelines: Sequence[Named]) -> Iterator[tuple[KeyPath, str]]:
    """Pipelines whose results or dead letters come back to them through others; each circle is
    told once, at the last of its pipelines."""
    seen: set[frozenset[int]] = set()
    for start in reversed(range(len(pipelines))):
        way = _way_back(pipelines, start)
        members = frozenset(at for at, _ in way)
        if not way or members in seen:
            continue
        seen.add(members)
        topics = " -> ".join(f"{topic} -> {pipelines[at][1]}" for at, topic in way)
        steps, name, _ = pipelines[start]
        message = f"records would go round for ever: {topics} -> {way[0][1]}"
        yield (*steps, "input_topics"), f"pipeline {name} is part of a circle, {message}"


def _way_back(pipelines: Sequence[Named], start: int) -> list[tuple[int, str]]:
    """The shortest circle of several pipelines through one: each with the topic that it reads;
    empty where there is none."""
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
    """Every item of a list that has a name."""
    items = content.get(kind)
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping) and item.get("name") is not None:
            yield (kind, index), "@".join(str(item.get(key, "1")) for key in keys), item


def _twice(kind: str, items: list[Named]) -> Iterator[tuple[KeyPath, str]]:
    seen: set[str] = set()
    for steps, name, _ in items:
        if name in seen:
            yield (*steps, "name"), f"{kind} {name} is there twice"
        seen.add(name)
