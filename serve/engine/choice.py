"""Choice of a replica's engine, precision, streams and threads, with the reason.

``choose`` is pure; ``machine`` inspects the hardware, the engines compute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from serve.engine.machine import Machine, inspect_machine
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Engine
from serve.errors import EngineUnavailable
from serve.settings import EngineSettings

if TYPE_CHECKING:
    import torch

EngineName = Literal["openvino", "torch"]
Precision = Literal["f32", "bf16", "f16"]

# Three keep a GPU busy: one computes, one copies in, one copies out.
GPU_STREAMS = 3

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """Engine configuration of a replica.

    Attributes:
        streams: Batches computed at once.
        threads: Cores shared by the streams; on a GPU the only one launches work.
        reason: Reason for the choice, one sentence for the log.
    """

    engine: EngineName
    precision: Precision
    streams: int
    threads: int
    reason: str


def choose(settings: EngineSettings, machine: Machine) -> Choice:
    """Choose what the settings leave open, and refuse what the machine lacks.

    Args:
        settings: The ``kind`` must not be ``echo``, which computes nothing.
    Raises:
        EngineUnavailable: The settings name an engine or precision that this machine
            lacks. Not retriable.
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
    batches: BatchSettings,
    token_types: bool = False,
) -> Engine:
    """Choose an engine for this machine, log the choice and open it.

    Args:
        module_factory: Builds the module: ``forward(input_ids, attention_mask)``, or with
            ``token_type_ids`` as third argument, each (B, T), returns one tensor or a tuple of
            tensors: (B, C), (B, H) or (B, T, C). Not called where the cache has the compiled graph.
        on_gpu: Whether the replica was given a GPU.
        cache_dir: Directory for compiled graphs; None disables the cache.
        digest: Identifies everything that the module computes with: the model's bytes and the
            version of the code that builds the module. A file name.
        batches: How engines that pad group items.
        token_types: Whether the module takes token types.
    Raises:
        EngineUnavailable: This machine lacks what the settings require, or the engine cannot
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
                batches=batches,
                token_types=token_types,
            )
        except EngineUnavailable as exc:
            # Falls back to torch if the settings leave the engine open; otherwise raises.
            machine = machine._replace(openvino_fault=str(exc))
            choice = choose(settings, machine)
    return _open_torch(module_factory, choice, on_gpu=on_gpu, batches=batches)


def _open_openvino(
    module_factory: Callable[[], torch.nn.Module],
    choice: Choice,
    *,
    cache_dir: Path | None,
    digest: str,
    device: str,
    batches: BatchSettings,
    token_types: bool,
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
        batches=batches,
        token_types=token_types,
    )
    _log(choice, engine)
    return engine


def _open_torch(
    module_factory: Callable[[], torch.nn.Module],
    choice: Choice,
    *,
    on_gpu: bool,
    batches: BatchSettings,
) -> Engine:
    from serve.engine.torch import TorchEngine

    engine = TorchEngine(
        module_factory(),
        precision=choice.precision,
        lanes=choice.streams,
        threads=choice.threads,
        device="cuda" if on_gpu else "cpu",
        batches=batches,
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
            return "torch", "torch as configured"
        case "openvino" if machine.gpu is not None:
            raise EngineUnavailable(
                f"OpenVINO computes on the CPU, but this replica was given {machine.gpu}; "
                "set num_gpus to 0 or engine kind to auto"
            )
        case "openvino" if machine.openvino_fault is not None:
            raise EngineUnavailable(
                f"OpenVINO cannot be used: {machine.openvino_fault}; set engine kind to auto"
            )
        case "openvino":
            return "openvino", "OpenVINO as configured"
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
        return fastest, f"{fastest} is the fastest precision that {device} supports"
    if settings.precision not in in_hardware:
        raise EngineUnavailable(
            f"{device} supports {', '.join(in_hardware)} but not {settings.precision}, which "
            "would be emulated many times slower or ignored; set precision to auto"
        )
    return settings.precision, f"{settings.precision} as configured"


def _precisions(machine: Machine) -> tuple[Precision, ...]:
    """Return the precisions that are computed in hardware, the best first."""
    if machine.gpu is not None:
        return ("bf16", "f16", "f32") if machine.gpu_bf16 else ("f16", "f32")
    return ("bf16", "f32") if "BF16" in machine.capabilities else ("f32",)
