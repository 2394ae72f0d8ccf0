"""Rows of text under their columns, within the width of a terminal. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

GAP = "  "
# A column is not made narrower than this for the sake of others.
MIN_CHARS = 8
MIN_FOLDED_CHARS = 24
NOTHING = "-"


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int, fold: bool = False
) -> Iterator[str]:
    """Lines of a table.

    Args:
        columns: Names; one that begins with a hyphen stands at the right.
        rows: None and empty texts become ``NOTHING``.
        width: Of a line, in characters; what does not fit is cut.
        fold: The last column goes on in the next line instead.
    """
    names = [column.removeprefix("-") for column in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    natural = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    widths = _widths(natural, width, fold)
    for row in (names, *cells):
        *head, last = row
        parts = textwrap.wrap(last, widths[-1]) if fold else [last]
        for number, part in enumerate(parts):
            line = [*(head if number == 0 else [""] * len(head)), part]
            yield GAP.join(
                _placed(text, chars, right=column.startswith("-"))
                for text, chars, column in zip(line, widths, columns, strict=True)
            ).rstrip()


def plain(text: str) -> str:
    """Without what a terminal would obey: names and reasons are what somebody wrote."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _widths(natural: Sequence[int], width: int, fold: bool) -> list[int]:
    """The widest gives way first, and before it the last one as far as it can."""
    widths = list(natural)
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    floor = MIN_FOLDED_CHARS if fold else MIN_CHARS
    given = max(0, min(excess, widths[-1] - floor))
    widths[-1] -= given
    for _ in range(excess - given):
        place = max(range(len(widths)), key=widths.__getitem__)
        if widths[place] <= MIN_CHARS:
            break
        widths[place] -= 1
    return widths


def _cell(value: Any) -> str:
    return plain(" ".join(str(value).split())) or NOTHING if value is not None else NOTHING


def _placed(text: str, chars: int, *, right: bool) -> str:
    cut = text if len(text) <= chars else f"{text[: chars - 1]}…"
    return cut.rjust(chars) if right else cut.ljust(chars)
