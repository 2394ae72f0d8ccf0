"""What each kind of finding hurts and what to do about it; ``docs/faults.md`` shows this table.

``python -m ops.health.kinds`` prints the table for the document, which a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ops.health.findings import Finding, Severity

RELEASES_STAND_STILL = "releases and scaling stand still; records go on by the last route"
LATE = "results come late"
WAITING = "its records wait in Kafka; none is lost"


class FindingKind(NamedTuple):
    """Texts of a finding; names in braces are filled in when it is found.

    Attributes:
        key: Of the finding; equal for kinds that exclude each other.
        hurts: What does not work because of it.
        todo: What to do about it.
    """

    key: str
    hurts: str
    todo: str

    def found(self, severity: Severity, what: str, since: datetime, **names: object) -> Finding:
        """A finding of this kind."""
        key, hurts, todo = (text.format(**names) for text in self)
        return Finding(key, severity, what, since, hurts, todo)


KAFKA_SILENT = FindingKind(
    "kafka/brokers",
    "nothing is read and no result is written; records wait with their producers",
    "see that the brokers run and can be reached from here; `bertstream up` starts the embedded "
    "one again",
)
TOPICS_MISSING = FindingKind(
    "kafka/topics",
    "what is sent there has no place, and what is read there never comes",
    "create it again, or `bertstream up` does; records that it held are gone",
)
ROUND_TRIP_FAILED = FindingKind(
    "kafka/round-trip",
    "results cannot be written or read",
    "see the brokers' logs, their disks and their in-sync replicas",
)
ROUND_TRIP_SLOW = FindingKind(
    "kafka/round-trip",
    "every result takes that much longer",
    "see the load of the brokers and their disks",
)
CONTROL_UNREADABLE = FindingKind(
    "control/topic",
    "it is unknown which routes the pipelines follow",
    "see that topic bertstream.control can be read from here",
)
ROUTE_NOT_SENT = FindingKind(
    "control/{model}",
    "pipelines follow an older route",
    "see the operator's log; it sends them again by itself",
)
ROUTE_DIFFERS = FindingKind(
    "control/{model}",
    "pipelines follow an older route",
    "`bertstream up` sends all routes again; see who else writes that topic",
)
RAY_SILENT = FindingKind(
    "ray/api",
    "replicas can be neither seen nor scaled, and no release can load; calls may go on",
    "see that the Ray head runs and its dashboard can be reached from here; `bertstream up` starts "
    "an own one again",
)
APP_DOWN = FindingKind(
    "app/{name}/replicas",
    "records that need {name} wait in Kafka; none is lost",
    "the operator redeploys it; its log and the Ray dashboard say why that fails",
)
REPLICAS_MISSING = FindingKind(
    "app/{name}/replicas",
    "{name} answers less than it was planned for",
    "Serve starts the others when the cluster has room; see the Ray dashboard",
)
REPLICA_DIED = FindingKind(
    "app/{name}/deaths",
    "what was begun there is done again by others",
    "see its log on the Ray dashboard: memory, a record that kills it, or a machine that went",
)
REPLICAS_DIE = FindingKind(
    "app/{name}/deaths",
    "what was begun there is done again by others, over and over",
    "see its log on the Ray dashboard: memory, a record that kills it, or a machine that went",
)
REPAIR_GIVEN_UP = FindingKind(
    "repair/{name}",
    "records that need {name} wait in Kafka; none is lost",
    "see its log in the Ray dashboard; when the cause is gone, `bertstream up` deploys it",
)
GOLDEN_UNASKED = FindingKind(
    "golden/asked",
    "it is unknown whether versions still answer as they did",
    "see that the Ray cluster and the artifact store can be reached from here",
)
GOLDEN_SILENT = FindingKind(
    "golden/{name}/answers",
    "records may wait for it as well",
    "see its replicas above and on the Ray dashboard",
)
GOLDEN_DIFFERS = FindingKind(
    "golden/{name}/answers",
    "its results may be wrong",
    "restart its replicas; when it stays, `bertstream rollback {model}`",
)
WEIGHTS_DIFFER = FindingKind(
    "golden/{name}/digest",
    "its results are those of another model",
    "take it back with `bertstream rollback {model}`, then see how its files were changed",
)
CONSUMERS_DOWN = FindingKind(
    "pipeline/{name}/consumers",
    WAITING,
    "see why they do not start: `bertstream status`, and the log of pipeline-{name} on the Ray "
    "dashboard",
)
CONSUMERS_MISSING = FindingKind(
    "pipeline/{name}/consumers",
    f"the others take its partitions over, and {LATE}",
    CONSUMERS_DOWN.todo,
)
CONSUMER_STUCK = FindingKind(
    "pipeline/{name}/consumer/{rank}/trouble",
    "records of its partitions wait in Kafka; none is lost",
    "it tries on by itself; do what its sentence says",
)
COMMITS_STUCK = FindingKind(
    "pipeline/{name}/consumer/{rank}/commits",
    "records of its partitions have no results; none is lost",
    "see its log (pipeline-{name} on the Ray dashboard) and whether the replicas of {model} answer",
)
ROUTE_OLD = FindingKind(
    "pipeline/{name}/consumer/{rank}/route",
    "records still go to versions of {model} that are no longer wanted",
    "see whether it can read topic bertstream.control; restarting it makes it read the topic again",
)
LAG_UNKNOWN = FindingKind(
    "pipeline/{name}/lag",
    "a backlog would not be seen, and nothing is scaled for it",
    "see the brokers' logs; a group that is new is known within seconds",
)
LAG_STANDS = FindingKind(
    "pipeline/{name}/lag",
    WAITING,
    "do what the sentence says; where it says nothing, see the log of pipeline-{name} on the Ray "
    "dashboard",
)
LAG_LONG = FindingKind(
    "pipeline/{name}/lag",
    LATE,
    "see what its consumers and replicas report above; when all is well there, give {model} more "
    "replicas or the pipeline more consumers",
)
LAG_RISES = FindingKind("pipeline/{name}/lag", f"{LATE}, later and later", LAG_LONG.todo)
TRANSACTION_OPEN = FindingKind(
    "pipeline/{name}/held/{partition}",
    LATE,
    "end that producer, or wait for its transaction.timeout.ms; what stays open after that is "
    "ended with kafka-transactions.sh abort",
)
RECORDS_DELETED = FindingKind(
    "pipeline/{name}/deleted/{partition}",
    "they have no results, and never will",
    "send them again where the producer still has them; give the topic a longer retention.ms, and "
    "{model} more replicas if it is late",
)
TELEMETRY_LATE = FindingKind(
    "pipeline/{name}/telemetry",
    "releases are judged and replicas are scaled by old numbers",
    "see whether the operator can read topic bertstream.telemetry; its log has the reason",
)
DATABASE_SILENT = FindingKind(
    "database/answers",
    f"{RELEASES_STAND_STILL}, and the control API refuses",
    "see that the database runs, can be reached from here and has room",
)
DATABASE_SLOW = FindingKind(
    "database/answers", "commands and releases are slow", "see its load and its disk"
)
NO_LEADER = FindingKind(
    "operator/lease",
    RELEASES_STAND_STILL,
    "a new one starts by itself within seconds; where it does not, see the operator's log, and "
    "`bertstream up` starts it again",
)
OPERATOR_SILENT = NO_LEADER._replace(key="operator/answers")
OPERATOR_DIES = FindingKind(
    "operator/restarts",
    "releases, rollbacks and scaling stand still each time until the next has started",
    "see the operator's log",
)
HEALTH_OLD = FindingKind(
    "health/age", "what is shown here may no longer be so", "see the operator's log"
)
DISK_SCARCE = FindingKind(
    "machine/disk",
    "a broker or database without room stops taking what is written",
    "make room, move state_dir, or have topics keep less (retention.ms, retention.bytes)",
)
FILES_UNREADABLE = FindingKind(
    "machine/files",
    "it is unknown whether the disk is full or a certificate expires",
    "see that the state directory can be read",
)
CERTIFICATE_ENDS = FindingKind(
    "certificate/{setting}",
    "connections are refused from then on",
    "put a new one there and restart",
)
CERTIFICATE_UNREADABLE = FindingKind(
    "certificate/{setting}", "its end is not known", "correct the file"
)
CEILING_UNPRICED = FindingKind(
    "cost/unpriced/{model}",
    "the ceiling holds nothing",
    "set prices in the configuration and run `bertstream up`, or take the ceiling away",
)
CEILING_NEAR = FindingKind(
    "cost/warn/{model}",
    "its replicas may be capped today",
    "see `bertstream cost --model {model}`; raise cost.ceiling_per_day in its policy, or let it be",
)
CEILING_REACHED = FindingKind(
    "cost/cap/{model}", "a backlog may grow until midnight UTC", CEILING_NEAR.todo
)


def table() -> Iterator[str]:
    """Rows of the document: key, what it hurts, what to do."""
    yield "| finding | what it hurts | what to do |"
    yield "|---|---|---|"
    kinds = [kind for kind in globals().values() if isinstance(kind, FindingKind)]
    for kind in sorted(kinds):
        yield f"| `{kind.key}` | {kind.hurts} | {kind.todo} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
