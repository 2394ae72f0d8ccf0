"""Tables that fit a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ops.cli.tables import MIN_CHARS, table_lines

words = st.text("abc xyz", max_size=60)
tables = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from(["name", "-size"]), min_size=n, max_size=n),
        st.lists(st.lists(words, min_size=n, max_size=n), min_size=1, max_size=6),
    )
)


def test_columns_stand_under_their_names() -> None:
    lines = table_lines(("name", "-size", "by"), [("a", 12, None), ("long", 3, "me")], width=80)
    assert list(lines) == ["name  size  by", "a       12  -", "long     3  me"]


def test_last_column_gives_way() -> None:
    lines = list(table_lines(("name", "from"), [("sentiment", "/a/long/path/to/it")], width=24))
    assert lines[1] == "sentiment  /a/long/path…"


def test_last_column_goes_on_below() -> None:
    row = ("1", "every check of the step has passed with enough records")
    lines = list(table_lines(("-id", "why"), [row], width=40, fold=True))
    assert lines[1:] == [" 1  every check of the step has passed", "    with enough records"]


def test_nothing_in_it_is_obeyed() -> None:
    (_, line) = table_lines(("name",), [("a\x1b[31mred\nb\u202e",)], width=80)
    assert line == "a?[31mred b?"


@given(tables, st.integers(60, 120), st.booleans())
def test_lines_fit(table: tuple[list[str], list[list[str]]], width: int, fold: bool) -> None:
    columns, rows = table
    lines = list(table_lines(columns, rows, width=width, fold=fold))
    assert len(lines) >= len(rows) + 1
    assert all(len(line) <= width for line in lines)
    short = [row for row in rows if all(len(cell) <= MIN_CHARS for cell in row)]
    for row in short:
        parts = [" ".join(cell.split()) or "-" for cell in row]
        assert any(all(part in line for part in parts) for line in lines)
