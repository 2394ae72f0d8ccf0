"""Records how busy the replicas of each version are at their present size, for advice.

Versions that are being released, or wait to take over, are not recorded: they do not have the load
that they are sized for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from ops.cost import workloads
from ops.cost.advice import Size, Workload
from ops.scaling.rates import BUSY_SHARE, is_behind, known
from ops.scaling.scaler import MEASURED_S, ScalableApp
from ops.view import PlatformView
from stream.times import to_ms

EVERY = timedelta(seconds=15)
# Load between observations further apart is unknown.
MAX_GAP = timedelta(seconds=60)
CPU_INFO = Path("/proc/cpuinfo")
OPENVINO = "openvino"


class _Seen(NamedTuple):
    """Observation of a version at a moment."""

    at: datetime
    part: ScalableApp
    size: Size


class LoadSampler:
    """Records the load of versions every few seconds; used by the leading operator only."""

    def __init__(self, view: PlatformView, *, has_bf16: bool) -> None:
        """Begin without observations.

        Args:
            has_bf16: Whether the processors that replicas run on are known to support bf16.
        """
        self._database, self._observations, self._apps = view
        self._has_bf16 = has_bf16
        self._engines: dict[tuple[str, str], tuple[str, str]] = {}
        self._before: list[_Seen] = []
        self._next: datetime | None = None

    def tick(self, now: datetime, parts: Sequence[ScalableApp]) -> None:
        """Record the load since the last observation, if one is due.

        Args:
            parts: Apps as seen by the scaler.
        Raises:
            OpsError: The database does not answer; the load is recorded later.
        """
        if self._next is not None and now < self._next:
            return
        rows = [_workload(seen, now) for seen in self._before if now - seen.at <= MAX_GAP]
        with self._database.begin() as connection:
            workloads.add(connection, rows)
        self._before = [*self._observed(now, parts)]
        self._next = now + EVERY

    def _observed(self, now: datetime, parts: Sequence[ScalableApp]) -> Iterator[_Seen]:
        for part in parts:
            label, reading = part.label, part.reading
            if label is None or not _is_known(part) or reading.announced or reading.weight != 1:
                continue
            engine = self._engine(part.model, label, now)
            if engine is None:
                continue  # no answers so far
            kind, precision = engine
            resources = self._apps.found[part.app].resources
            size = Size(
                precision=precision,
                could_bf16=kind == OPENVINO and self._has_bf16,
                num_cpus=resources.get("CPU", 0.0),
                num_gpus=resources.get("GPU", 0.0),
                min_replicas=part.settings.min_replicas,
                max_replicas=part.settings.max_replicas,
            )
            yield _Seen(now, part, size)

    def _engine(self, model: str, label: str, now: datetime) -> tuple[str, str] | None:
        """Return the engine kind and precision that the version reported last."""
        since_ms = to_ms(now) - int(MEASURED_S * 1000)
        for window in self._observations.windows(model, since_ms=since_ms):
            if window.version == label and window.engine and window.precision:
                self._engines[model, label] = window.engine, window.precision
        return self._engines.get((model, label))


def computes_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether the processor of this machine supports bf16, according to Linux."""
    try:
        words = set(cpu_info.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16"})


def _is_known(part: ScalableApp) -> bool:
    reading = part.reading
    age_s = known(reading.age_s)
    is_fresh = age_s is not None and age_s <= part.settings.stale_after_s
    return is_fresh and reading.reachable and reading.lag is not None


def _workload(seen: _Seen, now: datetime) -> Workload:
    """Return the workload, assuming that the observation holds until now."""
    reading, settings = seen.part.reading, seen.part.settings
    seconds, busy = (now - seen.at).total_seconds(), known(reading.busy) or 0.0
    at_min_s = seconds if reading.current <= settings.min_replicas else 0.0
    lags = (
        reading.current >= settings.max_replicas
        and busy >= BUSY_SHARE
        and is_behind(reading.lag or 0.0, reading.drain_per_s or 0.0, settings.target_drain_s)
    )
    return Workload(
        hour=seen.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0),
        model=seen.part.model,
        label=seen.part.label or "",
        size=seen.size,
        until=now,
        watched_s=seconds,
        replica_s=seconds * reading.current,
        at_min_s=at_min_s,
        busy_at_min_s=at_min_s * busy * reading.current,
        lagging_s=seconds if lags else 0.0,
    )
