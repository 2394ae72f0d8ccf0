"""Interfaces between the loop and its environment: source, sink, caller, shadow, routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from stream.control import RoutingTable
from stream.isolation import Caller
from stream.kafka.sink import Sink
from stream.outputs import TopicLimits
from stream.records import Deleted, Offsets, Partition, Record
from stream.shadow import ShadowCalls


class RecordSource(Protocol):
    """The group member that reads; ``stream.kafka.source.GroupSource`` documents each method."""

    def poll(self, timeout_ms: int) -> list[Record]: ...  # noqa: D102
    def poll_nothing(self) -> list[Record]: ...  # noqa: D102
    def group_metadata(self) -> Any: ...  # noqa: D102
    def places(self) -> Mapping[Partition, int]: ...  # noqa: D102
    def take_deleted(self) -> list[Deleted]: ...  # noqa: D102
    def seek_to_committed(self) -> None: ...  # noqa: D102
    def commit(self, offsets: Offsets) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Adapters(NamedTuple):
    """Connections of a pipeline to its environment.

    Attributes:
        source: Joins the group; its argument is called when partitions are revoked or lost.
        sink: Opens a producer, and ends transactions that a predecessor left open.
        caller: Gets answers for micro-batches.
        shadow: Compares a candidate's answers.
        table: Returns the current routing table.
        limits: Asks the brokers for the size limits of the output topics.
    """

    source: Callable[[Callable[[set[Partition], bool], None]], RecordSource]
    sink: Callable[[RecordSource], Sink]
    caller: Caller
    shadow: ShadowCalls
    table: Callable[[], RoutingTable]
    limits: Callable[[], TopicLimits]
