"""``bertstream people`` and ``bertstream team``: who there is, and who is in what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.options import STATE_DIR, ApiOption, JsonOption, LimitOption, StateOption
from ops.cli.session import moment, print_json, print_more, print_table, say, session

people_app = typer.Typer(help="Persons.", no_args_is_help=True)
team_app = typer.Typer(help="Teams of persons, departments of teams.", no_args_is_help=True)
AfterNameOption = Annotated[str, typer.Option(help="Those behind this one.")]


@people_app.command("list")
def people_list(
    limit: LimitOption = 50,
    after: AfterNameOption = "",
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """List persons."""
    with session(api, state_dir) as client:
        _print(client.get("/principals", kind="person", limit=limit, after=after), as_json)


@people_app.command("add")
def people_add(
    name: str,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Add a person, who may do nothing yet."""
    _add(name, "person", api, state_dir, as_json)


@people_app.command("show")
def people_show(
    name: Annotated[str | None, typer.Argument(help="Oneself if none.")] = None,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show a person, team or department: groups, members, what it may do."""
    with session(api, state_dir) as client:
        found = client.get("/me" if name is None else f"/principals/{name}")
        if as_json:
            print_json(found)
            return
        disabled = f", disabled {moment(found['disabled_at'])}" if found["disabled_at"] else ""
        say(f"{found['name']}: {found['kind']}{disabled}")
        for word in ("groups", "members"):
            if found[word]:
                say(f"{word}: {', '.join(found[word])}")
        rows = [(g["permission"], g["pattern"], g["holder"]) for g in found["grants"]]
        print_table(("may", "on", "by a grant to"), rows, empty="may do nothing")


@people_app.command("disable")
def people_disable(name: str, api: ApiOption = None, state_dir: StateOption = STATE_DIR) -> None:
    """Have a person, team or department count for nothing until it is enabled."""
    with session(api, state_dir) as client:
        client.request("POST", f"/principals/{name}/disable")
        say(f"{name}: disabled")


@people_app.command("enable")
def people_enable(name: str, api: ApiOption = None, state_dir: StateOption = STATE_DIR) -> None:
    """Have it count again."""
    with session(api, state_dir) as client:
        client.request("POST", f"/principals/{name}/enable")
        say(f"{name}: enabled")


@team_app.command("list")
def team_list(
    limit: LimitOption = 50,
    after: AfterNameOption = "",
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """List teams and departments."""
    with session(api, state_dir) as client:
        kinds = ["team", "department"]
        _print(client.get("/principals", kind=kinds, limit=limit, after=after), as_json)


@team_app.command("add")
def team_add(
    name: str,
    department: Annotated[
        bool, typer.Option("--department", help="One that holds teams, not persons.")
    ] = False,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Add a team or a department."""
    _add(name, "department" if department else "team", api, state_dir, as_json)


@team_app.command("join")
def team_join(
    team: str,
    member: Annotated[str, typer.Argument(help="A person; of a department a team.")],
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
) -> None:
    """Put a person into a team, or a team into a department."""
    with session(api, state_dir) as client:
        client.request("PUT", f"/principals/{team}/members/{member}")
        say(f"{member} is in {team}")


@team_app.command("leave")
def team_leave(
    team: str, member: str, api: ApiOption = None, state_dir: StateOption = STATE_DIR
) -> None:
    """Take it out again."""
    with session(api, state_dir) as client:
        client.request("DELETE", f"/principals/{team}/members/{member}")
        say(f"{member} is not in {team} any more")


def _add(name: str, kind: str, api: ApiOption, state_dir: StateOption, as_json: bool) -> None:
    with session(api, state_dir) as client:
        done = client.request("POST", "/principals", body={"name": name, "kind": kind})
        if as_json:
            print_json(done)
        else:
            say(f"{done['name']}: {done['kind']}")


def _print(page: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    rows = [
        (p["kind"], moment(p["created_at"]), moment(p["disabled_at"]), p["name"])
        for p in page["items"]
    ]
    print_table(("kind", "since", "disabled", "name"), rows, empty="none")
    print_more(page, "--after")
