"""``bertstream models``: register, show, compare, export and delete versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from ops.cli.api_client import ApiClient
from ops.cli.options import LimitOption
from ops.cli.session import Shown, moment, print_more, print_table, remote, say
from ops.errors import ArtifactStoreError, ConfigError
from serve.contract import AppName

DIGEST_HEADER = "bertstream-digest"
SHOWN_ANSWERS = 10
# Of an answer that is shown as it is.
SHOWN_NUMBERS = 8
SHOWN_CHARACTERS = 60

app = typer.Typer(help="Models and their numbered versions.", no_args_is_help=True)
VersionArgument = Annotated[str, typer.Argument(metavar="NAME@V", help="For example sentiment@3.")]


@app.command()
@remote
def register(
    client: ApiClient,
    name: str,
    directory: Annotated[
        str, typer.Argument(help="A sealed model directory: a path, or a URL such as s3://.")
    ],
) -> Shown:
    """Upload a model directory and register it as the next version of a model."""
    from ops.cli import upload
    from ops.cli.progress import LateBar

    with LateBar() as bar:
        done = upload.register(client, name, directory, bar)
    existed = " (the same bytes were registered before)" if done["existed"] else ""
    sentence = f"{name}@{done['version']}{existed}, digest {done['digest']}"
    return Shown(done, lambda _: say(sentence))


@app.command("list")
@remote
def list_(
    client: ApiClient,
    name: Annotated[str | None, typer.Argument(help="List the versions of this model.")] = None,
    limit: LimitOption = 50,
    before: Annotated[int | None, typer.Option(help="Show versions below this one.")] = None,
    after: Annotated[str, typer.Option(help="Show models after this one.")] = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Show deleted versions, too.")] = False,
) -> Shown:
    """List models, or the versions of one, newest first."""
    if name is None:
        return Shown(client.get("/models", limit=limit, after=after), _print_models)
    query = {"limit": limit, "before": before, "deleted": deleted or None}
    return Shown(client.get(f"/models/{name}/versions", **query), _print_versions)


@app.command()
@remote
def show(client: ApiClient, version: VersionArgument) -> Shown:
    """Show a version: its source, metrics and files."""
    return Shown(client.get(path_of(version)), _print_version)


@app.command()
@remote
def diff(client: ApiClient, before: VersionArgument, after: VersionArgument) -> Shown:
    """Compare two versions: metrics, labels, configuration, size, golden answers."""
    path_of(before), path_of(after)
    found = client.get("/diff", before=before, after=after)
    return Shown(found, lambda found: _print_diff(found, before, after))


@app.command()
@remote
def export(
    client: ApiClient,
    version: VersionArgument,
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
) -> Shown:
    """Download the directory of a version and verify it."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not empty; name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=".partial-", dir=directory.parent))
    try:
        digest = _download(client, version, partial)
        partial.chmod(0o755)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    done = {"version": version, "directory": str(directory), "digest": digest}
    return Shown(done, lambda _: say(f"{directory}: {version}, digest {digest}"))


@app.command()
@remote
def delete(
    client: ApiClient,
    version: VersionArgument,
    reason: Annotated[str, typer.Option(help="Reason for the ledger.")] = "",
) -> Shown:
    """Delete the files of a version; refused while it is served or a rollback could need it."""
    client.request("DELETE", path_of(version), query={"reason": reason or None})
    return Shown({"version": version}, lambda _: say(f"{version}: deleted; its entry stays"))


def path_of(version: str) -> str:
    """Return the API path of a version.

    Raises:
        ConfigError: ``version`` does not have the form NAME@V. Not retriable.
    """
    name, number = parts_of(version)
    return f"/models/{name}/versions/{number}"


def parts_of(version: str) -> tuple[str, int]:
    """Return the model and the number of ``NAME@V``.

    Raises:
        ConfigError: ``version`` does not have that form. Not retriable.
    """
    name, number, _ = AppName.parse(version)
    if not (name and number.isdecimal()):
        raise ConfigError(f"{version!r} is not a version; write it as sentiment@3")
    return name, int(number)


def _download(client: ApiClient, version: str, directory: Path) -> str:
    from ops.catalogue.archive import unpack
    from serve.artifact import load

    with client.download(f"{path_of(version)}/archive") as response:
        unpack(response, directory)
        expected = str(response.getheader(DIGEST_HEADER))
    found = load(directory).digest
    if found != expected:
        raise ArtifactStoreError(
            f"the download has digest {found[:12]}..., not {expected[:12]}...; try again"
        )
    return found


def _print_models(page: dict[str, Any]) -> None:
    rows = [
        (m["versions"], m["newest"], moment(m["created_at"]), m["created_by"], m["name"])
        for m in page["items"]
    ]
    columns = ("-versions", "-newest", "since", "by", "model")
    print_table(columns, rows, empty="no models; `bertstream models register NAME DIR` adds one")
    print_more(page, "--after")


def _print_versions(page: dict[str, Any]) -> None:
    rows = [
        (
            v["number"],
            _size(v["size_bytes"]),
            v["digest"][:12],
            moment(v["created_at"]),
            v["author"],
            f"deleted {moment(v['deleted_at'])}" if v["deleted_at"] else v["source"],
        )
        for v in page["items"]
    ]
    columns = ("-version", "-size", "digest", "registered", "by", "from")
    print_table(columns, rows, empty="no versions")
    print_more(page, "--before")


def _print_version(found: dict[str, Any]) -> None:
    card = found["card"]
    say(f"{found['model']}@{found['number']}  {card['task']}  {_size(found['size_bytes'])}")
    deleted = f", deleted {moment(found['deleted_at'])}" if found["deleted_at"] else ""
    lines = {
        "registered": f"{moment(found['created_at'])} by {found['author']}{deleted}",
        "from": found["source"],
        "digest": found["digest"],
        "labels": ", ".join(card["head"]["labels"]),
        "base": card["base"],
        "stored at": found["uri"],
    }
    for word, value in lines.items():
        if value:
            say(f"{word:<11} {value}")
    say()
    metrics = [(m["name"], f"{m['value']:.4f}", m["direction"]) for m in card["metrics"]]
    print_table(("metric", "-value", "better"), metrics, empty="no metrics")
    say()
    files = [(_size(entry["bytes"]), path) for path, entry in found["files"].items()]
    print_table(("-size", "file"), files, empty="no files")


def _print_diff(found: dict[str, Any], before: str, after: str) -> None:
    columns = ("metric", before, after, "better by")
    print_table(columns, [_metric(m) for m in found["metrics"]], empty="no metrics")
    first, second = found["size_bytes"]
    lines = [f"size: {_size(first)} -> {_size(second)}"]
    labels = found["labels"]
    if labels is not None:
        changes = [f"+{label}" for label in labels["added"]]
        changes += [f"-{label}" for label in labels["removed"]]
        lines.append(f"labels: {', '.join(changes) or 'in another order'}")
    lines += [f"{key['key']}: {key['before']} -> {key['after']}" for key in found["config"]]
    golden = found["golden"]
    differing = golden["differing"]
    lines.append(
        f"golden: {len(differing)} of {golden['compared']} texts that both versions have get "
        "different answers"
    )
    for line in lines:
        say(line)
    for answer in differing[:SHOWN_ANSWERS]:
        pair = f"{_answer(answer['before'])} -> {_answer(answer['after'])}"
        say(f"  {pair}  {answer['text']}")
    if len(differing) > SHOWN_ANSWERS:
        say(f"  and {len(differing) - SHOWN_ANSWERS} more; --json shows them all")


def _metric(change: dict[str, Any]) -> Sequence[str]:
    gain = "" if change["gain"] is None else f"{change['gain']:+.4f}"
    if change["gain"]:
        gain += "" if change["is_clear"] else " (may be chance)"
    return change["name"], _figure(change["before"]), _figure(change["after"]), gain


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    interval = figure["interval"]
    ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{figure['value']:.4f}{ends}"


def _answer(result: Any) -> str:
    """Return the best label with its score, the length of an embedding, or the start of others."""
    match result:
        case [{"label": str(label), "score": int() | float() as score, **more}, *_] if not more:
            return f"{label} {score:.2f}"
        case [int() | float(), *_] if len(result) > SHOWN_NUMBERS:
            return f"{len(result)} numbers"
    text = json.dumps(result, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _size(size_bytes: int) -> str:
    size, units = float(size_bytes), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
