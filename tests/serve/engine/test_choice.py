from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.choice import choose
from serve.engine.machine import Machine
from serve.errors import EngineUnavailable
from serve.settings import EngineSettings

OLD = Machine(4, "Old Xeon", frozenset({"FP32", "INT8"}))
NEW = Machine(4, "New EPYC", frozenset({"FP32", "INT8", "BF16"}))
BARE = NEW._replace(openvino_fault="No module named 'openvino'")
CARD = OLD._replace(gpu="H200", gpu_bf16=True)
OLD_CARD = OLD._replace(gpu="T4", gpu_bf16=False)


@pytest.mark.parametrize(
    ("machine", "engine", "precision", "streams", "threads"),
    [
        (OLD, "openvino", "f32", 4, 4),
        (NEW, "openvino", "bf16", 4, 4),
        (BARE, "torch", "bf16", 1, 4),
        (CARD, "torch", "bf16", 3, 1),
        (OLD_CARD, "torch", "f16", 3, 1),
    ],
)
def test_auto(machine: Machine, engine: str, precision: str, streams: int, threads: int) -> None:
    choice = choose(EngineSettings(), machine)
    assert choice[:4] == (engine, precision, streams, threads)


@pytest.mark.parametrize(
    ("settings", "machine", "message"),
    [
        ({"precision": "bf16"}, OLD, "Old Xeon supports f32 but not bf16"),
        ({"precision": "f16"}, NEW, "New EPYC supports bf16, f32 but not f16"),
        ({"precision": "bf16"}, OLD_CARD, "T4 supports f16, f32 but not bf16"),
        ({"kind": "openvino"}, BARE, "No module named 'openvino'"),
        ({"kind": "openvino"}, CARD, "was given H200"),
        ({"kind": "echo"}, NEW, "opens no engine"),
    ],
)
def test_refused(settings: dict[str, Any], machine: Machine, message: str) -> None:
    with pytest.raises(EngineUnavailable, match=message):
        choose(EngineSettings(**settings), machine)


def test_fewer_threads_than_cores() -> None:
    assert choose(EngineSettings(threads=2), NEW)[2:4] == (2, 2)
    assert choose(EngineSettings(threads=2, kind="torch"), NEW)[2:4] == (1, 2)
    assert choose(EngineSettings(threads=9), NEW)[2:4] == (4, 4)


def test_the_reason_names_what_decided() -> None:
    assert choose(EngineSettings(), BARE).reason == (
        "torch because OpenVINO cannot be used: No module named 'openvino'; "
        "bf16 is the fastest precision that New EPYC supports"
    )


@given(
    settings=st.builds(
        EngineSettings,
        kind=st.sampled_from(["auto", "openvino", "torch", "echo"]),
        precision=st.sampled_from(["auto", "f32", "bf16", "f16"]),
        threads=st.integers(0, 8),
    ),
    machine=st.builds(
        Machine,
        cores=st.integers(1, 64),
        processor=st.just("P"),
        capabilities=st.frozensets(st.sampled_from(["FP32", "BF16", "INT8"])),
        openvino_fault=st.sampled_from([None, "broken"]),
        gpu=st.sampled_from([None, "G"]),
        gpu_bf16=st.booleans(),
    ),
)
def test_never_what_the_machine_has_not(settings: EngineSettings, machine: Machine) -> None:
    try:
        choice = choose(settings, machine)
    except EngineUnavailable:
        assert (settings.kind, settings.precision) != ("auto", "auto")
        return
    native_bf16 = machine.gpu_bf16 if machine.gpu else "BF16" in machine.capabilities
    assert choice.precision != "bf16" or native_bf16
    assert choice.precision != "f16" or machine.gpu is not None
    assert choice.engine != "openvino" or (machine.gpu, machine.openvino_fault) == (None, None)
    assert settings.kind in ("auto", choice.engine)
    assert settings.precision in ("auto", choice.precision)
    assert 1 <= choice.threads <= machine.cores
    assert choice.streams >= 1
