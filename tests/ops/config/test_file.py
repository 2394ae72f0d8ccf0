"""The YAML file: every mistake with its line and the nearest right key."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives import serialization

from ops.config.file import check, load
from ops.errors import ConfigError
from ops.platform.bring_up import with_secrets
from tests.certificates import write_certificates
from tests.ops.directories import make_directory

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
    windwo, kafak = problems["pipelines.0.windwo"], problems["kafak"]
    assert (windwo.line, windwo.column) == (8, 5)
    assert "did you mean window?" in windwo.message
    assert "did you mean output_topic?" in problems["pipelines.0.outptu_topic"].message
    assert problems["pipelines.0.output_topic"].message == "output_topic is missing"
    assert (kafak.line, kafak.column) == (9, 1)
    assert "did you mean kafka?" in kafak.message


def test_a_key_with_a_pass_phrase_wants_it(tmp_path: Path) -> None:
    file = write_certificates(tmp_path).keystore
    content = file.read_bytes()
    key = serialization.load_pem_private_key(content, None)
    locked = serialization.BestAvailableEncryption(b"open sesame")
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        + content[content.index(b"-----BEGIN CERTIFICATE") :]
    )
    more = "kafka: {security_protocol: SSL, ssl_certfile: broker.pem, ssl_keyfile: broker.pem%s}\n"
    more += "api: {tls_certfile: broker.pem, tls_keyfile: broker.pem%s}\n"
    kafka, api = sorted(
        check(written(tmp_path, GOOD + more % ("", ""))), key=lambda p: -len(p.path)
    )
    assert (kafka.path, api.path) == ("kafka.ssl_keyfile", "api.tls_keyfile")
    assert kafka.message.endswith("has a pass phrase, and none is set: set kafka.ssl_password")
    assert api.message.endswith("set api.tls_password")
    right = (", ssl_password: open sesame", ", tls_password: open sesame")
    config = load(written(tmp_path, GOOD + more % right))
    assert "sesame" not in repr(config)
    sent = orjson.loads(with_secrets(config))
    assert sent["kafka"]["ssl_password"] == sent["api"]["tls_password"] == "open sesame"


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


def pipelines(*topics: tuple[str, str, str, str]) -> str:
    """A configuration of pipelines, each with name, input, results and dead letters."""
    lines = [
        f"  - {{name: {name}, model: sentiment, input_topics: [{read}], output_topic: {results}, "
        f"dead_letter_topic: {letters}}}\n"
        for name, read, results, letters in topics
    ]
    return GOOD.partition("pipelines:")[0] + "pipelines:\n" + "".join(lines)


@pytest.mark.parametrize(
    ("topics", "line", "circle"),
    [
        ([("p", "a", "b", "pd"), ("q", "b", "a", "qd")], 5, "b -> q -> a -> p -> b"),
        ([("p", "a", "b", "pd"), ("q", "pd", "c", "a")], 5, "pd -> q -> a -> p -> pd"),
        (
            [("p", "a", "b", "pd"), ("q", "b", "c", "qd"), ("r", "x, c", "d", "a")],
            6,
            "c -> r -> a -> p -> b -> q -> c",
        ),
    ],
)
def test_pipelines_that_feed_each_other_are_told_with_their_circle(
    tmp_path: Path, topics: list[tuple[str, str, str, str]], line: int, circle: str
) -> None:
    (problem,) = check(written(tmp_path, pipelines(*topics)))
    assert problem.line == line
    assert problem.path.endswith("input_topics")
    assert problem.message.endswith(f"forever: {circle}")
    with pytest.raises(ConfigError, match=f"bertstream.yaml:{line}:"):
        load(tmp_path / "bertstream.yaml")


def test_each_of_two_circles_is_told_once(tmp_path: Path) -> None:
    text = pipelines(
        ("p", "a", "b", "pd"), ("q", "b", "a", "qd"), ("r", "qd", "b", "rd"), ("s", "x", "y", "z")
    )
    told = [problem.message for problem in check(written(tmp_path, text))]
    assert len(told) == 2
    assert not any("-> s" in message for message in told)


def test_a_chain_of_pipelines_is_fine(tmp_path: Path) -> None:
    text = pipelines(("p", "a", "b", "pd"), ("q", "b", "c", "qd"), ("r", "pd, qd", "c", "rd"))
    assert check(written(tmp_path, text)) == []


@pytest.mark.parametrize(
    ("topics", "path"),
    [
        (("p", "bertstream.telemetry", "b", "pd"), "pipelines.0.input_topics"),
        (("p", "a", "bertstream.control", "pd"), "pipelines.0.output_topic"),
        (("p", "a", "b", "bertstream.consumers"), "pipelines.0.dead_letter_topic"),
    ],
)
def test_topics_of_the_platform_are_no_pipelines(
    tmp_path: Path, topics: tuple[str, str, str, str], path: str
) -> None:
    (problem,) = check(written(tmp_path, pipelines(topics)))
    assert problem.path == path
    assert "reserved for the platform" in problem.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [", "not YAML"), ("- 1", "must hold keys"), ("", "must hold keys")],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, complaint: str) -> None:
    (problem,) = check(written(tmp_path, text))
    assert complaint in problem.message


def test_places_are_told_as_compilers_do(tmp_path: Path) -> None:
    file = written(tmp_path, "models:\n  - {name: a, path: p, replicas: 0}\n  - {name: }\n")
    told = [problem.located_in(file) for problem in check(file)]
    assert told[0].startswith(f"{file}:2:24: models.0.replicas: ")
    assert told[1] == f"{file}:3:5: models.1.path: path is missing"
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert all(line in str(caught.value) for line in told)
    (broken,) = check(written(tmp_path, "models: ]\n"))
    assert broken.located_in(file).startswith(f"{file}:1:9: not YAML: ")
    missing = tmp_path / "none.yaml"
    assert [p.located_in(missing) for p in check(missing)] == [f"{missing}: there is no such file"]


def test_key_that_stands_twice_is_told(tmp_path: Path) -> None:
    (problem,) = check(written(tmp_path, GOOD + "    model: sentiment\n"))
    assert (problem.line, problem.path) == (8, "pipelines.0.model")
    assert "2 times" in problem.message


def test_mistakes_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("model: sentiment", "model: sentimnt") + "    window: many\nraj: {}\n"
    problems = [(problem.line, problem.path) for problem in check(written(tmp_path, text))]
    assert problems == [(5, "pipelines.0.model"), (8, "pipelines.0.window"), (9, "raj")]


def test_number_where_text_is_wanted_is_to_be_quoted(tmp_path: Path) -> None:
    text = GOOD.replace("name: sentiment,", "name: sentiment, version: 2,")
    (problem,) = check(written(tmp_path, text))
    assert 'write "2" in quotes' in problem.message


def test_value_from_the_environment_is_not_shown_wherever_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    (problem,) = check(written(tmp_path, GOOD + "    window: ${SOME_SECRET}\n"))
    assert problem.path == "pipelines.0.window"
    assert "hunter2" not in str(problem)


def test_paths_are_absolute_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, GOOD + "kafka: {bootstrap_servers: 'b:1', ssl_cafile: ca.pem}\n")
    monkeypatch.chdir(tmp_path)
    config = load(Path("bertstream.yaml"))
    assert config.models[0].path == tmp_path / "models/sentiment"
    assert config.kafka.ssl_cafile == tmp_path / "ca.pem"


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
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
    problems = {problem.path: problem.message for problem in check(file)}
    assert problems.keys() == {"kafka.sasl_password", "kafka.wrong"}
    assert "KAFKA_PASSWORD is not set" in problems["kafka.sasl_password"]
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    (problem,) = check(file)
    assert "hunter2" not in str(problem)
    config = load(written(tmp_path, text.replace(", wrong: 1", "")))
    assert config.kafka.client_options()["sasl_plain_password"] == "hunter2"
    assert "hunter2" not in repr(config) + config.model_dump_json()


OPTIONS = """\
    fields: {text: body}
    long_text: window
    parameters:
      top_k: 3
"""


def test_options_of_a_task_are_read(tmp_path: Path) -> None:
    (pipeline,) = load(written(tmp_path, GOOD + OPTIONS)).pipelines
    options = pipeline.call_options()
    assert (options.fields, options.parameters) == ({"text": "body"}, {"top_k": 3})


@pytest.mark.parametrize(
    ("before", "after", "line", "path", "words"),
    [
        ("{text: body}", "{text: 3}", 8, "pipelines.0.fields.text", 'write "3" in quotes'),
        ("{text: body}", "body", 8, "pipelines.0.fields", "valid dictionary"),
        ("long_text", "long_txt", 9, "pipelines.0.long_txt", "did you mean long_text?"),
        ("window", "cut", 9, "pipelines.0.long_text", "'truncate', 'window' or 'dead-letter'"),
        ("top_k: 3", "top_k: 2026-01-01", 11, "pipelines.0.parameters.top_k", "valid JSON value"),
    ],
)
def test_mistake_in_options_of_a_task_is_told_with_its_place(
    tmp_path: Path, before: str, after: str, line: int, path: str, words: str
) -> None:
    (problem,) = check(written(tmp_path, GOOD + OPTIONS.replace(before, after)))
    assert (problem.line, problem.path) == (line, path)
    assert words in problem.message


def test_settings_that_do_not_fit_the_directory_of_the_model_are_warnings(tmp_path: Path) -> None:
    make_directory(tmp_path / "models" / "sentiment")
    file = written(tmp_path, GOOD + OPTIONS)
    assert check(file) == []
    text = GOOD + OPTIONS.replace("top_k", "topk").replace("{text: body}", "{txt: body}")
    fields, parameters = check(written(tmp_path, text))
    assert (fields.line, fields.path, fields.severity) == (8, "pipelines.0.fields", "warning")
    assert fields.message == "text-classification has no input 'txt'; did you mean text?"
    assert (parameters.line, parameters.path) == (10, "pipelines.0.parameters")
    assert "did you mean top_k?" in parameters.message
    load(tmp_path / "bertstream.yaml")  # the version that is live may be another
