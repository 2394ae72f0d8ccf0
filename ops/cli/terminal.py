"""Shared parts of all commands: consoles, errors and exit codes, the configuration file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import typer

from ops.config.state_dir import DEFAULT_FILE
from ops.errors import ConfigError, OpsError
from serve.errors import ServeError
from stream.errors import StreamError
from train.errors import TrainError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ops.config.settings import PlatformConfig

logger = logging.getLogger(__name__)

PACKAGES = ("ops", "stream", "serve", "train")
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# Steps that took longer show their duration.
SLOW_S = 2.0


class _LateConsole:
    """A console that is created on first use: many commands print plain lines only."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(stderr=self._stderr, highlight=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console, name)

    # A live view uses these, and Python looks them up on the class.
    def __enter__(self) -> Any:
        return self._console.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._console.__exit__(*error)


out = cast("Console", _LateConsole(stderr=False))
err = cast("Console", _LateConsole(stderr=True))


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Show an error of this project as one sentence and exit with its code."""
    try:
        yield
    except (OpsError, StreamError, ServeError, TrainError) as exc:
        logger.debug("traceback of the error:", exc_info=True)
        fail(str(exc), EXIT_USAGE if isinstance(exc, ConfigError) else EXIT_FAILED)
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)


def log_everything() -> None:
    """Log this project's packages at DEBUG and all others at WARNING, on stderr.

    DEBUG of the Kafka client is left out: it logs passwords.
    """
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG)
    logging.getLogger("kafka").setLevel(logging.WARNING)


def fail(message: str, code: int) -> None:
    """Print an error and exit."""
    err.print(f"[red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    """Print a note on something that works but may not be intended."""
    err.print(f"[yellow]note:[/] {_escaped(message)}", soft_wrap=True)


class StepPrinter:
    """Prints steps on stderr, so that stdout stays clean, each with the seconds since the previous
    one. As a context manager on a terminal, it also counts the seconds of the current step.
    """

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._running: Progress | None = None

    def __enter__(self) -> Self:
        self._since_s = time.monotonic()
        if err.is_terminal:
            from rich.progress import Progress, TextColumn, TimeElapsedColumn

            self._running = Progress(
                TextColumn("[dim]  …"), TimeElapsedColumn(), console=err, transient=True
            )
            self._running.start()
            self._running.add_task("")
        return self

    def __exit__(self, *error: object) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def __call__(self, message: str) -> None:
        """Print a step that begins or has ended."""
        now_s = time.monotonic()
        took = f" [dim]({now_s - self._since_s:.0f} s)[/]" if now_s - self._since_s > SLOW_S else ""
        self._since_s = now_s
        if self._running is not None:
            self._running.reset(self._running.task_ids[0])
        err.print(f"[cyan]•[/] {_escaped(message)}{took}", soft_wrap=True)


def configuration(path: Path | None) -> PlatformConfig:
    """Read the file at ``path``, or ``bertstream.yaml`` here.

    Raises:
        ConfigError: The file does not exist or has mistakes.
    """
    from ops.config.file import load

    if path is None and not DEFAULT_FILE.exists():
        raise ConfigError(
            f"there is no {DEFAULT_FILE} here; name a file with --config, or start from "
            "infra/bertstream.example.yaml"
        )
    return load(path or DEFAULT_FILE)


def plain(text: str) -> str:
    """Replace control characters: names and reasons come from users."""
    return "".join(char if char.isprintable() else "?" for char in text)


def json_line(text: str) -> None:
    """Print JSON on stdout, without any formatting."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
