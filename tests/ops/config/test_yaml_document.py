"""YAML texts with places."""

from __future__ import annotations

import time

import pytest

from ops.config.settings import PlatformConfig
from ops.config.yaml_document import Document, keys_at, nearest, read
from ops.problems import Problem, ProblemSeverity


def document(text: str) -> Document:
    found = read(text, expected="a, b")
    assert isinstance(found, Document)
    return found


def place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.column


def test_problem_has_the_place_of_the_key() -> None:
    problem = document("a:\n  - {b: 1}\n").problem(("a", 0, "b"), "wrong")
    assert problem == Problem(2, 6, "a.0.b", "wrong")
    assert str(problem) == "line 2:6: a.0.b: wrong"


def test_key_that_is_not_there_has_the_place_above() -> None:
    assert place(document("a:\n  - {b: 1}\n").problem(("a", 0, "c"), "missing")) == (2, 5)
    assert str(document("a: 1").problem(("b",), "missing")) == "b: missing"


def test_warning_says_so() -> None:
    problem = document("a: 1").problem(("a",), "odd", ProblemSeverity.WARNING)
    assert str(problem) == "line 1:1: warning: a: odd"


def test_key_that_is_a_number_is_found() -> None:
    assert place(document("a: 1\n7: x\n").problem(("7",), "no text")) == (2, 1)


@pytest.mark.parametrize("value", ["2026-99-99", "!!timestamp 99", "!!bool x", '!!int ""'])
def test_value_that_a_type_of_yaml_fails_on_has_its_place(value: str) -> None:
    refused = read(f"a:\n  - b: {value}\n", expected="a")
    assert isinstance(refused, Problem)
    assert place(refused) == (2, 8)
    assert refused.message.startswith("this value cannot be parsed: ")


def test_key_is_the_text_that_it_was_written_as() -> None:
    text = "no: 1\n7: {~: 2}\n2026-99-99: 3\nx: {<<: {on: 4}}\n"
    assert document(text).content == {
        "no": 1,
        "7": {"~": 2},
        "2026-99-99": 3,
        "x": {"on": 4},
    }


def test_equal_keys_are_found() -> None:
    (problem,) = document("a: {b: 1, b: 2}").keys_twice()
    assert (problem.path, problem.message) == ("a.b", "b appears here 2 times")


def test_aliases_only_where_wanted() -> None:
    text = "a: &x 1\nb: *x\n"
    assert document(text).content == {"a": 1, "b": 1}
    refused = read(text, expected="a", aliases=False)
    assert isinstance(refused, Problem)
    assert place(refused) == (2, 4)


@pytest.mark.parametrize("text", ["[" * 10_000, "- " * 10_000, "{a: " * 10_000])
def test_depth_is_bounded(text: str) -> None:
    refused = read(text, expected="a")
    assert isinstance(refused, Problem)
    assert refused.message == "nested too deeply"


@pytest.mark.slow
def test_many_problems_take_no_longer_each() -> None:
    names = [f"k{number}" for number in range(20_000)]
    found = document("{" + ",".join(names) + "}")
    started = time.process_time()
    problems = [found.problem((name,), "unknown") for name in names]
    assert time.process_time() - started < 2.0, "it takes minutes where every key is gone through"
    assert [problem.column for problem in problems[:2]] == [2, 5]


def test_keys_of_settings_by_path() -> None:
    assert "max_batch_tokens" in keys_at(PlatformConfig, ("models", 0, "engine"))
    assert list(keys_at(PlatformConfig, ("state_dir", "x"))) == []


def test_nearest_word_or_all() -> None:
    assert nearest("windwo", ["window", "other"]) == "; did you mean window?"
    assert nearest("zzz", ["window", "other"]) == "; known are window, other"


def test_aliases_within_aliases_are_bounded() -> None:
    text = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    assert "more than 100,000 keys" in str(read(text, expected="a"))
    assert "nested too deeply" in str(read("a: 1\nb: &x [*x]\n", expected="a"))
