"""Tables that fit a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ops.cli import session
from ops.cli.session import print_table

SHORT = 10
words = st.text("abc xyz", max_size=60)
tables = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from(["name", "-size"]), min_size=n, max_size=n),
        st.lists(st.lists(words, min_size=n, max_size=n), min_size=1, max_size=6),
    )
)


def lines_of(columns: list[str], *rows: object, width: int = 80) -> list[str]:
    console = Console(width=width, highlight=False)
    with pytest.MonkeyPatch.context() as patch, console.capture() as captured:
        patch.setattr(session, "out", console)
        print_table(columns, rows, empty="none")  # type: ignore[arg-type]
    return [line.rstrip() for line in captured.get().splitlines()]


def test_columns_stand_under_their_names() -> None:
    lines = lines_of(["name", "-size", "by"], ("a", 12, None), ("long", 3, "me"))
    assert lines == ["name  size  by", "a       12  -", "long     3  me"]


def test_last_column_goes_on_below() -> None:
    row = ("1", "every check of the step has passed with enough records")
    lines = lines_of(["-id", "why"], row, width=40)
    assert lines[1:] == [" 1  every check of the step has passed", "    with enough records"]


def test_numbers_stay_whole() -> None:
    lines = lines_of(["model", "-cost"], ("a-model-with-a-long-name", 123_456_789.25), width=24)
    assert lines[1].split() == ["a-model-w…", "123456789.25"]


def test_nothing_in_it_is_obeyed() -> None:
    (_, line) = lines_of(["name"], ("a\x1b[31mred[red]\nb\u202e",))
    assert line == "a?[31mred[red] b?"


@given(tables, st.integers(60, 120))
def test_lines_fit_and_short_rows_are_whole(
    table: tuple[list[str], list[list[str]]], width: int
) -> None:
    columns, rows = table
    lines = lines_of(columns, *rows, width=width)
    assert len(lines) > len(rows)
    assert all(len(line) <= width for line in lines)
    if all(len(cell) <= SHORT for row in rows for cell in row):
        for row, line in zip(rows, lines[1:], strict=True):
            assert line.split() == [word for cell in row for word in cell.split() or ["-"]]
