"""Every setting does something: the product reads it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module

from serve.settings import Settings
from tests.source import PRODUCT, ROOT, modules, tree

# Written and shown as they are, for people who ask where a model is from.
FOR_PEOPLE = {("ModelCard", "training_data_sha256")}


def heirs(kind: type[Settings]) -> Iterator[type[Settings]]:
    for heir in kind.__subclasses__():
        yield heir
        yield from heirs(heir)


def test_every_field_is_read_somewhere() -> None:
    read: set[str] = set()
    for path in modules():
        if "class " in (text := path.read_text()) and "Settings)" in text:
            import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        read |= {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    fields = {
        (kind.__name__, field)
        for kind in heirs(Settings)
        if kind.__module__.startswith(PRODUCT)
        for field in kind.model_fields
    }
    assert len(fields) > 100
    assert {(kind, field) for kind, field in fields if field not in read} == FOR_PEOPLE
