"""One name has one meaning, in all packages."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.source import ROOT, modules, tree


def names_of_types(module: Path) -> Iterator[str]:
    """Classes and aliases of types at the top of a module."""
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and len(target.id) > 1 and target.id[:2].istitle():
                    yield target.id


def test_no_type_is_defined_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        for name in names_of_types(module):
            places[name].append(module.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_two_modules_differ_by_a_plural_alone() -> None:
    alike: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        alike[f"{module.parent}/{module.stem.removesuffix('s')}"].add(module.stem)
    assert {place: found for place, found in alike.items() if len(found) > 1} == {}
