"""``bertstream policy``: policies, which set how versions of a model are released."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.api_client import ApiClient
from ops.cli.models import VersionArgument, path_of
from ops.cli.options import JsonOption
from ops.cli.session import Shown, print_json, print_problems, remote, say
from ops.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors_in_words
from ops.errors import ConfigError

if TYPE_CHECKING:  # not loaded by commands that only ask
    from datetime import datetime

    from ops.policy.policy import Policy

app = typer.Typer(help="Policies: how a model is released.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="YAML file; - for stdin.")]


@app.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """List every mistake in a policy with its line and column, and show how likely its steps find
    a worse version; needs no platform. Exit code 2 if the policy cannot be used."""
    from datetime import UTC, datetime

    from ops.analysis import power
    from ops.policy.file import examine

    with errors_in_words():
        now = datetime.now(UTC)
        policy, found = examine(_text(file), now=now)
        problems = [asdict(problem) for problem in found]
        finds = power.in_words(policy) if policy else None
        starts = _next_starts(policy, now) if policy else []
        if as_json:
            print_json({"problems": problems, "finds": finds, "windows": starts})
        else:
            print_problems(problems, str(file))
        if policy is None:
            raise typer.Exit(EXIT_USAGE)
        if not as_json:
            say(f"{file}: {'usable' if found else 'valid'}")
            say(f"{finds}")
            for window in starts:
                if not window["next"]:
                    say(f"{window['kind']} {window['window']} never opens")
                    continue
                say(f"{window['kind']} {window['window']} opens next:")
                for moment in window["next"]:
                    say(f"  {datetime.fromisoformat(moment):%a %Y-%m-%d %H:%M}")


def _next_starts(policy: Policy, now: datetime) -> list[dict[str, Any]]:
    """Return when each window opens next. People misread windows: of a day of the month and a day
    of the week, either one opens it."""
    from ops.policy.windows import next_starts

    kinds = (("allow", policy.windows.allow), ("deny", policy.windows.deny))
    return [
        {
            "kind": kind,
            "window": str(window),
            "next": [moment.isoformat() for moment in next_starts(window, now)],
        }
        for kind, windows in kinds
        for window in windows
    ]


@app.command("set")
@remote
def set_(client: ApiClient, file: FileArgument) -> Shown:
    """Set the policy of the model that it names; it takes effect at once."""

    def in_words(done: dict[str, Any]) -> None:
        print_problems(done["warnings"], str(file))
        state = "in effect" if done["changed"] else "already in effect, nothing changed"
        say(f"{done['model']}: {state}, digest {done['digest']}")

    return Shown(client.request("PUT", "/policies", body={"text": _text(file)}), in_words)


@app.command()
@remote
def show(client: ApiClient, name: str) -> Shown:
    """Print the policy in effect as it was written; --json includes every default."""
    found = client.get(f"/models/{name}/policy")
    return Shown(found, lambda kept: _print_text(kept["text"]))


@app.command()
@remote
def explain(client: ApiClient, version: VersionArgument) -> Shown:
    """Show whether a version may be released now and what is missing; exit code 1 if it may not."""
    found = client.get(f"{path_of(version)}/explanation")
    code = 0 if found["may_go"] else EXIT_FAILED
    return Shown(found, _print_sentences, code)


def _print_sentences(found: dict[str, Any]) -> None:
    for sentence in found["sentences"]:
        say(sentence)


def _print_text(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
