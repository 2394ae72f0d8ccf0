"""Administration of Kafka: topics, lag, group members. An adapter to the Kafka client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Self, TypeAlias

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NoError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from stream.errors import BrokerRefused, BrokerUnreachable, StreamError, TopicMissing, TopicUnfit
from stream.fitness import TopicState, faults, purposes
from stream.group import Group, Member
from stream.kafka.connection import broker_errors, common_options
from stream.outputs import TopicLimits
from stream.records import GroupOffsets, OpenTransaction, Partition
from stream.settings import KafkaSettings, PipelineSettings
from stream.topics import (
    COMPARISONS_TOPIC,
    TELEMETRY_TOPIC,
    TopicSpec,
)

logger = logging.getLogger(__name__)

RETRY_S = 0.3
# A broker that has just started first creates its topic of group offsets.
GROUPS_S = 15.0
NO_COORDINATOR = (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
)
EMPTY_GROUP = ("", "Empty", "Dead")

ClientOffsets: TypeAlias = Mapping[TopicPartition, OffsetAndMetadata]


class Admin:
    """A connection for administration; a context manager."""

    def __init__(self, kafka: KafkaSettings, *, deadline_s: float = 15.0) -> None:
        """Connect, retrying until the deadline.

        Raises:
            BrokerUnreachable: No broker answered in time. Retriable.
            BrokerRefused: The broker refused login, TLS or a permission. Not retriable.
        """
        self._where = kafka.bootstrap_servers
        options = common_options(kafka)
        del options["allow_auto_create_topics"]
        end = time.monotonic() + deadline_s
        while True:
            left_ms = max(200, int((end - time.monotonic()) * 1000))
            try:
                with broker_errors(f"connecting to {self._where}"):
                    self._client = KafkaAdminClient(
                        **(options | {"bootstrap_timeout_ms": min(left_ms, 3_000)})
                    )
                    return
            except BrokerUnreachable as exc:
                if time.monotonic() + RETRY_S > end:
                    raise BrokerUnreachable(
                        f"no broker answered at {self._where} within {deadline_s:g} s. Is it "
                        "running, and are kafka.bootstrap_servers and security_protocol right?"
                    ) from exc
                time.sleep(RETRY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def topics(self) -> set[str]:
        """Return the names of all topics."""
        with self._errors("listing topics"):
            return set(self._client.list_topics())

    def ensure_topics(self, specs: Mapping[str, TopicSpec]) -> list[str]:
        """Create the topics that do not exist, and return their names."""
        missing = {name: spec for name, spec in specs.items() if name not in self.topics()}
        if missing:
            wanted = {
                name: {
                    "num_partitions": spec.partitions,
                    "replication_factor": -1,
                    "configs": dict(spec.configs),
                }
                for name, spec in missing.items()
            }
            with self._errors(f"creating {', '.join(missing)}"):
                try:
                    self._client.create_topics(wanted, wait_for_metadata=True)
                except TopicAlreadyExistsError:
                    self._client.wait_for_topics(list(wanted))
        return list(missing)

    def require_topics(self, names: list[str]) -> None:
        """Check that topics exist.

        Raises:
            TopicMissing: A topic does not exist; the message names all such. Not retriable.
        """
        missing = sorted(set(names) - self.topics())
        if missing:
            raise TopicMissing(
                f"topic {', '.join(missing)} does not exist at {self._where}. Create it, or set "
                "create_topics: true on the pipeline."
            )

    def limits(self, pipeline: PipelineSettings) -> TopicLimits:
        """Return the maximum batch size of the pipeline's output topics, in bytes.

        Raises:
            TopicUnfit: A topic that the pipeline writes to would refuse valid records; the
                message has every fault with its remedy. Retriable.
        """
        wanted = purposes(pipeline, (TELEMETRY_TOPIC, COMPARISONS_TOPIC))
        states = self._states([*wanted])
        found = [
            fault
            for topic, purpose in wanted.items()
            for fault in faults(
                topic,
                purpose,
                states[topic],
                delivery_timeout_ms=pipeline.delivery_timeout_ms,
            )
        ]
        if found:
            raise TopicUnfit("; ".join(found))
        names = (pipeline.output_topic, pipeline.dead_letters)
        return TopicLimits(*(int(states[n].settings["max.message.bytes"] or 0) for n in names))

    def _states(self, topics: list[str]) -> dict[str, TopicState]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        with self._errors("reading topic settings"):
            configs = self._client.describe_configs(resources, config_filter="all")["topic"]
            described = self._client.describe_topics(topics)
        return {
            topic["name"]: TopicState(
                {name: entry["value"] for name, entry in configs[topic["name"]].items()},
                min(len(part["replica_nodes"]) for part in topic["partitions"]),
            )
            for topic in described
        }

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return all partitions of the topics."""
        with self._errors("describing topics"):
            described = self._client.describe_topics(topics)
        return [
            Partition(topic["name"], partition["partition_index"])
            for topic in described
            for partition in topic["partitions"]
        ]

    def lag(self, group: str, topics: list[str]) -> dict[Partition, int]:
        """Return the offsets that wait, per partition; all of them if a group never committed."""
        return {partition: at.lag for partition, at in self.offsets(group, topics).items()}

    def offsets(self, group: str, topics: list[str]) -> dict[Partition, GroupOffsets]:
        """Return the readable end of each partition, and where a group continues.

        It continues at the partition's start if nothing is committed or the next is deleted.
        """
        partitions = [TopicPartition(*partition) for partition in self.partitions(topics)]
        latest = dict.fromkeys(partitions, OffsetSpec.LATEST)
        with self._errors(f"reading the lag of {group}"):
            written = self._client.list_partition_offsets(latest)
            stable = self._client.list_partition_offsets(
                latest, isolation_level=IsolationLevel.READ_COMMITTED
            )
            starts = self._client.list_partition_offsets(
                dict.fromkeys(partitions, OffsetSpec.EARLIEST)
            )
        committed = self._committed(group)
        found = {}
        for one in partitions:
            place = max(starts[one].offset, committed[one].offset if one in committed else -1)
            held = max(0, written[one].offset - stable[one].offset)
            found[Partition(*one)] = GroupOffsets(stable[one].offset, place, held)
        return found

    def held(self, offsets: Mapping[Partition, GroupOffsets]) -> list[OpenTransaction]:
        """Return open transactions, with their producers if the broker reports them.

        Args:
            offsets: Result of ``offsets``.
        """
        waiting = {partition: at for partition, at in offsets.items() if at.held}
        if not waiting:
            return []
        opened: dict[Partition, tuple[str, float]] = {}
        now_ms = time.time() * 1000
        try:
            with self._errors("asking for open transactions"):
                rows = self._client.list_transactions(state_filters=["Ongoing"]).values()
                ids = [one.transactional_id for found in rows for one in found]
                for name, one in self._client.describe_transactions(ids).items():
                    for partition in one.topic_partitions:
                        age_s = max(0.0, (now_ms - one.transaction_start_time_ms) / 1000)
                        oldest = opened.get(Partition(*partition), (name, -1.0))
                        opened[Partition(*partition)] = max(
                            oldest, (name, age_s), key=itemgetter(1)
                        )
        except StreamError as exc:
            logger.info("%s", exc)  # not permitted, or it has ended meanwhile
        return [
            OpenTransaction(partition, at.end, at.held, *opened.get(partition, (None, None)))
            for partition, at in waiting.items()
        ]

    def _committed(self, group: str) -> ClientOffsets:
        end = time.monotonic() + GROUPS_S
        while True:
            try:
                with self._errors(f"reading the offsets of {group}"):
                    groups: dict[str, ClientOffsets] = self._client.list_group_offsets(group)
                return groups.get(group, {})
            except BrokerUnreachable as exc:
                if not isinstance(exc.__cause__, NO_COORDINATOR) or time.monotonic() > end:
                    raise
            time.sleep(RETRY_S)

    def begin_group(self, pipeline: PipelineSettings) -> None:
        """Commit the start of a group without any commit, on every existing partition.

        This is done before any member joins, so that it is decided once for all members: a
        partition without an offset was added later, and is read from its start.
        """
        if self._committed(pipeline.name):
            return
        spec = OffsetSpec.EARLIEST if pipeline.start_from == "earliest" else OffsetSpec.LATEST
        partitions = self.partitions([*pipeline.input_topics])
        wanted = dict.fromkeys((TopicPartition(*one) for one in partitions), spec)
        if not wanted:
            return
        with self._errors(f"committing where {pipeline.name} begins"):
            found = self._client.list_partition_offsets(
                wanted, isolation_level=IsolationLevel.READ_COMMITTED
            )
            places = {place: OffsetAndMetadata(at.offset, "", -1) for place, at in found.items()}
            faults = self._client.alter_group_offsets(pipeline.name, places).values()
            for fault in faults:
                if fault is UnknownMemberIdError:
                    return  # a member that has joined since has done it
                if fault is not NoError:
                    raise fault()

    def groups(self, names: Sequence[str]) -> dict[str, Group]:
        """Return the state and members of consumer groups.

        Raises:
            BrokerUnreachable: No broker answered for a group in time. Retriable.
            BrokerRefused: A permission is missing. Not retriable.
        """
        return {name: self._group(name) for name in names}

    def _group(self, name: str) -> Group:
        doing = f"reading the members of consumer group {name}"
        end = time.monotonic() + GROUPS_S
        while True:
            try:
                with self._errors(doing):
                    found = self._client.describe_groups([name])[name]
                fault = found["error"] or ""
            except BrokerUnreachable as exc:
                fault = str(exc)
            if "Authorization" in fault:
                raise BrokerRefused(f"{doing} at {self._where}: {fault}. Check the permissions")
            if "GroupIdNotFound" in fault:
                return self._other_group(name)
            if not fault:
                members = [
                    Member(
                        one["group_instance_id"], one["client_id"], one["client_host"].strip("/")
                    )
                    for one in found["members"]
                ]
                in_use = bool(members) or found["group_state"] not in EMPTY_GROUP
                return Group(found["protocol_type"], "classic", members, in_use)
            if time.monotonic() > end:
                raise BrokerUnreachable(f"{doing} at {self._where}: {fault}")
            time.sleep(RETRY_S)

    def _other_group(self, name: str) -> Group:
        """Return a group without classic members: it does not exist, or has a newer protocol."""
        with self._errors("listing consumer groups"):
            listed = self._client.list_groups()
        for one in listed:
            kind = one.get("group_type", "").lower()
            if one["group_id"] == name and kind not in ("", "classic"):
                # An empty group of the consumer protocol becomes classic with its first member.
                in_use = kind != "consumer" or one["group_state"] not in EMPTY_GROUP
                return Group(one["protocol_type"], kind, (), in_use)
        return Group("", "classic", (), is_in_use=False)

    def remove_static_member(self, group: str, instance_id: str) -> bool:
        """Remove a member that has ended for good, so that its group does not wait for it.

        Returns:
            False if it was not in the group.
        """
        member = MemberToRemove(group_instance_id=instance_id)
        with self._errors(f"removing {instance_id} from {group}"):
            removed = self._client.remove_group_members(group, [member])
        return all(outcome is NoError for outcome in removed.values())

    @contextmanager
    def _errors(self, doing: str) -> Iterator[Any]:
        with broker_errors(f"{doing} at {self._where}"):
            yield
