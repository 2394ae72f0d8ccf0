"""``bertstream health``: what is wrong, since when, what it affects and what to do."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from ops.cli.api_client import connected
from ops.cli.options import STATE_DIR, ApiOption, JsonOption, StateOption
from ops.cli.session import print_json
from ops.cli.terminal import errors_in_words, out
from ops.config.state_dir import state_dir_of
from ops.errors import ApiRefused, NotRunning
from ops.health.findings import REPORT_FILE, Severity
from ops.health.kinds import OPERATOR_SILENT
from ops.platform.installation import logs
from ops.platform.supervisor import SupervisorNote

# A report that is no older than this shows that the operator still writes reports.
FRESH = timedelta(seconds=60)
FAILED = 500
COLOURS = {"ok": "green", "degraded": "yellow", "down": "red"}


def health(
    everything: Annotated[bool, typer.Option("--all", help="Show what is healthy, too.")] = False,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show the health of the platform; exit code 0 healthy, 1 degraded, 2 down."""
    with errors_in_words():
        place = state_dir_of(state_dir)
        try:
            found = connected(api, place).get("/health")
        except NotRunning as exc:
            found = without_operator(str(exc), place, lives=False)
        except ApiRefused as exc:
            if exc.status < FAILED:
                raise
            found = without_operator(str(exc), place, lives=True)
        # The logs of a remote platform are on its own machine.
        place_of_logs = None if api else logs(place)
        if as_json:
            print_json(found | {"logs": place_of_logs and str(place_of_logs)})
        else:
            _print(found, everything=everything)
            if place_of_logs:
                out.print(
                    f"\nLogs of consumers and replicas: {place_of_logs}",
                    markup=False,
                    soft_wrap=True,
                )
        raise typer.Exit(found["grade"])


def without_operator(why: str, state_dir: Path, *, lives: bool) -> dict[str, Any]:
    """Return the platform's health as far as it is known without the control API.

    Args:
        why: Reason why the control API does not answer.
        state_dir: State directory, which has the operator's last report.
        lives: The operator answered with an error and may still check and write reports.
    """
    now = datetime.now(UTC)
    note = SupervisorNote.load(state_dir)
    if note is not None and note.deaths:
        why = f"{why}; {note.sentence()}"
    report = _report(state_dir / REPORT_FILE)
    last = datetime.fromisoformat(report["at"]) if report else None
    fresh = lives and last is not None and now - last < FRESH
    finding = {
        "key": OPERATOR_SILENT.key,
        "severity": Severity.DOWN,
        "what": f"the operator does not answer: {why}",
        "since": last and last.isoformat(),
        "hurts": OPERATOR_SILENT.hurts,
        "todo": _todo(note, state_dir / "operator.log"),
    }
    others = report["findings"] if report and fresh else []
    return {
        "status": Severity.DOWN,
        "grade": Severity.DOWN.grade,
        "at": now.isoformat(),
        "age_s": 0.0,
        "findings": [finding, *others],
        "hidden": 0,
        "readings": None,
    }


def _todo(note: SupervisorNote | None, log: Path) -> str:
    if note is not None and note.next_at is not None:
        left_s = max(0.0, note.next_at - time.time())
        return f"see {log}; it restarts automatically in {left_s:.0f} s"
    if note is not None and note.pid is not None and psutil.pid_exists(note.pid):
        return f"wait a few seconds: a new operator has started; see {log} if it does not answer"
    return f"see {log}; `bertstream up` starts it again"


def _report(file: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return report


def _print(found: dict[str, Any], *, everything: bool) -> None:
    status = found["status"]
    out.print(f"[{COLOURS[status]}]{status}[/], as of {found['age_s']:.0f} s ago")
    problems = [finding for finding in found["findings"] if finding["severity"] != "ok"]
    for finding in problems:
        out.print()
        out.print(f"[{COLOURS[finding['severity']]}]{finding['severity']}[/] ", end="")
        out.print(f"{finding['key']}, {_since(finding['since'])}", markup=False, soft_wrap=True)
        for line in (finding["what"], f"hurts: {finding['hurts']}", f"do: {finding['todo']}"):
            out.print(f"  {line}", markup=False, soft_wrap=True)
    fine = [finding for finding in found["findings"] if finding["severity"] == "ok"]
    if everything:
        out.print()
        for finding in fine:
            out.print(f"[green]ok[/] {finding['key']}: ", end="")
            out.print(finding["what"], markup=False, soft_wrap=True)
    elif fine:
        out.print(f"\n{len(fine)} checks are healthy; --all shows them")
    if found["hidden"]:
        out.print(
            f"{found['hidden']} findings are not shown: they require `read` on their model, or on "
            "all models; `bertstream grant list` shows your permissions",
            soft_wrap=True,
        )


def _since(moment: str | None) -> str:
    if moment is None:
        return "since an unknown time"
    since = datetime.fromisoformat(moment)
    seconds = (datetime.now(UTC) - since).total_seconds()
    return f"since {since:%Y-%m-%d %H:%M:%S} UTC ({_duration(max(0.0, seconds))})"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
