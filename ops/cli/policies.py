"""``bertstream policy``: how versions of a model are released."""

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

app = typer.Typer(help="How versions of a model are released.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="YAML; - reads stdin.")]


@app.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Name every mistake in a policy with its place, and say how surely its steps find a worse
    version; needs no platform. Exit code 2 with a mistake."""
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
            say(f"{file}: {'usable' if found else 'fine'}")
            say(f"{finds}")
            for window in starts:
                if not window["next"]:
                    say(f"{window['kind']} {window['window']} never opens")
                    continue
                say(f"{window['kind']} {window['window']} opens next:")
                for moment in window["next"]:
                    say(f"  {datetime.fromisoformat(moment):%a %Y-%m-%d %H:%M}")


def _next_starts(policy: Policy, now: datetime) -> list[dict[str, Any]]:
    """When each window opens next, as people read it wrongly: a day of the month and a day of the
    week are either-or."""
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
    """Put a policy into force for the model that it names."""

    def in_words(done: dict[str, Any]) -> None:
        print_problems(done["warnings"], str(file))
        state = "in force" if done["changed"] else "in force already, nothing changed"
        say(f"{done['model']}: {state}, digest {done['digest']}")

    return Shown(client.request("PUT", "/policies", body={"text": _text(file)}), in_words)


@app.command()
@remote
def show(client: ApiClient, name: str) -> Shown:
    """Print the policy in force as it was written; --json has every default, too."""
    found = client.get(f"/models/{name}/policy")
    return Shown(found, lambda kept: _print_text(kept["text"]))


@app.command()
@remote
def explain(client: ApiClient, version: VersionArgument) -> Shown:
    """Say whether a version may go out now, and what is missing; exit code 1 when it may not."""
    found = client.get(f"{path_of(version)}/explanation")
    code = 0 if found["may_go"] else EXIT_FAILED
    return Shown(found, lambda it: say("\n".join(it["sentences"])), code)


def _print_text(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
