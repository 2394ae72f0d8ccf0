"""How commands find the platform, and how light they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from ops.api import create_app
from ops.cli import app
from ops.loopback import free_port
from tests.certificates import write_certificates
from tests.ops.commands.conftest import Bertstream
from tests.ops.installation import Installation, served

# What the platform runs on and a client of its API does without.
HEAVY = ("sqlalchemy", "fastapi", "uvicorn", "httpx", "numpy", "yaml", "rich", "ray", "torch")
GROUPS = ("models", "policy", "people", "team", "grant", "token", "ledger")


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
    assert "`bertstream up` starts one" in result.stderr


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
    assert "no address of a control API" in result.stderr


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


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_every_group(group: str) -> None:
    assert run(group, "--help").exit_code == 0


def test_a_client_loads_nothing_that_the_platform_runs_on(
    bertstream: Bertstream, address: tuple[str, FastAPI]
) -> None:
    bertstream("people", "show")  # writes the token
    script = (
        "import sys\nfrom ops.cli import app\n"
        "try:\n    app(['models', 'list'])\nexcept SystemExit as left:\n"
        f"    print(left.code, *sorted(set(sys.modules) & {set(HEAVY)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
