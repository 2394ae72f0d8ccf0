"""A progress bar for work that takes a while."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from ops.cli.terminal import err

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class LateBar:
    """An ``UploadProgress`` that shows a bar on a terminal, for work longer than ``after_s``."""

    def __init__(self, after_s: float = 2.0) -> None:
        self._what, self._done = "", 0
        self._total: int | None = None
        self._bar: tuple[Progress, TaskID] | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(after_s, self._show)
        self._timer.daemon = True

    def __enter__(self) -> LateBar:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        if self._bar is not None:
            self._bar[0].stop()

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        """Start the bar again for the next piece of work."""
        with self._lock:
            self._what, self._total, self._done = what, total_bytes, 0
            if self._bar is not None:
                bar, task = self._bar
                bar.reset(task, description=what, total=total_bytes)

    def advance(self, size_bytes: int) -> None:
        """Add bytes to those that are done."""
        with self._lock:
            self._done += size_bytes
            if self._bar is not None:
                bar, task = self._bar
                bar.update(task, completed=self._done)

    def _show(self) -> None:
        if not err.is_terminal:
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with self._lock:
            bar = Progress(TextColumn("{task.description}"), *columns, console=err, transient=True)
            task = bar.add_task(self._what, total=self._total, completed=self._done)
            self._bar = bar, task
            bar.start()
