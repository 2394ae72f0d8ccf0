"""Shared parts of commands that call the control API: options, connection, printing."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import typer

from ops.cli.api_client import ApiClient, connected
from ops.cli.options import STATE_DIR, ApiOption, JsonOption, StateOption
from ops.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors_in_words, fail, json_line, out, plain
from ops.config.state_dir import state_dir_of
from ops.errors import ApiRefused

# HTTP statuses of requests that are wrong for every caller.
WRONG_USE = (400, 413, 422)


class Shown(NamedTuple):
    """Output of a command.

    Attributes:
        answer: Content that ``--json`` prints.
        in_words: Prints ``answer`` for people.
    """

    answer: Any
    in_words: Callable[[Any], None]
    exit_code: int = 0


def remote(command: Callable[..., Shown]) -> Callable[..., None]:
    """Turn a function into a command of the control API, with --api, --state-dir and --json.

    Args:
        command: Function of a client, followed by its own arguments and options.
    """

    def run(*, api: ApiOption, state_dir: StateOption, as_json: JsonOption, **own: Any) -> None:
        with session(api, state_dir) as client:
            shown = command(client, **own)
            if as_json:
                print_json(shown.answer)
            else:
                shown.in_words(shown.answer)
        if shown.exit_code:
            raise typer.Exit(shown.exit_code)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = inspect.signature(_shared, eval_str=True).parameters.values()
    options = [*own, *shared]
    setattr(run, "__signature__", inspect.Signature(options))  # noqa: B010  Typer reads it
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _shared(
    api: ApiOption = None, state_dir: StateOption = STATE_DIR, as_json: JsonOption = False
) -> None:
    """Declare the options of every command of the control API."""


@contextmanager
def session(api: str | None, state_dir: Path | None) -> Iterator[ApiClient]:
    """Provide a client during a command; every refusal becomes one sentence and an exit code."""
    with errors_in_words():
        try:
            yield connected(api, state_dir_of(state_dir))
        except ApiRefused as refused:
            # Only problems with a line of a text: the sentence includes all others.
            print_problems([problem for problem in refused.problems if problem["line"]])
            fail(str(refused), EXIT_USAGE if refused.status in WRONG_USE else EXIT_FAILED)


def print_problems(problems: Sequence[dict[str, Any]], name: str = "") -> None:
    """Print one line for each mistake, as ``file:line:column: path: what is wrong``."""
    for problem in problems:
        place = f"{problem['line']}:{problem['column']}" if problem.get("line") else ""
        severity = "warning" if problem.get("severity") == "warning" else ""
        parts = (name, place, severity, problem.get("path"), problem["message"])
        line = ": ".join(str(part) for part in parts if part)
        hint(line)


def print_json(answer: Any) -> None:
    """Print the response of the API unchanged."""
    json_line(json.dumps(answer, ensure_ascii=False))


def say(line: str = "") -> None:
    """Print a line on stdout."""
    sys.stdout.write(f"{plain(line)}\n")


def hint(line: str) -> None:
    """Print a line on stderr: stdout has only the requested output."""
    sys.stderr.write(f"{plain(line)}\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their columns, at most as wide as the terminal.

    Args:
        columns: Names; a leading hyphen marks a column of numbers, which are never cut. Texts
            are shortened, the widest first, and those of the last column are wrapped.
        rows: Cells; None and empty texts are shown as a hyphen.
        empty: Line to print if there are no rows.
    """
    from rich.table import Table
    from rich.text import Text

    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="")
    for name in columns:
        if name.startswith("-"):
            table.add_column(name[1:], justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold" if name is columns[-1] else "ellipsis")
    for row in rows:
        cells = (" ".join(str(value).split()) if value is not None else "" for value in row)
        table.add_row(*(Text(plain(cell) or "-") for cell in cells))
    out.print(table)


def print_more(page: dict[str, Any], option: str) -> None:
    """Print the option that shows the next page, if there is one."""
    if page["next"] is not None:
        hint(f"more: {option} {page['next']}")


def moment(text: str | None) -> str | None:
    """Return a time to the minute, in UTC."""
    return None if text is None else text[:16].replace("T", " ")
