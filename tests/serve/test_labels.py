from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from serve.errors import ArtifactError
from serve.labels import labels_of, require_numbered
from serve.task import Source


def source_of(*labels: object, **settings: Any) -> Source:
    config = SimpleNamespace(id2label=dict(enumerate(labels)), num_labels=len(labels))
    return Source(Path(), Path(), SimpleNamespace(config=config), None, settings)


def test_labels_are_those_of_the_configuration_in_the_order_of_the_classes() -> None:
    assert labels_of(source_of("b", "a", 3)) == ("b", "a", "3")


def test_labels_that_the_user_gives_replace_them() -> None:
    assert labels_of(source_of("b", "b", labels=["x", "y"])) == ("x", "y")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (source_of("a", "b", labels=["x"]), "1 labels were given, but the model has 2 classes"),
        (source_of("a", "a"), "the label 'a' is used for several classes"),
        (source_of("a", "b", labels=["x", "x"]), "the label 'x' is used for several classes"),
    ],
)
def test_labels_that_do_not_fit_the_classes_are_refused(source: Source, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        labels_of(source)


@pytest.mark.parametrize("given", ["xy", 2, [1, 2], {"x": 0, "y": 1}])
def test_labels_that_are_not_a_list_of_texts_are_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="labels"):
        labels_of(source_of("a", "b", labels=given))


def check(directory: Path, **config: object) -> None:
    (directory / "config.json").write_bytes(orjson.dumps(config))
    require_numbered(directory)


def test_clear_numbers_are_accepted(tmp_path: Path) -> None:
    check(tmp_path)
    check(tmp_path, id2label={"0": "a", "1": "b"})
    check(tmp_path, id2label={"1": "b", "0": "a"}, label2id={"a": 0, "b": 1})
    check(tmp_path, id2label={"0": "a", "1": "b"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    # Repeated labels have no number of their own; labels_of refuses them unless others are given.
    check(tmp_path, id2label={"0": "a", "1": "a"}, label2id={"a": 1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "has 1, 2; correct the file"),
        ({"id2label": ["a", "b"]}, "id2label must number the labels"),
        ({"id2label": {"0": "a", "1": None}}, "class 1 in id2label is None"),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "'a' is class 0 in id2label but 1 in label2id",
        ),
    ],
)
def test_unclear_numbers_are_refused(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        check(tmp_path, **config)
