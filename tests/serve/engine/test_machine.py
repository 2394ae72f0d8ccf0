from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from serve.engine.machine import inspect_machine, processor_name, usable_cores
from serve.errors import EngineUnavailable


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [("100000 100000", 1), ("10000 100000", 1), ("max 100000", None), ("", None), (None, None)],
)
def test_a_containers_quota_counts(tmp_path: Path, quota: str | None, allowed: int | None) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    whole = usable_cores(cpu_quota=tmp_path / "none")
    assert whole >= 1
    assert usable_cores(cpu_quota=file) == (allowed or whole)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_processor_by_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9755\nprocessor\t: 1\n")
    assert processor_name(file) == "AMD EPYC 9755"
    assert processor_name(tmp_path / "none")


@pytest.mark.model
def test_torch_sees_the_same_processor_as_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = inspect_machine(on_gpu=False)
    monkeypatch.setitem(sys.modules, "serve.engine.openvino", None)
    bare = inspect_machine(on_gpu=False)
    assert seen.openvino_fault is None
    assert bare.openvino_fault is not None
    # The variable may hide bf16 from torch alone.
    hidden = {"BF16"} if "ATEN_CPU_CAPABILITY" in os.environ else set()
    assert bare.capabilities | hidden == (seen.capabilities & {"FP32", "BF16"}) | hidden
    assert (bare.processor, bare.cores) == (seen.processor, seen.cores)


@pytest.mark.model
def test_a_promised_gpu_must_be_there() -> None:
    import torch

    if torch.cuda.is_available():
        assert inspect_machine(on_gpu=True).gpu == torch.cuda.get_device_name()
        return
    with pytest.raises(EngineUnavailable, match="torch finds none"):
        inspect_machine(on_gpu=True)
