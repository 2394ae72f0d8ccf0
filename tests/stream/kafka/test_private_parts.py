"""What of the Kafka client's inside is used is there, and is used by the client itself."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer import fetcher
from kafka.coordinator import base
from kafka.producer import record_accumulator, sender
from kafka.record import default_records, memory_records

from tests.source import ROOT

# Each name with the part of the client that has it.
USED: dict[str, type | ModuleType] = {
    "_sender": KafkaProducer,
    "force_close": sender,
    "_fetcher": KafkaConsumer,
    "_coordinator": KafkaConsumer,
    "request_rejoin": base,
    "_subscription": KafkaConsumer,
    "PartitionRecords": fetcher,
    "_unpack_records": fetcher.Fetcher.PartitionRecords,
    "drain": fetcher.Fetcher.PartitionRecords,
    "fetch_offset": fetcher.Fetcher.PartitionRecords,
    "MemoryRecordsBuilder": record_accumulator,
    "_buffer": memory_records,
    "_next_slice": memory_records,
    "_cache_next": memory_records,
    "MAGIC_OFFSET": memory_records,
    "LENGTH_OFFSET": memory_records,
    "_header_data": default_records,
    "_num_records": default_records,
    "_headers": default_records,
    "_offset": default_records,
    "CONTROL_MASK": default_records,
    "validate_crc": default_records,
}


def names_in(tree: ast.AST) -> set[str]:
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return attributes | functions | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


@pytest.mark.parametrize("name", USED)
def test_client_itself_uses_it(name: str) -> None:
    assert name in names_in(ast.parse(inspect.getsource(USED[name]).strip()))


def test_no_other_private_name_of_the_client_is_used() -> None:
    for path in (ROOT / "stream" / "kafka").glob("*.py"):
        tree = ast.parse(path.read_bytes())
        others = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and ast.unparse(node.value) not in ("self", "cls", "super()")
        }
        assert others <= USED.keys(), path
