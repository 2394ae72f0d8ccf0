"""Effect and remedy of each kind of finding; ``docs/faults.md`` shows this table.

``python -m ops.health.kinds`` prints the table for the document, which a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ops.health.findings import Finding, Severity

RELEASES_STAND_STILL = "releases and scaling stop; records are still answered by the last route"
LATE = "results are delayed"
WAITING = "its records wait in Kafka; none is lost"


class FindingKind(NamedTuple):
    """Texts of one kind of finding; names in braces are filled in for each finding.

    Attributes:
        key: Key of the finding; equal for kinds that exclude each other.
        hurts: What does not work because of the problem.
        todo: What to do about the problem.
    """

    key: str
    hurts: str
    todo: str

    def found(self, severity: Severity, what: str, since: datetime, **names: object) -> Finding:
        """Return a finding of this kind."""
        key, hurts, todo = (text.format(**names) for text in self)
        return Finding(key, severity, what, since, hurts, todo)


KAFKA_SILENT = FindingKind(
    "kafka/brokers",
    "no records are read and no results are written; producers cannot send",
    "check that the brokers run and can be reached from here; `bertstream up` restarts the "
    "embedded one",
)
TOPICS_MISSING = FindingKind(
    "kafka/topics",
    "records can be neither written to it nor read from it",
    "create it again, or run `bertstream up`; the records it held are lost",
)
ROUND_TRIP_FAILED = FindingKind(
    "kafka/round-trip",
    "results cannot be written or read",
    "check the brokers' logs, their disks and their in-sync replicas",
)
ROUND_TRIP_SLOW = FindingKind(
    "kafka/round-trip",
    "every result takes that much longer",
    "check the load of the brokers and their disks",
)
CONTROL_UNREADABLE = FindingKind(
    "control/topic",
    "it is unknown which routes the pipelines follow",
    "check that topic bertstream.control can be read from here",
)
ROUTE_NOT_SENT = FindingKind(
    "control/{model}",
    "pipelines follow an older route",
    "see the operator's log; it retries by itself",
)
ROUTE_DIFFERS = FindingKind(
    "control/{model}",
    "pipelines follow an older route",
    "run `bertstream up` to publish all routes again; find out what else writes to that topic",
)
RAY_SILENT = FindingKind(
    "ray/api",
    "replicas can be neither monitored nor scaled, and no release can load; calls may still work",
    "check that the Ray head runs and its dashboard can be reached from here; `bertstream up` "
    "restarts the platform's own head",
)
APP_DOWN = FindingKind(
    "app/{name}/replicas",
    "records that need {name} wait in Kafka; none is lost",
    "the operator redeploys it; if that fails, its log and the Ray dashboard show why",
)
REPLICAS_MISSING = FindingKind(
    "app/{name}/replicas",
    "{name} has less capacity than planned",
    "Serve starts the others when the cluster has capacity; see the Ray dashboard",
)
REPLICA_DIED = FindingKind(
    "app/{name}/deaths",
    "its calls in flight are repeated on other replicas",
    "see its log on the Ray dashboard: out of memory, a fatal record, or a lost machine",
)
REPLICAS_DIE = FindingKind(
    "app/{name}/deaths",
    "their calls in flight are repeated on other replicas, again and again",
    "see their logs on the Ray dashboard: out of memory, a fatal record, or a lost machine",
)
REPAIR_GIVEN_UP = FindingKind(
    "repair/{name}",
    "records that need {name} wait in Kafka; none is lost",
    "see its log on the Ray dashboard; once the cause is fixed, run `bertstream up` to deploy it",
)
GOLDEN_UNASKED = FindingKind(
    "golden/asked",
    "it is unknown whether versions still give the expected answers",
    "check that the Ray cluster and the artifact store can be reached from here",
)
GOLDEN_SILENT = FindingKind(
    "golden/{name}/answers",
    "records may be waiting for it as well",
    "see its replicas above and on the Ray dashboard",
)
GOLDEN_DIFFERS = FindingKind(
    "golden/{name}/answers",
    "its results may be wrong",
    "restart its replicas; if that does not help, run `bertstream rollback {model}`",
)
WEIGHTS_DIFFER = FindingKind(
    "golden/{name}/digest",
    "its results are those of another model",
    "run `bertstream rollback {model}`, then find out how the files were changed",
)
CONSUMERS_DOWN = FindingKind(
    "pipeline/{name}/consumers",
    WAITING,
    "find out why they do not start: see `bertstream status`, and the log of pipeline-{name} on "
    "the Ray dashboard",
)
CONSUMERS_MISSING = FindingKind(
    "pipeline/{name}/consumers",
    f"the others take over its partitions, and {LATE}",
    CONSUMERS_DOWN.todo,
)
CONSUMER_STUCK = FindingKind(
    "pipeline/{name}/consumer/{rank}/trouble",
    "records of its partitions wait in Kafka; none is lost",
    "it retries by itself; do what its message says",
)
COMMITS_STUCK = FindingKind(
    "pipeline/{name}/consumer/{rank}/commits",
    "records of its partitions have no results; none is lost",
    "see its log (pipeline-{name} on the Ray dashboard) and whether the replicas of {model} answer",
)
ROUTE_OLD = FindingKind(
    "pipeline/{name}/consumer/{rank}/route",
    "records still go to versions of {model} that should no longer answer",
    "check whether it can read topic bertstream.control; a restart makes it read the topic again",
)
LAG_UNKNOWN = FindingKind(
    "pipeline/{name}/lag",
    "a backlog would go unnoticed, and nothing is scaled for it",
    "see the brokers' logs; the lag of a new group is known within seconds",
)
LAG_STANDS = FindingKind(
    "pipeline/{name}/lag",
    WAITING,
    "do what the message says; if it gives no cause, see the log of pipeline-{name} on the Ray "
    "dashboard",
)
LAG_LONG = FindingKind(
    "pipeline/{name}/lag",
    LATE,
    "check its consumers and replicas above; if they are healthy, give {model} more replicas or "
    "the pipeline more consumers",
)
LAG_RISES = FindingKind("pipeline/{name}/lag", f"{LATE} more and more", LAG_LONG.todo)
TRANSACTION_OPEN = FindingKind(
    "pipeline/{name}/held/{partition}",
    LATE,
    "stop that producer, or wait for its transaction.timeout.ms; if the transaction stays open "
    "after that, end it with kafka-transactions.sh abort",
)
RECORDS_DELETED = FindingKind(
    "pipeline/{name}/deleted/{partition}",
    "they will never have results",
    "send them again if the producer still has them; give the topic a longer retention.ms, and "
    "{model} more replicas if it is slow",
)
TELEMETRY_LATE = FindingKind(
    "pipeline/{name}/telemetry",
    "releases are judged and replicas are scaled by outdated metrics",
    "check whether the operator can read topic bertstream.telemetry; its log has the reason",
)
DATABASE_SILENT = FindingKind(
    "database/answers",
    f"{RELEASES_STAND_STILL}, and the control API refuses requests",
    "check that the database runs, can be reached from here and has free disk space",
)
DATABASE_SLOW = FindingKind(
    "database/answers", "commands and releases are slow", "check its load and its disk"
)
NO_LEADER = FindingKind(
    "operator/lease",
    RELEASES_STAND_STILL,
    "a new one starts by itself within seconds; if it does not, see the operator's log and run "
    "`bertstream up` to restart it",
)
OPERATOR_SILENT = NO_LEADER._replace(key="operator/answers")
OPERATOR_DIES = FindingKind(
    "operator/restarts",
    "releases, rollbacks and scaling stop each time until the next one has started",
    "see the operator's log",
)
HEALTH_OLD = FindingKind("health/age", "this report may be outdated", "see the operator's log")
DISK_SCARCE = FindingKind(
    "machine/disk",
    "a broker or database without free space refuses writes",
    "free space, move state_dir, or have topics keep less (retention.ms, retention.bytes)",
)
FILES_UNREADABLE = FindingKind(
    "machine/files",
    "it is unknown whether the disk is full or a certificate expires",
    "check that the state directory can be read",
)
CERTIFICATE_ENDS = FindingKind(
    "certificate/{setting}",
    "connections are refused from then on",
    "replace the certificate file and restart",
)
CERTIFICATE_UNREADABLE = FindingKind(
    "certificate/{setting}", "its expiry date is unknown", "correct the file"
)
CEILING_UNPRICED = FindingKind(
    "cost/unpriced/{model}",
    "the ceiling has no effect",
    "set prices in the configuration and run `bertstream up`, or remove the ceiling",
)
CEILING_NEAR = FindingKind(
    "cost/warn/{model}",
    "its replicas may be capped today",
    "see `bertstream cost --model {model}`; raise cost.ceiling_per_day in its policy, or accept it",
)
CEILING_REACHED = FindingKind(
    "cost/cap/{model}", "a backlog may grow until midnight UTC", CEILING_NEAR.todo
)


def table() -> Iterator[str]:
    """Yield the rows of the document's table: key, effect, remedy."""
    yield "| finding | what it hurts | what to do |"
    yield "|---|---|---|"
    kinds = [kind for kind in globals().values() if isinstance(kind, FindingKind)]
    for kind in sorted(kinds):
        yield f"| `{kind.key}` | {kind.hurts} | {kind.todo} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
