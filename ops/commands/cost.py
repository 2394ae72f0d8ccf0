"""``bertstream cost`` and ``bertstream alerts``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.commands.session import (
    STATE_DIR,
    ApiOption,
    JsonOption,
    LimitOption,
    StateOption,
    hint,
    moment,
    print_json,
    print_more,
    print_table,
    session,
)

HOUR_S = 3600


def cost(
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    days: Annotated[int, typer.Option(help="Today and those before, UTC.", min=1, max=366)] = 1,
    by: Annotated[
        list[str] | None, typer.Option(help="model, version, team; all of them if none.")
    ] = None,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what models used and what it cost, per version and team."""
    with session(api, state_dir) as client:
        found = client.get("/cost", model=model, days=days, by=by)
        if as_json:
            print_json(found)
            return
        currency = found["currency"]
        names = by or ["model", "version", "team"]
        columns = [*names, "-replica h", "-CPU h", "-GPU h", "-predictions"]
        if currency is not None:
            columns += [f"-{currency}", "-per million"]
        rows = [_row(bill, names, priced=currency is not None) for bill in found["bills"]]
        print_table(columns, rows, empty=f"nothing was used since {moment(found['since'])} UTC")
        if currency is None:
            hint("no prices: set `prices` in the configuration to see money")


def alerts(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: LimitOption = 20,
    before: Annotated[int | None, typer.Option(help="Alerts below this one.", min=1)] = None,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what somebody should see to: what the platform could not help by itself."""
    with session(api, state_dir) as client:
        page = client.get("/alerts", closed=everything, limit=limit, before=before)
        if as_json:
            print_json(page)
            return
        rows = [
            (
                alert["id"],
                moment(alert["opened_at"]),
                moment(alert["closed_at"]),
                alert["severity"],
                f"{alert['what']}; hurts: {alert['hurts']}; do: {alert['todo']}",
            )
            for alert in page["items"]
        ]
        columns = ("-id", "opened (UTC)", "closed", "severity", "what")
        print_table(columns, rows, empty="no alerts", fold=True)
        print_more(page, "--before")


def _row(bill: dict[str, Any], names: list[str], *, priced: bool) -> list[Any]:
    hours = [f"{bill[name] / HOUR_S:,.2f}" for name in ("replica_s", "cpu_s", "gpu_s")]
    row = [*(bill[name] for name in names), *hours, f"{bill['predictions']:,}"]
    if priced:
        each = bill["per_million"]
        row += [f"{bill['money']:,.4f}", None if each is None else f"{each:,.2f}"]
    return row
