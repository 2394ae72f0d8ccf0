from __future__ import annotations

import json

from ops.cli.prediction import answer_line, answer_text
from serve.contract import Answer, Failure, FailureKind

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


def test_people_see_text_and_result() -> None:
    assert answer_text("fine day", ANSWER) == 'fine day\n  [{"label":"a","score":0.50}]'
