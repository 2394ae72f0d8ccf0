"""The YAML file: every mistake with its line and the nearest right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.config import check, load
from ops.errors import ConfigError

GOOD = """\
models:
  - {name: sentiment, path: models/sentiment}
pipelines:
  - name: reviews
    model: sentiment
    input_topics: [reviews]
    output_topic: reviews.sentiment
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "bertstream.yaml"
    file.write_text(text)
    return file


def test_good_file_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    assert config.models[0].path == tmp_path / "models/sentiment"
    assert config.pipelines[0].dead_letters == "reviews.sentiment.dead-letters"
    assert check(tmp_path / "bertstream.yaml") == []


def test_every_wrong_key_is_named_with_line_and_nearest_right_one(tmp_path: Path) -> None:
    text = GOOD.replace("output_topic", "outptu_topic") + "    windwo: 3\nkafak: {}\n"
    problems = {problem.path: problem for problem in check(written(tmp_path, text))}
    assert problems["pipelines.0.windwo"].line == 8
    assert "did you mean window?" in problems["pipelines.0.windwo"].message
    assert "did you mean output_topic?" in problems["pipelines.0.outptu_topic"].message
    assert problems["pipelines.0.output_topic"].message == "output_topic is missing"
    assert problems["kafak"].line == 9
    assert "did you mean kafka?" in problems["kafak"].message


def test_wrong_value_is_told_and_where(tmp_path: Path) -> None:
    (problem,) = check(written(tmp_path, GOOD + "    window: 0\n"))
    assert (problem.line, problem.path) == (8, "pipelines.0.window")
    assert "greater than or equal to 1" in problem.message


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("  - {name: reviews, model: sentiment, input_topics: [a], output_topic: b}", "twice"),
        ("  - {name: x, model: other, input_topics: [a], output_topic: b}", "uses model other"),
        ("  - {name: x, model: sentiment, input_topics: [a], output_topic: a}", "reads and writes"),
    ],
)
def test_names_that_do_not_fit_together(tmp_path: Path, more: str, complaint: str) -> None:
    (problem,) = check(written(tmp_path, GOOD + more + "\n"))
    assert complaint in problem.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [", "not YAML"), ("- 1", "must hold keys"), ("", "must hold keys")],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, complaint: str) -> None:
    (problem,) = check(written(tmp_path, text))
    assert complaint in problem.message


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path / "none.yaml")


def test_secrets_come_from_the_environment_and_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "kafka: {bootstrap_servers: 'b:1', security_protocol: SASL_SSL, sasl_mechanism: PLAIN,"
        " sasl_username: u, sasl_password: '${KAFKA_PASSWORD}', wrong: 1}\n"
    )
    file = written(tmp_path, text)
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    (problem,) = check(file)
    assert "KAFKA_PASSWORD is not set" in problem.message
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    (problem,) = check(file)
    assert "hunter2" not in str(problem)
    config = load(written(tmp_path, text.replace(", wrong: 1", "")))
    assert config.kafka.client_options()["sasl_plain_password"] == "hunter2"
    assert "hunter2" not in repr(config) + config.model_dump_json()
