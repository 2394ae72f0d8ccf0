"""Inspection of this machine: cores, precisions that the processor has in hardware, the GPU.

Only inspects; ``choice`` decides.
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import NamedTuple

from serve.errors import EngineUnavailable

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CPU_INFO = Path("/proc/cpuinfo")


class Machine(NamedTuple):
    """Hardware that is available for computing.

    Attributes:
        cores: Cores that this process may use, >= 1.
        processor: Name of the processor.
        capabilities: Precisions that the processor has in hardware, as OpenVINO names: FP32, BF16,
            INT8 ...; other precisions are ignored, or emulated many times slower.
        openvino_fault: Why OpenVINO cannot be used; None where it can.
        gpu: Name of the GPU; None for a replica that was given none.
        gpu_bf16: Whether the GPU computes bf16 in hardware.
    """

    cores: int
    processor: str
    capabilities: frozenset[str]
    openvino_fault: str | None = None
    gpu: str | None = None
    gpu_bf16: bool = False


def inspect_machine(on_gpu: bool) -> Machine:
    """Inspect the machine that this process runs on.

    Args:
        on_gpu: Whether the replica was given a GPU.
    Raises:
        EngineUnavailable: It was, but torch finds none. Not retriable.
    """
    machine = _processor()
    return _with_gpu(machine) if on_gpu else machine


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the name of the processor, as the operating system reports it."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or platform.machine())


def usable_cores(cpu_quota: Path = CPU_QUOTA) -> int:
    """Return the usable cores: those of the affinity, up to a container's quota, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = cpu_quota.read_text().split()
    except (OSError, ValueError):
        return cores or 1
    allowed = math.inf if quota == "max" else math.ceil(int(quota) / int(period))
    return max(1, int(min(cores or 1, allowed)))


def _processor() -> Machine:
    try:
        from serve.engine.openvino import processor_capabilities
    except (ImportError, OSError) as exc:  # OSError: a shared library of it cannot be loaded
        return Machine(
            usable_cores(), processor_name(), _capabilities_by_torch(), openvino_fault=str(exc)
        )
    return Machine(usable_cores(), processor_name(), processor_capabilities())


def _capabilities_by_torch() -> frozenset[str]:
    import torch

    found = torch.cpu.get_capabilities()
    in_hardware = found.get("avx512_bf16") or found.get("amx_bf16")
    return frozenset({"FP32", "BF16"} if in_hardware else {"FP32"})


def _with_gpu(machine: Machine) -> Machine:
    import torch

    if not torch.cuda.is_available():
        raise EngineUnavailable(
            "the replica was given a GPU (num_gpus above 0) but torch finds none; install the "
            "card's driver and a torch built for it, or set num_gpus to 0"
        )
    return machine._replace(
        gpu=torch.cuda.get_device_name(),
        gpu_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
    )
