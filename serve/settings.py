"""Settings of models and engines. One frozen object per model version; read from the YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.task_names import TaskName

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Settings(BaseModel):
    """Base of every settings object: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSettings(Settings):
    """Settings for how a replica computes.

    Attributes:
        kind: ``auto`` uses torch where a GPU is given and OpenVINO elsewhere.
        precision: ``auto`` uses bf16 where the processor supports it and f32 elsewhere; an
            explicit one that the processor lacks is refused.
        threads: Cores of one CPU replica; 0 uses all cores of the machine.
        max_batch_tokens: Budget of one padded batch (items times longest), in tokens. More
            fills a GPU better (32,768 and above) and costs memory; on a CPU 1,024 was fastest.
        max_batch_items: Upper bound for the items of one padded batch.
    """

    kind: Literal["auto", "openvino", "torch", "echo"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    threads: int = Field(default=0, ge=0)
    max_batch_tokens: int = Field(default=1024, ge=16)
    max_batch_items: int = Field(default=64, ge=1)


class ModelSettings(Settings):
    """One version of a model and the replicas that serve it.

    Attributes:
        name: Name of the model; lower case letters, digits and hyphens.
        version: Version of the model; ``name@version`` is the name of the Serve app.
        path: The model directory.
        task: Task that the directory must have been made for; None accepts any.
        replicas: Minimum number of replica processes; a backlog may add more.
        num_cpus: Ray's reservation per replica; a reservation, not a limit.
        num_gpus: Ray's reservation per replica; above 0 puts the replica on a GPU.
        max_ongoing_calls: Micro-batches that one replica works on at once: one computes
            while the next is parsed and tokenised.
    """

    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(default="1", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$")
    path: Path
    task: TaskName | None = None
    replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    max_ongoing_calls: int = Field(default=3, ge=1)
    engine: EngineSettings = EngineSettings()
