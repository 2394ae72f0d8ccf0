"""``bertstream models`` against a real control API."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.artifact import load
from tests.ops.cli.command import Bertstream, as_json
from tests.ops.directories import make_directory
from tests.ops.installation import Installation

LABELS = ("negative", "positive", "neutral")


@pytest.fixture
def registered(there: Installation, bertstream: Bertstream) -> list[Path]:
    """sentiment@1 and a better sentiment@2 with another label."""
    figures = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85}
    better = {"accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.93}
    golden = {"fine": {"positive": 0.9, "negative": 0.1}, "bad": {"negative": 1.0}}
    other = {"fine": {"negative": 0.9, "positive": 0.1}, "bad": {"negative": 1.0}}
    one = make_directory(there.folder / "one", metrics=figures, golden=golden)
    two = make_directory(
        there.folder / "two", metrics=better, golden=other, labels=LABELS, config={"layers": 12}
    )
    for directory in (one, two):
        bertstream("models", "register", "sentiment", str(directory), who="ana")
    return [one, two]


def test_registering_twice_says_so(bertstream: Bertstream, registered: list[Path]) -> None:
    told = bertstream("models", "register", "sentiment", str(registered[0])).stdout
    assert told.startswith("sentiment@1 (the same bytes were registered before), digest ")
    done = as_json(bertstream("models", "register", "sentiment", str(registered[1]), "--json"))
    assert (done["version"], done["existed"]) == (2, True)


def test_registering_a_path_from_here(bertstream: Bertstream, there: Installation) -> None:
    make_directory(there.folder / "here" / "made")
    assert bertstream("models", "register", "mine", "made").stdout.startswith("mine@1, digest ")


def test_registering_what_is_at_a_url(bertstream: Bertstream, there: Installation) -> None:
    made = make_directory(there.folder / "made")
    assert bertstream("models", "register", "mine", made.as_uri()).stdout.startswith("mine@1, ")
    assert made.as_uri() in bertstream("models", "show", "mine@1").stdout


def test_registering_what_is_none(bertstream: Bertstream, there: Installation) -> None:
    error = bertstream("models", "register", "m", "nowhere", code=1).stderr
    assert "nowhere: no such model directory" in error
    error = bertstream("models", "register", "m", "ftps3://x", code=1).stderr
    assert "known protocols: " in error
    made = str(make_directory(there.folder / "made"))
    error = bertstream("models", "register", "sentiment", made, who="eve", code=1).stderr
    assert "eve lacks the permission register on sentiment; ask " in error
    error = bertstream("models", "register", "Bad!", made, code=2).stderr
    assert "name: a model name has at most 63 lower case letters" in error


@pytest.mark.usefixtures("registered")
def test_lists(bertstream: Bertstream) -> None:
    assert bertstream("models", "list").stdout.splitlines()[1].split()[:2] == ["2", "2"]
    lines = bertstream("models", "list", "sentiment").stdout.splitlines()
    begins = [line[:7].strip() for line in lines]  # the paths of these tests take several lines
    assert [text for text in begins if text] == ["version", "2", "1"]
    page = bertstream("models", "list", "sentiment", "--limit", "1")
    assert "more: --before 2" in page.stderr
    page = bertstream("models", "list", "sentiment", "--before", "2", "--json")
    assert [version["number"] for version in as_json(page)["items"]] == [1]
    assert "no models" in bertstream("models", "list", who="eve").stdout
    assert "no model 'other'" in bertstream("models", "list", "other", code=1).stderr


@pytest.mark.usefixtures("registered")
def test_show(bertstream: Bertstream) -> None:
    text = bertstream("models", "show", "sentiment@2").stdout
    for part in ("by ana", "negative, positive, neutral", "accuracy", "0.9000", "golden.jsonl"):
        assert part in text
    assert as_json(bertstream("models", "show", "sentiment@1", "--json"))["number"] == 1
    assert "the newest is 2" in bertstream("models", "show", "sentiment@3", code=1).stderr
    for wrong in ("sentiment", "sentiment@x", "@1", "sentiment@"):
        assert "write it as sentiment@3" in bertstream("models", "show", wrong, code=2).stderr


@pytest.mark.usefixtures("registered")
def test_diff(bertstream: Bertstream) -> None:
    text = bertstream("models", "diff", "sentiment@1", "sentiment@2").stdout
    for part in (
        "0.8000 [0.750, 0.850]",
        "+0.1000",
        "labels: +neutral",
        "layers: None -> 12",
        "golden: 1 of 2 texts",
        "positive 0.90 -> negative 0.90  fine",
    ):
        assert part in text
    assert "chance" not in text
    found = as_json(bertstream("models", "diff", "sentiment@2", "sentiment@1", "--json"))
    assert found["labels"]["removed"] == ["neutral"]


def test_diff_of_answers_without_labels(bertstream: Bertstream, there: Installation) -> None:
    answers = ({"few": [0.6, 0.8], "many": [0.1] * 20}, {"few": [0.8, -0.6], "many": [-0.1] * 20})
    for number, golden in enumerate(answers):
        directory = make_directory(there.folder / str(number), golden=golden)
        bertstream("models", "register", "minilm", str(directory))
    lines = bertstream("models", "diff", "minilm@1", "minilm@2").stdout.splitlines()
    assert "  [0.6, 0.8] -> [0.8, -0.6]  few" in lines
    assert "  20 numbers -> 20 numbers  many" in lines


def test_export_is_verified_and_whole(
    bertstream: Bertstream, registered: list[Path], tmp_path: Path
) -> None:
    digest = load(registered[0]).digest
    told = bertstream("models", "export", "sentiment@1", "out/copy", who="ana").stdout
    assert told == f"out/copy: sentiment@1, digest {digest}\n"
    assert load(Path("out/copy")).digest == digest
    again = bertstream("models", "export", "sentiment@1", "out/copy", code=2).stderr
    assert "not empty" in again
    bertstream("models", "export", "sentiment@1", "other", who="eve", code=1)
    assert sorted(path.name for path in Path().iterdir()) == [".bertstream", "out"]


def test_export_of_what_is_damaged(
    bertstream: Bertstream, registered: list[Path], there: Installation
) -> None:
    digest = load(registered[0]).digest
    (there.folder / "store" / "sentiment" / digest / "config.json").write_text("altered")
    error = bertstream("models", "export", "sentiment@1", "copy", code=2).stderr
    assert "config.json" in error
    assert not Path("copy").exists()


@pytest.mark.usefixtures("registered")
def test_delete(bertstream: Bertstream) -> None:
    bertstream("models", "delete", "sentiment@1", who="ana", code=1)
    bertstream("models", "delete", "sentiment@1", "--reason", "too old")
    assert "deleted" in bertstream("models", "list", "sentiment", "--deleted").stdout
    rows = as_json(bertstream("ledger", "--model", "sentiment", "--json"))["items"]
    assert (rows[0]["action"], rows[0]["reason"]) == ("version.delete", "too old")
