"""``bertstream ledger``: who did what, when and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.api_client import COPY_TIMEOUT_S, ApiClient
from ops.cli.options import STATE_DIR, ApiOption, JsonOption, LimitOption, StateOption
from ops.cli.session import (
    Shown,
    hint,
    moment,
    print_json,
    print_more,
    print_table,
    remote,
    say,
    session,
)
from ops.cli.terminal import EXIT_FAILED

app = typer.Typer(help="Who did what, when and why.")


@app.callback(invoke_without_command=True)
def ledger(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Show this model only.")] = None,
    release: Annotated[int | None, typer.Option(help="Show this release only.", min=1)] = None,
    by: Annotated[str | None, typer.Option(help="Show this actor only.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Show rows since then, such as 2026-03-02T09:00Z.")
    ] = None,
    limit: LimitOption = 20,
    before: Annotated[int | None, typer.Option(help="Show IDs below this one.", min=1)] = None,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show rows of the ledger, newest first."""
    if context.invoked_subcommand is not None:
        return
    with session(api, state_dir) as client:
        query = {"model": model, "release": release, "by": by, "since": since}
        page = client.get("/ledger", **query, limit=limit, before=before)
        if as_json:
            print_json(page)
            return
        rows = [
            (row["id"], moment(row["at"]), row["actor"], row["action"], _what(row), _why(row))
            for row in page["items"]
        ]
        columns = ("-id", "at (UTC)", "who", "did", "to", "why")
        print_table(columns, rows, empty="no rows")
        print_more(page, "--before")


@app.command()
@remote
def verify(client: ApiClient) -> Shown:
    """Verify the chain of hashes from its beginning; exit code 1 if it is broken."""
    found = client.request("GET", "/ledger/verification", timeout_s=COPY_TIMEOUT_S)
    if found["holds"]:
        holds = f"{found['rows']} rows; the chain is intact up to {found['hash']}"
        return Shown(found, lambda _: say(holds))
    breaks = f"the chain breaks at row {found['broken_at']}: {found['why']}"
    return Shown(found, lambda _: hint(breaks), EXIT_FAILED)


def _what(row: dict[str, Any]) -> str:
    if row["model"] is None:
        return ""
    return f"{row['model']}@{row['version']}" if row["version"] else str(row["model"])


def _why(row: dict[str, Any]) -> str:
    """Return the flags, the states and the reason, or the evidence if there is no reason."""
    states = f"{row['from_state']} -> {row['to_state']}" if row["to_state"] else ""
    flags = ("DENIED" if row["denied"] else "", "BREAK-GLASS" if row["break_glass"] else "")
    evidence = ", ".join(f"{key} {value}" for key, value in row["evidence"].items() if value)
    parts = (*flags, states, row["reason"] or evidence)
    return ": ".join(part for part in parts if part)
