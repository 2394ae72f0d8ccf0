"""Statistics of one consumer: counts since its start, telemetry windows by version. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from serve.contract import Answer, Failure, ReplicaInfo
from stream.isolation import Reply
from stream.offsets import Slot
from stream.records import Deleted, Output
from stream.settings import PipelineSettings
from stream.telemetry import TelemetryWindow
from stream.topics import TELEMETRY_TOPIC

logger = logging.getLogger(__name__)

# Kafka's default retention: an older timestamp is the time of an event, not the time at which the
# record was sent.
OLDEST_MS: Final = 7 * 24 * 3600 * 1000

RescueReason = Literal["failed", "late", "away"]
"""Why a record goes to its version's fallback: it failed, was late, or no replica answers."""


class ConsumerStats:
    """Counts answered calls and committed records; times are seconds since 1970.

    Attributes:
        window_start_s: Start of the windows that ``take`` will end.
        answers, dead_letters, commits, failed_commits: Counts since the process started.
    """

    def __init__(self, settings: PipelineSettings, *, rank: int, now_s: float) -> None:
        self._settings = settings
        self._rank = rank
        self._windows: dict[str | None, TelemetryWindow] = {}
        self._infos: dict[str, ReplicaInfo] = {}
        self.window_start_s = now_s
        self.answers = self.dead_letters = self.commits = self.failed_commits = 0

    def observe_reply(self, version: str, reply: Reply) -> None:
        """Count the calls that were made for a micro-batch."""
        self._infos[version] = reply.info
        window = self._window(version)
        for stats in reply.stats:
            window.observe_call(stats)
        for _ in range(reply.retries):
            window.observe_retry()

    def observe_commit(self, slots: Sequence[Slot], now_s: float) -> None:
        """Count the answers and dead letters of a commit, by version.

        The latency of a record is unknown if its timestamp is missing, in the future or too old.
        """
        self.commits += 1
        by_version: dict[str, list[Slot]] = {}
        for slot in slots:
            by_version.setdefault(slot.version, []).append(slot)
        for version, own in by_version.items():
            window = self._window(version)
            answers = [s.outcome for s in own if isinstance(s.outcome, Answer)]
            ages_ms = [
                now_s * 1000 - s.record.timestamp
                for s in own
                if isinstance(s.outcome, Answer) and s.record.timestamp > 0
            ]
            kinds = [s.outcome.kind for s in own if isinstance(s.outcome, Failure)]
            window.observe_answers(answers, [ms for ms in ages_ms if 0 <= ms <= OLDEST_MS])
            window.observe_failures(kinds)
            self.answers += len(answers)
            self.dead_letters += len(kinds)

    def observe_deleted(self, deleted: Iterable[Deleted]) -> None:
        """Count records that can no longer be read; they are charged to no version."""
        for gone in deleted:
            logger.error(
                "%s/%d: offsets %d to %d were deleted before they were read",
                *gone.partition,
                gone.first,
                gone.following - 1,
            )
            self._window(None).observe_deleted(gone)

    def observe_rescues(self, version: str, reason: RescueReason, count: int) -> None:
        """Count records that were sent to a version and that its fallback must answer."""
        self._window(version).observe_rescues(reason, count)

    def is_due(self, now_s: float) -> bool:
        """Return whether telemetry must be sent now."""
        deleted = self._windows.get(None)
        if deleted is not None and not deleted.is_empty:
            return True  # with the commit that skips the records, or it would never be reported
        if now_s - self.window_start_s < self._settings.telemetry_interval_s:
            return False
        return any(not window.is_empty for window in self._windows.values())

    def take(self, now_s: float) -> list[Output]:
        """Return the telemetry since the last call, as records, and begin the next windows."""
        start_ms, end_ms = int(self.window_start_s * 1000), int(now_s * 1000)
        self.window_start_s = now_s
        key = f"{self._settings.name}/{self._rank}".encode()
        outputs = []
        for version, window in self._windows.items():
            if not window.is_empty:
                record = window.to_record(start_ms, end_ms, replica=self._infos.get(version or ""))
                window.reset()
                outputs.append(Output(TELEMETRY_TOPIC, key, record.to_bytes(), []))
        return outputs

    def _window(self, version: str | None) -> TelemetryWindow:
        if version not in self._windows:
            self._windows[version] = TelemetryWindow(
                pipeline=self._settings.name,
                consumer=self._rank,
                model=self._settings.model,
                version=version,
            )
        return self._windows[version]
