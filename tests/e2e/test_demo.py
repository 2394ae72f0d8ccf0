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
    assert counted["produced"] >= 2_000
    assert counted["predicted"] + counted["dead_letters"] == counted["produced"]
    assert counted["dead_letters"] > 0
    assert counted["lost"] == counted["duplicated"] == 0
    assert counted["engine"] in ("openvino", "torch")
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [p for p in left if str(tmp_path) in " ".join(p.info["cmdline"])]
