"""Training from the command line: what is wrong with a file is told at once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import train
from ops.cli.main import app
from train.settings import TextClassificationSettings

CODE = """
import sys
from ops.cli.training import train_with_progress
from train.errors import DataError
try:
    train_with_progress({"data": "bad.csv", "out": "out"})
except DataError as exc:
    print(exc)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("text;label\nx;a\ny\n", "bad.csv, line 3: 1 fields, but there are 2 columns"),
        ("text,label\nx,a\ny,b\n", "2 texts are too few to split with --val-share 0.1"),
    ],
)
def test_a_bad_file_is_told_before_torch_is_loaded(lines: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(lines)
    root = str(Path(__file__).parents[3])
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
    assert told.startswith(wanted)
    assert loaded == "[]"


def options() -> set[str]:
    command = get_command(app).get_command(None, "train").commands["text-classification"]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


def messages() -> Iterator[str]:
    """Every piece of text in the errors that training raises."""
    for path in Path(train.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                yield from (
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )


def test_messages_name_options_that_exist() -> None:
    told = list(messages())
    named = {option for text in told for option in re.findall(r"--[a-z][a-z-]+", text)}
    assert {"--val-share", "--batch-tokens", "--head-lr", "--columns"} <= named
    assert named <= options()
    fields = {field for field in TextClassificationSettings.model_fields if "_" in field}
    assert [text for text in told if any(field in text for field in fields)] == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--max-length", "4000"], "error: --max-length 4000 is above --batch-tokens 2048"),
        (["--val-share", "0.7"], "error: --val-share: Input should be less than 0.5"),
        (["--separator", "^^"], "error: --separator: String should have at most 1 character"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_given(
    words: list[str], wanted: str, tmp_path: Path
) -> None:
    named = ["--data", str(tmp_path / "d.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["train", "text-classification", *named, *words])
    assert done.exit_code == 2
    assert wanted in done.stderr
