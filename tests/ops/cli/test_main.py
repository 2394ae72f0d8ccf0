"""The command: exit codes, one sentence for each mistake, clean stdout, a light start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ops.cli.main import app
from ops.platform.status import Status

BERTSTREAM = Path(sys.executable).parent / "bertstream"
HEAVY = ("torch", "transformers", "ray", "kafka", "openvino", "pydantic", "numpy")
DEADLINE_S = 240


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every command of these tests runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, code: int) -> Result:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def run_process(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_starting_loads_nothing_heavy() -> None:
    script = f"import sys, ops.cli.main; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = run_process(sys.executable, "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_help_names_every_command() -> None:
    text = run("--help", code=0).stdout
    for command in ("up", "down", "status", "produce", "consume", "predict", "import", "demo"):
        assert f" {command} " in text


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (("up", "--detahc"), "--detach"),
        (("consum",), "consume"),
        (("broker", "strat"), "start"),
        (("--debgu", "up"), "--debug"),
    ],
)
def test_mistyped_word_brings_the_right_one(words: tuple[str, ...], right: str) -> None:
    assert right in run(*words, code=2).stderr


@pytest.mark.parametrize("command", [("up",), ("status", "--json"), ("predict", "x", "text")])
def test_without_a_file_it_says_where_to_begin(command: tuple[str, ...]) -> None:
    result = run(*command, code=2)
    assert result.stdout == ""
    assert "--config" in result.stderr
    assert "bertstream.example.yaml" in result.stderr


def test_predict_names_what_is_no_model_directory(empty_folder: Path) -> None:
    assert "no such directory: models/none" in run("predict", "models/none", "a", code=1).stderr
    assert "no such directory: none; and" in run("predict", "none", "a", code=2).stderr
    Path("file").write_text("")
    assert "file is a file, not a model directory" in run("predict", "file", "a", code=1).stderr


def test_config_check_names_every_mistake(empty_folder: Path) -> None:
    Path("bertstream.yaml").write_text("kafak: {}\nray: {num_cpus: 0}\n")
    lines = run("config", "check", code=2).stdout.splitlines()
    assert lines[0].startswith("bertstream.yaml:1:1: kafak: unknown key")
    assert lines[1].startswith("bertstream.yaml:2:7: ray.num_cpus: ")
    assert len(lines) == 2
    Path("bertstream.yaml").write_text("ray: {num_cpus: 1}\n")
    assert run("config", "check", code=0).stdout == "bertstream.yaml: valid\n"


def test_where_nothing_runs_down_is_content_and_status_is_not(empty_folder: Path) -> None:
    Path("bertstream.yaml").write_text("ray: {num_cpus: 1}\n")
    assert "Nothing runs here" in run("down", code=0).stdout
    assert "No broker runs here" in run("broker", "stop", code=0).stdout
    result = run("status", "--json", code=1)
    assert result.stdout == ""
    assert "bertstream up" in result.stderr


def test_broker_that_does_not_run_is_shown_as_such(empty_folder: Path) -> None:
    state = run("broker", "status", "--json", code=1).stdout
    assert json.loads(state) == {
        "running": False,
        "bootstrap_servers": None,
        "pid": None,
        "memory_bytes": None,
        "state_dir": str(empty_folder / ".bertstream" / "kafka"),
    }
    assert "not running" in run("broker", "status", code=1).stdout


def test_wrong_values_of_options_are_wrong_usage(empty_folder: Path) -> None:
    train = ("train", "text-classification", "--data", "d", "--out", "o", "--freeze", "half")
    assert "freeze" in run(*train, code=2).stderr
    result = run("import", "x", "--out", "o", "--task", "translation", code=2)
    assert "text-classification" in result.stderr
    importing = ("import", "x", "--out", "o", "--task")
    result = run(*importing, "text-clasification", code=2)
    assert "--task text-clasification: unknown; did you mean text-classification?" in result.stderr
    result = run(*importing, "feature-extraction", "--pooling", "maen", code=2)
    assert "--pooling maen: unknown; did you mean mean?" in result.stderr
    result = run(*importing, "feature-extraction", "--set", "tokens", code=2)
    assert "--set tokens: must be NAME=VALUE" in result.stderr
    Path("bertstream.yaml").write_text("kafka: {bootstrap_servers: '127.0.0.1:1'}\n")
    produce = ("produce", "t", "lines", "--key-field", "id", "--format", "text")
    assert "--key-field" in run(*produce, code=2).stderr
    assert "no file lines" in run("produce", "t", "lines", code=2).stderr


@pytest.mark.slow
def test_golden_texts_that_are_not_there_are_named_before_anything_is_made(
    empty_folder: Path,
) -> None:
    Path("reviews.jsonl").write_text('{"text": "fine", "label": "good"}\n')
    made = ("--out", "o", "--golden", "nowhere")
    ways = (
        ("import", "--task", "feature-extraction"),
        ("train", "text-classification", "--data", "reviews.jsonl"),
    )
    for way in ways:
        assert "nowhere: cannot be read" in run(*way, *made, code=1).stderr
        assert not Path("o").exists()


@pytest.mark.slow
def test_debug_shows_where_an_error_arose_and_keeps_stdout_clean() -> None:
    told = run_process(str(BERTSTREAM), "status")
    shown = run_process(str(BERTSTREAM), "--debug", "status")
    assert (shown.returncode, shown.stdout) == (told.returncode, "") == (2, "")
    assert "Traceback" not in told.stderr
    assert "DEBUG ops.cli.terminal: traceback of the error:\nTraceback" in shown.stderr
    assert shown.stderr.endswith(told.stderr)


@pytest.mark.kafka  # not needed, but it waits 10 s for one
def test_broker_that_is_not_there_is_named(empty_folder: Path) -> None:
    Path("bertstream.yaml").write_text("kafka: {bootstrap_servers: '127.0.0.1:1'}\n")
    done = run_process(str(BERTSTREAM), "consume", "topic", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_command_leaves_with_130(empty_folder: Path, how: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        Path("bertstream.yaml").write_text(f"kafka: {{bootstrap_servers: '{address}'}}\n")
        command = [str(BERTSTREAM), "consume", "topic"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(DEADLINE_S)
            connection, _ = silent.accept()  # now it waits for an answer
            process.send_signal(how)
            _, told = process.communicate(timeout=DEADLINE_S)
            connection.close()
    assert process.returncode == 130
    assert told == "error: interrupted\n"


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_up_that_is_interrupted_ends_what_it_started(
    shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before it has said where things are: nobody would know that they still run."""
    Path("bertstream.yaml").write_text("{}")
    told: list[str] = []

    def read_status(_: object) -> Status:
        if len(told) > shown:
            raise KeyboardInterrupt
        told.append("status")
        return Status(
            bootstrap_servers="127.0.0.1:9092",
            ray="127.0.0.1:6379",
            dashboard="http://127.0.0.1:8265",
            token_file=None,
            healthy=True,
            operator=None,
            apps=[],
            pipelines=[],
        )

    monkeypatch.setattr("ops.cli.platform.WATCH_S", 0.0)
    monkeypatch.setattr("ops.platform.status.status", read_status)
    monkeypatch.setattr("ops.platform.bring_up.up", lambda *_: told.append("up"))
    monkeypatch.setattr("ops.platform.bring_up.down", lambda *_: told.append("down"))
    run("up", code=0)
    assert told == ["up", *["status"] * shown, "down"]
