from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.main import app
from ops.cli.prediction import answer_line, answer_text, predict_texts
from ops.errors import ConfigError
from serve.artifact import Artifact, ModelCard, write_card
from serve.contract import Answer, CallOptions, Failure, FailureKind
from serve.errors import ParametersRefused
from tests.ops.directories import make_directory
from tests.serve.tiny import make_source, sentiment

__all__ = ["make_source", "sentiment"]

ANSWER = Answer(b'[{"label":"a","score":0.50}]', None, "a", 0.5, 3, truncated=False)
FAILURE = Failure(FailureKind.EMPTY_TEXT, "the value is empty or only white space")


def test_line_has_index_text_and_result_as_it_was_written() -> None:
    line = answer_line(3, "fine day", ANSWER)
    assert line == '{"index":3,"text":"fine day","result":[{"label":"a","score":0.50}]}'


def test_line_without_a_result_says_why() -> None:
    assert json.loads(answer_line(0, "", FAILURE)) == {
        "index": 0,
        "text": "",
        "error": "empty-text",
        "message": FAILURE.message,
    }


def test_bytes_that_are_not_utf8_are_shown() -> None:
    assert json.loads(answer_line(0, "caf\udce9", FAILURE))["text"] == "caf\\xe9"


def test_text_that_was_cut_is_flagged() -> None:
    cut = ANSWER._replace(truncated=True)
    assert json.loads(answer_line(0, "fine day", cut))["truncated"] is True
    assert "truncated" not in json.loads(answer_line(0, "fine day", ANSWER))


def test_people_see_text_and_result() -> None:
    assert answer_text("fine day", ANSWER) == 'fine day\n  [{"label":"a","score":0.50}]'


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('{"text": "fine", "id": 1}', {"text": "fine", "id": 1}),
        ("{broken", "{broken"),
        ('"caf\udce9"', '"caf\\xe9"'),
    ],
)
def test_line_of_a_record_has_the_record(given: str, shown: object) -> None:
    line = json.loads(answer_line(0, given, ANSWER, is_record=True))
    assert line == {"index": 0, "record": shown, "result": [{"label": "a", "score": 0.5}]}


def test_parameter_that_the_model_lacks_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    model = str(make_directory(tmp_path / "model"))  # its weights could not be loaded
    options = CallOptions(format="text", parameters={"topk": 3})
    with pytest.raises(ParametersRefused, match=r"there is no topk; did you mean top_k\?"):
        predict_texts(model, ["fine"], options, config=None)


def test_task_with_several_inputs_wants_records(tmp_path: Path) -> None:
    card = ModelCard.model_validate(
        {"task": "sentence-similarity", "head": {"pooling": {}}, "max_length": 64}
    )
    write_card(tmp_path, card)
    with pytest.raises(ConfigError, match=r"sentence-similarity needs .* pass --records"):
        predict_texts(str(tmp_path), ["fine"], CallOptions(format="text"), config=None)


@pytest.mark.model
def test_records_and_parameters_reach_the_model(sentiment: Artifact) -> None:
    records = ('{"text": "fine", "text_pair": "day", "id": 7}', '{"id": 8}')
    words = ("predict", str(sentiment.path), *records, "--records", "--set", "top_k=1", "--json")
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["record"]["id"], len(first["result"])) == (7, 1)
    assert (second["record"], second["error"]) == ({"id": 8}, "no-text")
    wrong = ("predict", str(sentiment.path), "fine", "--set", "topk=1")
    done = CliRunner().invoke(app, [*wrong])
    assert done.exit_code == 1
    assert "there is no topk; did you mean top_k?" in done.stderr
