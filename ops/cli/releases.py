"""``bertstream release`` and ``bertstream rollback``: release versions and roll them back."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.api_client import ApiClient
from ops.cli.models import VersionArgument, parts_of
from ops.cli.options import STATE_DIR, ApiOption, JsonOption, LimitOption, StateOption
from ops.cli.session import (
    Shown,
    moment,
    print_json,
    print_more,
    print_table,
    remote,
    say,
    session,
)
from ops.cli.terminal import EXIT_FAILED, err, out, plain

if TYPE_CHECKING:
    from rich.text import Text

app = typer.Typer(help="Release versions and roll them back.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="The model.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Reason for the ledger.")]
WATCH_EVERY_S = 0.5
# Columns before a transition's reason, minimum columns of a reason, minutes shown as one hour.
MOVE_COLUMNS, MIN_COLUMNS, FULL_HOUR = 28, 20, 59.5
# Records from which on a fraction is meaningful.
ENOUGH = 100
WENT_BACK = ("rolling_back", "rolled_back", "aborted")


@app.command()
def start(
    version: VersionArgument,
    note: Annotated[str, typer.Option(help="What is new; for the ledger.")] = "",
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="Skip approvals and windows; requires --note.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch it to its end.")] = False,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Start the release of a version; the operator carries it out."""
    with session(api, state_dir) as client:
        name, number = parts_of(version)
        body = {"version": number, "note": note, "break_glass": break_glass}
        done = client.request("POST", f"/models/{name}/releases", body=body)
        if watch:
            _watch(client, name, as_json=as_json)
        elif as_json:
            print_json(done)
        else:
            say(f"release {done['id']} of {name}@{done['label']} has started")
            say(f"`bertstream release watch {name}` shows its progress")


@app.command()
@remote
def status(client: ApiClient, name: NameArgument) -> Shown:
    """Show the open release of a model, or its last one."""
    return Shown(client.get(f"/models/{name}/release"), _print_story)


@app.command()
def watch(
    name: NameArgument,
    api: ApiOption = None,
    state_dir: StateOption = STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Watch a release to its end; exit code 1 if it does not go live."""
    with session(api, state_dir) as client:
        _watch(client, name, as_json=as_json)


@app.command()
@remote
def explain(client: ApiClient, name: NameArgument) -> Shown:
    """Show why the last release of a model is in its state, with the evidence."""
    return Shown(client.get(f"/models/{name}/release"), _print_reasons)


def _print_story(story: dict[str, Any]) -> None:
    for line in story_lines(story, out.width if out.is_terminal else None):
        out.print(line, soft_wrap=True)


def _print_reasons(story: dict[str, Any]) -> None:
    release = story["release"]
    say(f"{release['model']}@{release['label']} is {release['state']}.")
    for move in story["moves"][-1:] if not release["ended_at"] else story["moves"][-2:]:
        say(f"{move['actor']}: {move['to_state']}: {_reason(move)}")
        for check, found in move["evidence"].items():
            _print_evidence(check, found)
    if not release["ended_at"]:
        say(f"Possible commands: {', '.join(release['takes'])}")


def _print_evidence(check: str, found: Any) -> None:
    if not isinstance(found, dict):
        say(f"  {check}: {found}")
    elif "sentence" in found:
        say(f"  {found['outcome']:<12} {found['sentence']}")
    elif check == "disagreements":
        rows = [(pair, count) for pair, count in found["labels"].items()]
        print_table(("live version -> this version", "-records"), rows, empty="")
        for place in found["records"]:
            say(f"  {place}")


@app.command()
@remote
def history(
    client: ApiClient,
    name: Annotated[str | None, typer.Argument(help="Show this model only.")] = None,
    limit: LimitOption = 20,
    before: Annotated[int | None, typer.Option(help="Show IDs below this one.", min=1)] = None,
) -> Shown:
    """List releases, newest first."""
    page = client.get("/releases", model=name, limit=limit, before=before)
    return Shown(page, _print_history)


def _print_history(page: dict[str, Any]) -> None:
    rows = [
        (
            found["id"],
            f"{found['model']}@{found['label']}",
            found["state"],
            found["author"],
            moment(found["created_at"]),
            found["note"],
        )
        for found in page["items"]
    ]
    columns = ("-id", "version", "state", "by", "started (UTC)", "note")
    print_table(columns, rows, empty="no releases")
    print_more(page, "--before")


def _command(word: str, help_text: str) -> None:
    """Register a command that acts on the open release of a model."""

    @remote
    def run(client: ApiClient, name: NameArgument, reason: ReasonOption = "") -> Shown:
        path = f"/models/{name}/release/{word}"
        return Shown(client.request("POST", path, body={"reason": reason}), _print_state)

    app.command(word, help=help_text)(run)


_command("approve", "Approve the open release of a model.")
_command("reject", "Reject the open release of a model; one rejection ends it.")
_command("pause", "Pause the open release; its traffic stays as it is.")
_command("resume", "Resume a paused release; its step starts again.")
_command("promote", "Move the open release to its next step at once.")
_command("abort", "Abort the open release; the live version answers all records.")


@remote
def rollback(client: ApiClient, name: NameArgument, reason: ReasonOption = "") -> Shown:
    """Return to the version that was live before; no policy blocks it."""
    done = client.request("POST", f"/models/{name}/rollback", body={"reason": reason})
    return Shown(done, _print_state)


def _reason(move: dict[str, Any]) -> str:
    """Return the reason on one line: a person may have written it."""
    return plain(" ".join(move["reason"].split()))


def _print_state(release: dict[str, Any]) -> None:
    name = f"{release['model']}@{release['label']}"
    say(f"release {release['id']} of {name}: {release['state']}")


def _watch(client: ApiClient, name: str, *, as_json: bool) -> None:
    with shown() as show:
        while True:
            story = client.get(f"/models/{name}/release")
            if not as_json:
                show(story_lines(story, err.width if err.is_terminal else None))
            if story["release"]["ended_at"]:
                break
            time.sleep(WATCH_EVERY_S)
    if as_json:
        print_json(story)
    if story["release"]["state"] not in ("live", "superseded"):
        raise typer.Exit(EXIT_FAILED)


def story_lines(story: dict[str, Any], width: int | None = None) -> list[Text]:
    """Return a release for people: its traffic, then each transition.

    Args:
        width: Columns of the terminal, at which long reasons are wrapped; None wraps nothing.
    """
    from rich.text import Text

    release, route = story["release"], story["route"]
    head = f"release {release['id']}  {release['model']}@{release['label']}  {release['state']}"
    if route:
        head += "   " + ", ".join(f"{v} {r['weight']:.0%}" for v, r in route["versions"].items())
        head += f", shadow {route['shadow']}" if route["shadow"] else ""
    lines = [Text(head, style="bold")]
    if traffic := _canary_traffic(story):
        lines[0].append(f"\n{traffic}")
    for move in story["moves"]:
        state = move["to_state"] or move["action"]
        colour = "red" if state in WENT_BACK else "green"
        line = Text(f"{move['at'][11:19]}  ", style="dim").append(f"{state:<17}", style=colour)
        lines.append(line.append(f" {_wrapped(_reason(move), width)}", style="default"))
    return lines


def _wrapped(reason: str, width: int | None) -> str:
    """Wrap a reason in its own column if the terminal is wide enough, else below the transition."""
    if width is None:
        return reason
    indent = MOVE_COLUMNS if width >= 2 * MOVE_COLUMNS else 2
    first = "" if indent == MOVE_COLUMNS else "\n" + indent * " "
    room = max(MIN_COLUMNS, width - indent)
    # Words that are too long are digests and places, which people copy as a whole.
    lines = textwrap.wrap(reason, room, break_long_words=False, break_on_hyphens=False)
    return first + ("\n" + indent * " ").join(lines)


def _canary_traffic(story: dict[str, Any]) -> str | None:
    """Return the new version's fraction of keys and of records; None outside a canary.

    A canary splits keys: if there are few, or one has most records, the fractions differ.
    """
    release, records = story["release"], story["records"]
    if release["state"] != "canary":
        return None
    minutes = (datetime.now(UTC) - datetime.fromisoformat(story["since"])).total_seconds() / 60
    span = "hour" if minutes >= FULL_HOUR else f"{max(minutes, 0):.0f} min"
    total, own = sum(records.values()), records.get(release["label"], 0)
    keys = f"{release['weight']:.1%} of the keys".replace(".0%", "%")
    if not total:
        return f"  {keys}; no records in the last {span}"
    share = own / total
    text = f"  {keys}, {share:.1%} of the records of the last {span} ({own:,} of {total:,})"
    if total >= ENOUGH and not release["weight"] / 2 <= share <= release["weight"] * 2:
        text += ": there are few keys, or some have most of the records"
    return text


@contextmanager
def shown() -> Iterator[Callable[[list[Text]], None]]:
    """Show a live view on a terminal; elsewhere print each transition once."""
    from rich.live import Live
    from rich.text import Text

    if err.is_terminal:
        with Live(console=err, auto_refresh=False) as live:
            yield lambda lines: live.update(Text("\n").join(lines), refresh=True)
        return
    printed: set[str] = set()

    def show(lines: list[Text]) -> None:
        for line in lines[1:]:
            if line.plain not in printed:
                printed.add(line.plain)
                err.print(lines[0], soft_wrap=True)
                err.print(line, soft_wrap=True)

    yield show
