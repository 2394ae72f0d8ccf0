"""Which engine, precision, streams and threads a replica computes with, and why.

``choose`` is pure; ``machine`` looks, the engines compute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from serve.engine.machine import Machine, inspect_machine
from serve.engine.protocol import Engine
from serve.errors import EngineUnavailable
from serve.settings import EngineSettings

if TYPE_CHECKING:
    import torch

EngineName = Literal["openvino", "torch"]
Precision = Literal["f32", "bf16", "f16"]

# Three keep a card busy: one computes, one copies in, one copies out.
GPU_STREAMS = 3

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """What a replica computes with.

    Attributes:
        streams: Batches computed at a time.
        threads: Cores shared by the streams; on a GPU one only launches work.
        reason: One sentence for the log.
    """

    engine: EngineName
    precision: Precision
    streams: int
    threads: int
    reason: str


def choose(settings: EngineSettings, machine: Machine) -> Choice:
    """Choose what the settings leave open, and refuse what the machine has not.

    Args:
        settings: ``kind`` must not be ``echo``, which computes nothing.
    Raises:
        EngineUnavailable: An engine or precision was asked for by name that this machine
            has not. Not retriable.
    """
    engine, why_engine = _choose_engine(settings, machine)
    precision, why_precision = _choose_precision(settings, machine)
    threads = min(settings.threads or machine.cores, machine.cores)
    if machine.gpu is not None:
        streams, threads = GPU_STREAMS, 1
    else:
        streams = threads if engine == "openvino" else 1
    reason = f"{why_engine}; {why_precision}"
    return Choice(engine, precision, streams, threads, reason)


def open_engine(
    module_factory: Callable[[], torch.nn.Module],
    settings: EngineSettings,
    *,
    on_gpu: bool,
    cache_dir: Path | None,
    digest: str,
) -> Engine:
    """Choose an engine for this machine, log the choice and open it.

    Args:
        module_factory: Makes the module: ``forward(input_ids, attention_mask)``, both (B, T),
            gives (B, C) or (B, H). Not called where the cache already has the compiled graph.
        on_gpu: The replica was given a GPU.
        cache_dir: Where compiled graphs are kept; None keeps none.
        digest: Names everything that the module computes with: the model's bytes and the
            version of the code that makes the module. A file name.
    Raises:
        EngineUnavailable: This machine has not what was asked for, or the engine cannot
            compile the module. Not retriable.
    """
    machine = inspect_machine(on_gpu)
    choice = choose(settings, machine)
    if choice.engine == "openvino":
        try:
            return _open_openvino(
                module_factory,
                choice,
                cache_dir=cache_dir,
                digest=digest,
                device=machine.processor,
            )
        except EngineUnavailable as exc:
            # As the settings leave the engine open, torch can have a try; by name it cannot.
            machine = machine._replace(openvino_fault=str(exc))
            choice = choose(settings, machine)
    return _open_torch(module_factory, choice, on_gpu=on_gpu)


def _open_openvino(
    module_factory: Callable[[], torch.nn.Module],
    choice: Choice,
    *,
    cache_dir: Path | None,
    digest: str,
    device: str,
) -> Engine:
    from serve.engine.openvino import OpenVinoEngine

    engine = OpenVinoEngine(
        module_factory,
        precision=choice.precision,
        streams=choice.streams,
        threads=choice.threads,
        cache_dir=cache_dir,
        digest=digest,
        device=device,
    )
    _log(choice, engine)
    return engine


def _open_torch(
    module_factory: Callable[[], torch.nn.Module], choice: Choice, *, on_gpu: bool
) -> Engine:
    from serve.engine.torch import TorchEngine

    engine = TorchEngine(
        module_factory(),
        precision=choice.precision,
        lanes=choice.streams,
        threads=choice.threads,
        device="cuda" if on_gpu else "cpu",
    )
    _log(choice, engine)
    return engine


def _log(choice: Choice, engine: Engine) -> None:
    logger.info(
        "computing with %s in %s on %s, streams: %d, threads: %d: %s",
        choice.engine,
        choice.precision,
        engine.device,
        choice.streams,
        choice.threads,
        choice.reason,
    )


def _choose_engine(settings: EngineSettings, machine: Machine) -> tuple[EngineName, str]:
    match settings.kind:
        case "torch":
            return "torch", "torch as the settings say"
        case "openvino" if machine.gpu is not None:
            raise EngineUnavailable(
                f"OpenVINO computes on the processor and this replica was given {machine.gpu}; "
                "set num_gpus to 0 or engine kind to auto"
            )
        case "openvino" if machine.openvino_fault is not None:
            raise EngineUnavailable(
                f"OpenVINO cannot be used: {machine.openvino_fault}; set engine kind to auto"
            )
        case "openvino":
            return "openvino", "OpenVINO as the settings say"
        case "auto" if machine.gpu is not None:
            return "torch", "torch because the replica was given a GPU"
        case "auto" if machine.openvino_fault is not None:
            return "torch", f"torch because OpenVINO cannot be used: {machine.openvino_fault}"
        case "auto":
            return "openvino", "OpenVINO because the replica was given no GPU"
        case "echo":
            raise EngineUnavailable("engine kind echo computes nothing: it opens no engine")


def _choose_precision(settings: EngineSettings, machine: Machine) -> tuple[Precision, str]:
    device = machine.gpu or machine.processor
    in_hardware = _precisions(machine)
    if settings.precision == "auto":
        fastest = in_hardware[0]
        return fastest, f"{fastest} is the fastest precision that {device} has"
    if settings.precision not in in_hardware:
        raise EngineUnavailable(
            f"{device} computes {', '.join(in_hardware)} and lacks {settings.precision}, which "
            "would be emulated many times slower or ignored; set precision to auto"
        )
    return settings.precision, f"{settings.precision} as the settings say"


def _precisions(machine: Machine) -> tuple[Precision, ...]:
    """What is computed in hardware, the best first."""
    if machine.gpu is not None:
        return ("bf16", "f16", "f32") if machine.gpu_bf16 else ("f16", "f32")
    return ("bf16", "f32") if "BF16" in machine.capabilities else ("f32",)
