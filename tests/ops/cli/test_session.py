"""How commands find the platform, and how light they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner, Result

from ops.api.app import create_app
from ops.cli.main import app
from ops.config.file import check, load
from ops.config.state_dir import DEFAULT_STATE_DIR, state_dir_of
from ops.errors import ConfigError
from ops.processes.ports import free_port
from tests.certificates import write_certificates
from tests.ops.cli.command import Bertstream
from tests.ops.installation import Installation, served

# What the platform runs on and a client of its API does without.
HEAVY = ("sqlalchemy", "fastapi", "uvicorn", "httpx", "numpy", "yaml", "ray", "torch")
GROUPS = ("models", "policy", "people", "team", "grant", "token", "ledger", "release")
ALONE = ("rollback", "cost", "alerts", "health")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, [*words])
    assert "Traceback" not in result.output
    return result


def test_without_a_platform_it_says_how_to_start_one() -> None:
    result = run("models", "list")
    assert result.exit_code == 1
    assert "start one with `bertstream up`" in result.stderr


def test_without_a_token_it_says_where_to_get_one() -> None:
    result = run("models", "list", "--api", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "BERTSTREAM_TOKEN" in result.stderr


def test_platform_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".bertstream").mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    Path(".bertstream/state.json").write_text(json.dumps({"api": url}))
    monkeypatch.setenv("BERTSTREAM_TOKEN", "bst_x")
    result = run("models", "list")
    assert result.exit_code == 1
    assert f"the control API at {url} does not answer" in result.stderr
    Path(".bertstream/state.json").write_text("half of a fil")
    assert "no platform runs here" in run("models", "list").stderr


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8000", "http://", ""])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BERTSTREAM_TOKEN", "bst_x")
    result = run("models", "list", "--api", url or "http://")
    assert result.exit_code == 2
    assert "not the URL of a control API" in result.stderr


def test_named_platform_goes_before_the_one_here(
    bertstream: Bertstream,
    there: Installation,
    address: tuple[str, FastAPI],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".bertstream/state.json").unlink()
    assert "no platform" in bertstream("people", "show", code=1).stderr
    assert bertstream("people", "show", "--api", address[0]).stdout.startswith("root")
    monkeypatch.setenv("BERTSTREAM_API", f"{address[0]}/")
    assert bertstream("people", "show").stdout.startswith("root")


def test_something_else_that_answers(
    monkeypatch: pytest.MonkeyPatch, address: tuple[str, FastAPI]
) -> None:
    monkeypatch.setenv("BERTSTREAM_TOKEN", "bst_x")
    result = run("models", "list", "--api", f"{address[0]}/elsewhere")
    assert (result.exit_code, "there is no /elsewhere" in result.stderr) == (1, True)


def test_over_tls_to_an_authority_that_is_known_alone(
    there: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_certificates(tmp_path)
    monkeypatch.setenv("BERTSTREAM_TOKEN", there.secrets["ana"])
    with served(create_app(there.service), certificate=files.keystore) as url:
        refused = run("people", "show", "--api", url)
        assert (refused.exit_code, "cannot be trusted" in refused.stderr) == (1, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        assert run("people", "show", "--api", url).stdout.startswith("ana: person")
        plainly = run("people", "show", "--api", url.replace("https", "http"))
        assert (plainly.exit_code, "does not answer" in plainly.stderr) == (1, True)


@pytest.mark.parametrize("command", [*GROUPS, *ALONE])
def test_help_of_every_command(command: str) -> None:
    told = run(command, "--help")
    assert (told.exit_code, f" {command} [OPTIONS]" in told.output) == (0, True)
    assert f" {command} " in run("--help").output


def test_the_nearest_command_is_suggested() -> None:
    told = run("model", "list")
    assert told.exit_code == 2
    assert "Did you mean 'models'?" in told.stderr


STATE_OF = {
    "models: []\n": ".bertstream",
    "# state_dir: elsewhere\n": ".bertstream",
    "models: [{state_dir: elsewhere}]\n": ".bertstream",
    "state_dir: elsewhere\n": "elsewhere",
    '{"state_dir": "elsewhere"}': "elsewhere",
    "state_dir: ${PLACE}/state\n": "else/state",
    "state_dir:\n": ".bertstream",
    "state_dir": ".bertstream",
}


@pytest.mark.parametrize("text", STATE_OF)
def test_the_platform_of_the_configuration_here_is_found(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As ``up`` finds it, though it reads all of the file."""
    monkeypatch.setenv("PLACE", "else")
    Path("bertstream.yaml").write_text(text)
    assert f"no platform runs here ({STATE_OF[text]});" in run("models", "list").stderr
    assert "(named);" in run("models", "list", "--state-dir", "named").stderr
    if check(Path("bertstream.yaml")) == []:
        assert load(Path("bertstream.yaml")).state_dir == Path(STATE_OF[text])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("state_dir: [a", "while parsing"),
        ("state_dir: [a]", "state_dir is not a path"),
        ("state_dir: ${NOWHERE_AT_ALL}", "variable NOWHERE_AT_ALL is not set"),
        ("state_dir: \xff", "can't decode"),
    ],
)
def test_a_configuration_that_says_it_badly(text: str, why: str) -> None:
    Path("bertstream.yaml").write_bytes(text.encode("latin-1"))
    told = run("health")
    assert (told.exit_code, why in told.stderr) == (2, True)
    assert "(named);" in run("models", "list", "--state-dir", "named").stderr


def test_a_client_loads_nothing_that_the_platform_runs_on(
    bertstream: Bertstream, address: tuple[str, FastAPI]
) -> None:
    bertstream("people", "show")  # writes the token
    others = {f"ops.cli.{name}" for name in ("policies", "people", "grants", "releases")}
    script = (
        "import sys\nfrom ops.cli.main import app\n"
        "try:\n    app(['models', 'list'])\nexcept SystemExit as left:\n"
        f"    print(left.code, *sorted(set(sys.modules) & {others | set(HEAVY)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr


def _commands(group: Any, *names: str) -> Iterator[tuple[str, set[str]]]:
    context = Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "commands"):
            yield from _commands(command, *names, name)
        else:
            yield " ".join((*names, name)), {o for p in command.params for o in p.opts}


def test_every_command_of_a_platform_takes_its_configuration() -> None:
    """Whatever finds a platform by its state finds it by its file, too."""
    found = dict(_commands(get_command(app)))
    assert "--config" in found["health"]
    assert len([name for name, options in found.items() if "--state-dir" in options]) > 30
    assert not [n for n, o in found.items() if "--state-dir" in o and not {"--config", "-c"} <= o]


def test_a_configuration_names_the_state(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(f"state_dir: {tmp_path / 'there'}\n")
    assert state_dir_of(file) == tmp_path / "there"
    file.write_text("ray: {}\n")
    assert state_dir_of(file) == DEFAULT_STATE_DIR
    assert state_dir_of(tmp_path / "folder") == tmp_path / "folder"
    with pytest.raises(ConfigError, match=r"there is no configuration .*missing\.yaml"):
        state_dir_of(tmp_path / "missing.yaml")
