"""``bertstream grant`` and ``bertstream token``: who may do what, and how they are known."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.access.permissions import Permission
from ops.cli.api_client import ApiClient
from ops.cli.options import STATE_DIR, ApiOption, JsonOption, LimitOption, StateOption
from ops.cli.session import hint, moment, print_json, print_more, print_table, say, session
from ops.errors import NotFound

LARGEST_PAGE = 500

grant_app = typer.Typer(help="Permissions of persons, teams, departments.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens for the control API.", no_args_is_help=True)

HolderArgument = Annotated[str, typer.Argument(help="A person, team or department.")]
PatternArgument = Annotated[str, typer.Argument(help="A model, or such as 'risk-*' or '*'.")]
HolderOption = Annotated[str | None, typer.Option("--holder", help="Of this one only.")]
AfterOption = Annotated[int, typer.Option(help="Numbers above this one.", min=0)]


@grant_app.command("add")
def grant_add(
    holder: HolderArgument,
    permission: Permission,
    pattern: PatternArgument,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Give a permission on a model or on all whose name fits a pattern."""
    with session(api, state_dir) as client:
        body = {"holder": holder, "permission": permission, "pattern": pattern}
        done = client.request("POST", "/grants", body=body)
        if as_json:
            print_json(done)
        else:
            say(f"{holder} has {permission} on {pattern}")


@grant_app.command("remove")
def grant_remove(
    holder: HolderArgument,
    permission: Permission,
    pattern: PatternArgument,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
) -> None:
    """Take a permission away."""
    with session(api, state_dir) as client:
        number = _grant(client, holder, permission, pattern)["id"]
        client.request("DELETE", f"/grants/{number}")
        say(f"{holder} has {permission} on {pattern} no more")


@grant_app.command("list")
def grant_list(
    holder: HolderOption = None,
    limit: LimitOption = 50,
    after: AfterOption = 0,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """List permissions that are given."""
    with session(api, state_dir) as client:
        page = client.get("/grants", holder=holder, limit=limit, after=after)
        if as_json:
            print_json(page)
            return
        rows = [
            (g["holder"], g["kind"], g["permission"], g["pattern"], g["granted_by"])
            for g in page["items"]
        ]
        print_table(("holder", "kind", "may", "on", "given by"), rows, empty="none")
        print_more(page, "--after")


@token_app.command("create")
def token_create(
    holder: Annotated[str | None, typer.Argument(help="A person; oneself if none.")] = None,
    days: Annotated[int, typer.Option(help="That it counts for.", min=1, max=3650)] = 90,
    never_expires: Annotated[bool, typer.Option("--never-expires")] = False,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a token and show it, once; it does not outlive the one that it is made with."""
    with session(api, state_dir) as client:
        body = {"holder": holder, "days": None if never_expires else days}
        done = client.request("POST", "/tokens", body=body)
        if as_json:
            print_json(done)
            return
        until = moment(done["expires_at"])
        ends = f"until {until} UTC" if until else "without end"
        if done["ends_with_maker"]:
            ends += ", when the token that it was made with ends"
        hint(f"Of {done['holder']}, {ends}. It is not shown again:")
        say(done["token"])


@token_app.command("list")
def token_list(
    holder: HolderOption = None,
    everybody: Annotated[bool, typer.Option("--all", help="Of everybody; for admins.")] = False,
    limit: LimitOption = 50,
    after: AfterOption = 0,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """List one's own tokens, without what is secret."""
    with session(api, state_dir) as client:
        if holder is None and not everybody:
            holder = client.get("/me")["name"]
        page = client.get("/tokens", holder=holder, limit=limit, after=after)
        if as_json:
            print_json(page)
            return
        rows = [
            (t["id"], t["prefix"], t["holder"], moment(t["last_used_at"]), _state(t))
            for t in page["items"]
        ]
        print_table(("-id", "token", "of", "last used", "state"), rows, empty="none")
        print_more(page, "--after")


@token_app.command("revoke")
def token_revoke(
    number: Annotated[int, typer.Argument(metavar="ID", help="Of `token list`.", min=1)],
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
) -> None:
    """Have a token count no more."""
    with session(api, state_dir) as client:
        done = client.request("DELETE", f"/tokens/{number}")
        say(f"{done['prefix']}... of {done['holder']}: revoked")


def _grant(client: ApiClient, holder: str, permission: str, pattern: str) -> dict[str, Any]:
    page = client.get("/grants", holder=holder, limit=LARGEST_PAGE)
    for grant in page["items"]:
        if (grant["permission"], grant["pattern"]) == (permission, pattern):
            found: dict[str, Any] = grant
            return found
    raise NotFound(f"{holder} has no grant of {permission} on {pattern} itself")


def _state(token: dict[str, Any]) -> str:
    if token["revoked_at"]:
        return f"revoked {moment(token['revoked_at'])}"
    return f"until {moment(token['expires_at'])}" if token["expires_at"] else "without end"
