"""``bertstream people`` and ``bertstream team``: people, teams, departments and their members."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.api_client import ApiClient
from ops.cli.options import LimitOption
from ops.cli.session import Shown, moment, print_more, print_table, remote, say

people_app = typer.Typer(help="People.", no_args_is_help=True)
team_app = typer.Typer(help="Teams of people, departments of teams.", no_args_is_help=True)
AfterNameOption = Annotated[str, typer.Option(help="Show names after this one.")]


@people_app.command("list")
@remote
def people_list(client: ApiClient, limit: LimitOption = 50, after: AfterNameOption = "") -> Shown:
    """List people."""
    return Shown(client.get("/principals", kind="person", limit=limit, after=after), _print_page)


@people_app.command("add")
@remote
def people_add(client: ApiClient, name: str) -> Shown:
    """Add a person, who has no permissions yet."""
    return _added(client, name, "person")


@people_app.command("show")
@remote
def people_show(
    client: ApiClient,
    name: Annotated[str | None, typer.Argument(help="Default: yourself.")] = None,
) -> Shown:
    """Show a person, team or department: groups, members and permissions."""
    return Shown(client.get("/me" if name is None else f"/principals/{name}"), _print_profile)


@people_app.command("disable")
@remote
def people_disable(client: ApiClient, name: str) -> Shown:
    """Disable a person, team or department; it has no permissions until it is enabled."""
    done = client.request("POST", f"/principals/{name}/disable")
    return Shown(done, lambda _: say(f"{name}: disabled"))


@people_app.command("enable")
@remote
def people_enable(client: ApiClient, name: str) -> Shown:
    """Enable a person, team or department again."""
    done = client.request("POST", f"/principals/{name}/enable")
    return Shown(done, lambda _: say(f"{name}: enabled"))


@team_app.command("list")
@remote
def team_list(client: ApiClient, limit: LimitOption = 50, after: AfterNameOption = "") -> Shown:
    """List teams and departments."""
    kinds = ["team", "department"]
    return Shown(client.get("/principals", kind=kinds, limit=limit, after=after), _print_page)


@team_app.command("add")
@remote
def team_add(
    client: ApiClient,
    name: str,
    department: Annotated[
        bool, typer.Option("--department", help="A group of teams, not of people.")
    ] = False,
) -> Shown:
    """Add a team or a department."""
    return _added(client, name, "department" if department else "team")


@team_app.command("join")
@remote
def team_join(
    client: ApiClient,
    team: str,
    member: Annotated[str, typer.Argument(help="A person; for a department, a team.")],
) -> Shown:
    """Add a person to a team, or a team to a department."""
    client.request("PUT", f"/principals/{team}/members/{member}")
    return Shown({"group": team, "member": member}, lambda _: say(f"{member} is in {team}"))


@team_app.command("leave")
@remote
def team_leave(client: ApiClient, team: str, member: str) -> Shown:
    """Remove a person from a team, or a team from a department."""
    client.request("DELETE", f"/principals/{team}/members/{member}")
    done = {"group": team, "member": member}
    return Shown(done, lambda _: say(f"{member} is no longer in {team}"))


def _added(client: ApiClient, name: str, kind: str) -> Shown:
    done = client.request("POST", "/principals", body={"name": name, "kind": kind})
    return Shown(done, lambda added: say(f"{added['name']}: {added['kind']}"))


def _print_profile(found: dict[str, Any]) -> None:
    disabled = f", disabled {moment(found['disabled_at'])}" if found["disabled_at"] else ""
    say(f"{found['name']}: {found['kind']}{disabled}")
    for word in ("groups", "members"):
        if found[word]:
            say(f"{word}: {', '.join(found[word])}")
    rows = [(g["permission"], g["pattern"], g["holder"]) for g in found["grants"]]
    print_table(("permission", "on", "granted to"), rows, empty="no permissions")


def _print_page(page: dict[str, Any]) -> None:
    rows = [
        (p["kind"], moment(p["created_at"]), moment(p["disabled_at"]), p["name"])
        for p in page["items"]
    ]
    print_table(("kind", "since", "disabled", "name"), rows, empty="none")
    print_more(page, "--after")
