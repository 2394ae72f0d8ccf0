"""Names of apps."""

from __future__ import annotations

import pytest

from serve.contract import AppName, app_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sentiment@3.1", AppName(model="sentiment", label="3.1")),
        ("sentiment", AppName(model="sentiment")),
        ("pipeline-reviews", AppName(pipeline="reviews")),
        ("pipeline-of-mine@1", AppName(model="pipeline-of-mine", label="1")),
    ],
)
def test_names_are_read_as_they_are_written(text: str, name: AppName) -> None:
    assert AppName.parse(text) == name
    assert str(name) == text


def test_the_name_of_a_version() -> None:
    assert app_name("sentiment", "3") == "sentiment@3"
