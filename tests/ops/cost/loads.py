"""Hours of load, made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ops.cost.advice import Size, Workload

# Nothing to say about this one.
SIZE = Size("bf16", True, num_cpus=2.0, num_gpus=0.0, min_replicas=1, max_replicas=6)


HOUR = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def workload(hour: int, *, label: str = "3", size: Size = SIZE, **amounts: float) -> Workload:
    at = HOUR + timedelta(hours=hour)
    done = {"watched_s": 3600.0, "replica_s": 7200.0, "at_min_s": 1800.0, "lagging_s": 360.0}
    done |= {"busy_at_min_s": 900.0}
    return Workload(at, "sentiment", label, size, at, **done | amounts)
