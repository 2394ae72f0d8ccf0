"""What is checked and registered before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ops.config.settings import PlatformConfig
from ops.errors import ConfigError
from ops.platform.bootstrap import register, require_fit
from ops.releases.routes import put_route
from ops.sql.database import Database
from serve.artifact import load
from serve.settings import ModelSettings
from stream.schema import ControlRecord, VersionRoute
from stream.settings import PipelineSettings
from tests.ops.directories import make_directory


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}")) as database:
        yield database


def configuration(folder: Path, model: Path, **pipelines: dict[str, Any]) -> PlatformConfig:
    """One model, and pipelines by name, each with settings."""
    return PlatformConfig(
        state_dir=folder / "state",
        models=(ModelSettings(name="m", path=model),),
        pipelines=tuple(
            PipelineSettings.model_validate(
                {"name": name, "model": "m", "input_topics": ["in"], "output_topic": name}
                | settings
            )
            for name, settings in pipelines.items()
        ),
    )


def fit(config: PlatformConfig, database: Database) -> None:
    require_fit(config, database, {m.name: load(m.path).card for m in config.models})


def test_every_pipeline_that_does_not_fit_is_named(tmp_path: Path, database: Database) -> None:
    model = make_directory(tmp_path / "model")
    good = {"parameters": {"top_k": 1}, "fields": {"text": "body"}}
    fit(configuration(tmp_path, model, good=good), database)
    wrong = {"fields": {"txt": "body"}, "parameters": {"topk": 1}}
    several = configuration(tmp_path, model, good=good, one=wrong, two={"fields": {"t": "b"}})
    with pytest.raises(ConfigError) as raised:
        fit(several, database)
    begins = [line.partition(": text-classification")[0] for line in str(raised.value).splitlines()]
    assert begins == [
        "pipeline one does not fit m: fields",
        "pipeline one does not fit m: parameters",
        "pipeline two does not fit m: fields",
    ]


def test_version_that_is_live_decides_and_not_the_directory_of_the_configuration(
    tmp_path: Path, database: Database
) -> None:
    old = make_directory(tmp_path / "old")
    new = make_directory(tmp_path / "new", golden={"fine": [0.6, 0.8]})  # embeds
    config = configuration(tmp_path, old, one={"parameters": {"top_k": 1}})
    for path in (old, new):
        register(configuration(tmp_path, path), database, lambda _: None)
    fit(config, database)
    with database.begin() as connection:
        live = ControlRecord(model="m", epoch=2, versions={"2": VersionRoute(weight=1.0)})
        put_route(connection, live)
    with pytest.raises(ConfigError, match=r"one does not fit m@2: parameters: feature-extraction"):
        fit(config, database)
    fit(configuration(tmp_path, old, one={"parameters": {"dimensions": 8}}), database)
