"""The first command of the README does what it says, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.ray, pytest.mark.timeout(400)]


def test_demo_counts_every_event_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bertstream"), "demo"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout.splitlines()[-1])
    measured, steady, burst = counted["measured_per_s"], counted["steady"], counted["burst"]
    assert counted["produced"] >= 400 + steady["records"] + burst["records"]
    # Produced at six tenths of what was measured, for ten seconds.
    assert steady["records"] == pytest.approx(6 * min(measured, 1_000 / 0.6), rel=0.2)
    assert 0 < steady["p50_ms"] <= steady["p99_ms"]
    assert burst["records"] >= min(measured, 1_000) * 2
    assert 0 < burst["peak_lag"] <= burst["records"] + steady["records"]
    assert burst["drained_s"] is None or burst["drained_s"] > 0
    told = [line for line in done.stderr.splitlines() if line.startswith("    ")]
    assert len(told) == len(set(told)) > 0  # no result is shown twice
    assert counted["predicted"] + counted["dead_letters"] == counted["produced"]
    assert counted["dead_letters"] > 0
    assert counted["lost"] == counted["duplicated"] == 0
    assert counted["engine"] in ("openvino", "torch")
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [p for p in left if str(tmp_path) in " ".join(p.info["cmdline"])]
