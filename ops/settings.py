"""Settings of the whole platform: what the YAML file holds. Frozen; read once."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from serve.settings import ModelSettings, Settings
from stream.settings import KafkaSettings, PipelineSettings

EMBEDDED = "embedded"


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


class PlatformConfig(Settings):
    """Everything that ``bertstream up`` brings up.

    Attributes:
        kafka: The brokers.
        ray: The cluster.
        models: Versions that are served.
        pipelines: From topics through a model to topics.
        state_dir: Where the platform keeps what it must find again.
        deploy_deadline_s: How long a replica may take to be ready.
    """

    kafka: KafkaSettings = KafkaSettings()
    ray: RaySettings = RaySettings()
    models: tuple[ModelSettings, ...] = ()
    pipelines: tuple[PipelineSettings, ...] = ()
    state_dir: Path = Path(".bertstream")
    deploy_deadline_s: float = Field(default=180.0, gt=0)

    @model_validator(mode="after")
    def _names_fit_together(self) -> Self:
        problems = [
            *_twice("model", [f"{model.name}@{model.version}" for model in self.models]),
            *_twice("pipeline", [pipeline.name for pipeline in self.pipelines]),
        ]
        names = {model.name for model in self.models}
        for pipeline in self.pipelines:
            if pipeline.model not in names:
                problems.append(
                    f"pipeline {pipeline.name} uses model {pipeline.model}, which is not under "
                    f"models ({', '.join(sorted(names)) or 'none there'})"
                )
            outputs = {pipeline.output_topic, pipeline.dead_letters}
            for topic in sorted(outputs & set(pipeline.input_topics)):
                problems.append(f"pipeline {pipeline.name} reads and writes topic {topic}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _twice(kind: str, names: list[str]) -> list[str]:
    return [f"{kind} {name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
