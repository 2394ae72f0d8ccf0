"""The command line against a real control API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from ops.api.app import create_app
from ops.catalogue.store import ArtifactStore
from ops.cli.main import app
from ops.service.service import Service
from ops.sql.database import Database
from tests.ops.cli.command import Bertstream
from tests.ops.installation import Installation, install, served


@pytest.fixture(scope="session")
def address() -> Iterator[tuple[str, FastAPI]]:
    """A server for all tests; each has an installation of its own behind it."""
    api = create_app(Service(Database("sqlite:///nowhere"), ArtifactStore("nowhere")))
    with served(api) as url:
        yield url, api


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Iterator[Installation]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}")) as database:
        yield install(database, tmp_path)


@pytest.fixture
def bertstream(
    there: Installation,
    address: tuple[str, FastAPI],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bertstream:
    """The command in a folder where the platform runs."""
    url, api = address
    api.state.service = there.service
    folder = tmp_path / "here"
    (folder / ".bertstream").mkdir(parents=True)
    (folder / ".bertstream" / "state.json").write_text(json.dumps({"api": url}))
    monkeypatch.chdir(folder)

    def run(*words: str, code: int = 0, who: str = "root") -> Result:
        (folder / ".bertstream" / "token").write_text(f"{there.secrets[who]}\n")
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert there.secrets[who] not in result.output
        if "--json" not in words:
            wide = [line for line in result.stdout.splitlines() if line.startswith("  ")]
            assert all(len(line) <= 80 for line in wide)
        return result

    return run
