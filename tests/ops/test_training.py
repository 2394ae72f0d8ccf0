"""Training from the command line: what is wrong with a file is told at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from ops.training import train_with_progress
from train.errors import DataError
try:
    train_with_progress({"data": "bad.csv", "out": "out"})
except DataError as exc:
    print(exc)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_a_bad_file_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("text;label\nx;a\ny\n")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told, loaded = done.stdout.splitlines()
    assert told.startswith("bad.csv, line 3: 1 fields, and there are 2 columns")
    assert loaded == "[]"
