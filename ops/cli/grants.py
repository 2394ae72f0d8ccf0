"""``bertstream grant`` and ``bertstream token``: permissions, and tokens to authenticate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.access.permissions import Permission
from ops.cli.api_client import ApiClient
from ops.cli.options import LimitOption
from ops.cli.session import Shown, hint, moment, print_more, print_table, remote, say
from ops.errors import NotFound

LARGEST_PAGE = 500

grant_app = typer.Typer(help="Permissions of people, teams and departments.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens for the control API.", no_args_is_help=True)

HolderArgument = Annotated[str, typer.Argument(help="A person, team or department.")]
PatternArgument = Annotated[str, typer.Argument(help="A model, or a pattern: 'risk-*' or '*'.")]
HolderOption = Annotated[str | None, typer.Option("--holder", help="Show this holder only.")]
AfterOption = Annotated[int, typer.Option(help="Show IDs above this one.", min=0)]


@grant_app.command("add")
@remote
def grant_add(
    client: ApiClient, holder: HolderArgument, permission: Permission, pattern: PatternArgument
) -> Shown:
    """Grant a permission on a model, or on all models whose name matches a pattern."""
    body = {"holder": holder, "permission": permission, "pattern": pattern}
    done = client.request("POST", "/grants", body=body)
    return Shown(done, lambda _: say(f"{holder} has {permission} on {pattern}"))


@grant_app.command("remove")
@remote
def grant_remove(
    client: ApiClient, holder: HolderArgument, permission: Permission, pattern: PatternArgument
) -> Shown:
    """Revoke a permission."""
    number = _grant(client, holder, permission, pattern)["id"]
    done = client.request("DELETE", f"/grants/{number}")
    return Shown(done, lambda _: say(f"{holder} no longer has {permission} on {pattern}"))


@grant_app.command("list")
@remote
def grant_list(
    client: ApiClient,
    holder: HolderOption = None,
    limit: LimitOption = 50,
    after: AfterOption = 0,
) -> Shown:
    """List granted permissions."""
    page = client.get("/grants", holder=holder, limit=limit, after=after)
    return Shown(page, _print_grants)


@token_app.command("create")
@remote
def token_create(
    client: ApiClient,
    holder: Annotated[str | None, typer.Argument(help="A person; default: yourself.")] = None,
    days: Annotated[int, typer.Option(help="Days until it expires.", min=1, max=3650)] = 90,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help="Instead of --days.")
    ] = False,
) -> Shown:
    """Create a token and show it once; it expires no later than the token that creates it."""
    body = {"holder": holder, "days": None if never_expires else days}
    return Shown(client.request("POST", "/tokens", body=body), _print_token)


@token_app.command("list")
@remote
def token_list(
    client: ApiClient,
    holder: HolderOption = None,
    everybody: Annotated[bool, typer.Option("--all", help="Show all holders; for admins.")] = False,
    limit: LimitOption = 50,
    after: AfterOption = 0,
) -> Shown:
    """List your own tokens, without their secrets."""
    if holder is None and not everybody:
        holder = client.get("/me")["name"]
    page = client.get("/tokens", holder=holder, limit=limit, after=after)
    return Shown(page, _print_tokens)


@token_app.command("revoke")
@remote
def token_revoke(
    client: ApiClient,
    number: Annotated[int, typer.Argument(metavar="ID", help="See `token list`.", min=1)],
) -> Shown:
    """Revoke a token permanently."""
    done = client.request("DELETE", f"/tokens/{number}")
    return Shown(done, lambda token: say(f"{token['prefix']}... of {token['holder']}: revoked"))


def _print_grants(page: dict[str, Any]) -> None:
    rows = [
        (g["holder"], g["kind"], g["permission"], g["pattern"], g["granted_by"])
        for g in page["items"]
    ]
    print_table(("holder", "kind", "may", "on", "granted by"), rows, empty="none")
    print_more(page, "--after")


def _print_token(issued: dict[str, Any]) -> None:
    until = moment(issued["expires_at"])
    ends = f"expires {until} UTC" if until else "never expires"
    if issued["ends_with_maker"]:
        ends += ", together with the token that created it"
    hint(f"Token for {issued['holder']}, {ends}. It is not shown again:")
    say(issued["token"])


def _print_tokens(page: dict[str, Any]) -> None:
    rows = [
        (t["id"], t["prefix"], t["holder"], moment(t["last_used_at"]), _state(t))
        for t in page["items"]
    ]
    print_table(("-id", "token", "of", "last used", "state"), rows, empty="none")
    print_more(page, "--after")


def _grant(client: ApiClient, holder: str, permission: str, pattern: str) -> dict[str, Any]:
    page = client.get("/grants", holder=holder, limit=LARGEST_PAGE)
    for grant in page["items"]:
        if (grant["permission"], grant["pattern"]) == (permission, pattern):
            found: dict[str, Any] = grant
            return found
    raise NotFound(f"{holder} has no direct grant of {permission} on {pattern}")


def _state(token: dict[str, Any]) -> str:
    if token["revoked_at"]:
        return f"revoked {moment(token['revoked_at'])}"
    return f"until {moment(token['expires_at'])}" if token["expires_at"] else "never expires"
