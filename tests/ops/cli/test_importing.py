from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.importing import head_of, named_directories
from ops.cli.main import app
from ops.errors import ConfigError
from serve.artifact import load
from tests.serve.heads import heads_of
from tests.serve.tiny import MakeSource, make_source, tiny_config

__all__ = ["make_source"]


def test_options_of_their_own_are_fields_of_the_head() -> None:
    assert head_of(pooling=None, labels=None) == {}
    assert head_of(pooling="cls", labels="bad,good") == {
        "pooling": {"mode": "cls"},
        "labels": ["bad", "good"],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["topic"], "topic: must be NAME=DIRECTORY"),
        (["=models/topic"], "must be NAME=DIRECTORY"),
        (["topic=a", "topic=b"], "the name topic is used twice"),
    ],
)
def test_heads_without_a_name_or_with_the_same_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_directories(given)


@pytest.mark.model
def test_import_takes_fields_of_the_head(make_source: MakeSource, tmp_path: Path) -> None:
    source, out = str(make_source(classifies=False)), tmp_path / "model"
    words = ("import", source, "--out", str(out), "--task", "feature-extraction")
    done = CliRunner().invoke(app, [*words, "--pooling", "cls", "--set", "tokens=true"])
    assert done.exit_code == 0, done.output
    head = load(out).card.head.model_dump()
    assert (head["tokens"], head["pooling"]["mode"]) == (True, "cls")
    done = CliRunner().invoke(app, [*words[:3], str(tmp_path / "b"), *words[4:], "--set", "tokn=1"])
    assert done.exit_code == 1
    assert "there is no tokn; did you mean tokens?" in done.stderr


@pytest.mark.model
def test_combined_models_answer_in_one_call(tmp_path: Path) -> None:
    tasks = ("text-classification", "token-classification")
    topic, names = heads_of(tiny_config(), tasks, tmp_path).values()
    out = tmp_path / "both"
    words = ("combine", f"topic={topic.path}", f"names={names.path}", "--out", str(out))
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    assert f"{out}: multi-task, digest {load(out).digest}" in done.stdout
    done = CliRunner().invoke(app, ["predict", str(out), "fine day", "--json"])
    assert list(json.loads(done.stdout)["result"]) == ["topic", "names"]
