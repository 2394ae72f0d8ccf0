"""``bertstream cost`` and ``bertstream alerts``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.api_client import ApiClient
from ops.cli.options import LimitOption
from ops.cli.session import Shown, hint, moment, print_more, print_table, remote, say

HOUR_S = 3600


@remote
def cost(
    client: ApiClient,
    model: Annotated[str | None, typer.Option(help="Show this model only.")] = None,
    days: Annotated[
        int | None,
        typer.Option(help="Days up to today, UTC; default: 1, for advice 7.", min=1, max=366),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Group by model, version or team; default: all.")
    ] = None,
    advice: Annotated[
        bool, typer.Option("--advice", help="Show what would be cheaper or faster.")
    ] = False,
) -> Shown:
    """Show what models used and what it cost, per version and team."""
    if advice and by:
        raise typer.BadParameter("--advice is always per version; leave out --by")
    if advice:
        return Shown(client.get("/cost/advice", model=model, days=days), _print_advice)
    names = by or ["model", "version", "team"]
    found = client.get("/cost", model=model, days=days, by=by)
    return Shown(found, lambda costs: _print_costs(costs, names))


@remote
def alerts(
    client: ApiClient,
    everything: Annotated[bool, typer.Option("--all", help="Show closed alerts, too.")] = False,
    limit: LimitOption = 20,
    before: Annotated[int | None, typer.Option(help="Show IDs below this one.", min=1)] = None,
) -> Shown:
    """Show alerts: problems that the platform cannot solve itself and that need an operator."""
    page = client.get("/alerts", closed=everything, limit=limit, before=before)
    return Shown(page, _print_alerts)


def _print_costs(found: dict[str, Any], names: list[str]) -> None:
    currency = found["currency"]
    columns = [*names, "-replica h", "-CPU h", "-GPU h", "-predictions"]
    if currency is not None:
        columns += [f"-{currency}", "-per 1M"]
    rows = [_row(bill, names, priced=currency is not None) for bill in found["bills"]]
    print_table(columns, rows, empty=f"nothing was used since {moment(found['since'])} UTC")
    if currency is None:
        hint("no prices: set `prices` in the configuration to see costs")


def _print_alerts(page: dict[str, Any]) -> None:
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
    print_table(columns, rows, empty="no alerts")
    print_more(page, "--before")


def _print_advice(found: dict[str, Any]) -> None:
    if not found["watched"]:
        say("no advice: no running version has been measured under load yet")
        return
    rows = [(one["setting"], one["sentence"]) for one in found["advice"]]
    print_table(("setting", "advice"), rows, empty="nothing to change")
    larger_h, smaller_h = found["raise_after_h"], found["lower_after_h"]
    for one in found["watched"]:
        if one["observed_h"] < smaller_h:
            hint(
                f"{one['model']}@{one['version']} was measured for {one['observed_h']:.1f} h at "
                f"this size: advice to enlarge needs {larger_h:g} h, to reduce {smaller_h:g} h"
            )


def _row(bill: dict[str, Any], names: list[str], *, priced: bool) -> list[Any]:
    hours = [f"{bill[name] / HOUR_S:,.2f}" for name in ("replica_s", "cpu_s", "gpu_s")]
    row = [*(bill[name] for name in names), *hours, f"{bill['predictions']:,}"]
    if priced:
        each = bill["per_million"]
        row += [f"{bill['money']:,.4f}", None if each is None else f"{each:,.2f}"]
    return row
