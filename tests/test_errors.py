"""The trees that are drawn in the modules of errors are those of the classes."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

ENTRY = re.compile(r"^(?P<indent>[| ]*)(?:\|--|`--) (?P<name>\w+) +(?P<what>.+)$")
RETRIABLE = " (retriable)"


def drawn(text: str, root: str) -> dict[str, tuple[str, bool]]:
    """Parent of each class, and whether it is said to be retriable."""
    found: dict[str, tuple[str, bool]] = {}
    above = [root]
    for line in text.splitlines():
        if match := ENTRY.match(line):
            depth = len(match["indent"]) // 4 + 1
            assert match["name"] not in found, f"{match['name']} is drawn twice"
            found[match["name"]] = (above[depth - 1], match["what"].endswith(RETRIABLE))
            above[depth:] = [match["name"]]
    return found


def is_last_of_its_parent(text: str) -> bool:
    """Corners stand at the last of each level, and nowhere else."""
    lines = [match for line in text.splitlines() if (match := ENTRY.match(line))]
    for place, match in enumerate(lines):
        indent = len(match["indent"])
        later = next((m for m in lines[place + 1 :] if len(m["indent"]) <= indent), None)
        is_last = later is None or len(later["indent"]) < indent
        if is_last != (match[0][indent] == "`"):
            return False
    return True


@pytest.mark.parametrize(
    ("package", "root"),
    [
        ("serve", "ServeError"),
        ("stream", "StreamError"),
        ("train", "TrainError"),
        ("ops", "OpsError"),
    ],
)
def test_the_drawn_tree_is_that_of_the_classes(package: str, root: str) -> None:
    module = import_module(f"{package}.errors")
    kinds = {
        name: kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and name != root
    }
    assert module.__doc__ is not None
    expected = {name: (kind.__bases__[0].__name__, kind.retriable) for name, kind in kinds.items()}
    assert drawn(module.__doc__, root) == expected
    assert is_last_of_its_parent(module.__doc__)
