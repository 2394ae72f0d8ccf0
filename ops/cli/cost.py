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
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    days: Annotated[
        int | None,
        typer.Option(help="Today and those before, UTC; 1 if none, 7 for advice.", min=1, max=366),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="model, version, team; all of them if none.")
    ] = None,
    advice: Annotated[
        bool, typer.Option("--advice", help="What would be cheaper or faster instead.")
    ] = False,
) -> Shown:
    """Show what models used and what it cost, per version and team."""
    if advice and by:
        raise typer.BadParameter("advice is about versions; leave --by out")
    if advice:
        return Shown(client.get("/cost/advice", model=model, days=days), _print_advice)
    names = by or ["model", "version", "team"]
    found = client.get("/cost", model=model, days=days, by=by)
    return Shown(found, lambda costs: _print_costs(costs, names))


@remote
def alerts(
    client: ApiClient,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: LimitOption = 20,
    before: Annotated[int | None, typer.Option(help="Alerts below this one.", min=1)] = None,
) -> Shown:
    """Show what somebody should see to: what the platform could not help by itself."""
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
        hint("no prices: set `prices` in the configuration to see money")


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
        say("no advice: no version that runs was watched under load so far")
        return
    rows = [(one["setting"], one["sentence"]) for one in found["advice"]]
    print_table(("setting", "advice"), rows, empty="nothing to change")
    larger_h, smaller_h = found["raise_after_h"], found["lower_after_h"]
    for one in found["watched"]:
        if one["observed_h"] < smaller_h:
            hint(
                f"{one['model']}@{one['version']} was watched for {one['observed_h']:.1f} h with "
                f"its present size: more is advised after {larger_h:g} h, less after {smaller_h:g}"
            )


def _row(bill: dict[str, Any], names: list[str], *, priced: bool) -> list[Any]:
    hours = [f"{bill[name] / HOUR_S:,.2f}" for name in ("replica_s", "cpu_s", "gpu_s")]
    row = [*(bill[name] for name in names), *hours, f"{bill['predictions']:,}"]
    if priced:
        each = bill["per_million"]
        row += [f"{bill['money']:,.4f}", None if each is None else f"{each:,.2f}"]
    return row
