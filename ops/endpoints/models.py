"""Addresses of models and versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from ops.archive import tar_of
from ops.catalogue import VersionId
from ops.endpoints.caller import Caller, Served
from ops.endpoints.shapes import (
    AfterName,
    BeforeId,
    Limit,
    ModelName,
    Number,
    Page,
    Shape,
    Text,
    page_of,
)

DIGEST_HEADER = "bertstream-digest"

router = APIRouter(tags=["models"])


class ModelShape(Shape):
    """A model and its newest version that is kept."""

    name: str
    created_at: datetime
    created_by: str
    versions: int
    newest: int | None


class VersionShape(Shape):
    """A version in a list."""

    model: str
    number: int
    digest: str
    size_bytes: int
    author: str
    created_at: datetime
    deleted_at: datetime | None
    source: str


class VersionDetail(VersionShape):
    """A version as a whole: its card, its files."""

    uri: str
    card: dict[str, Any]
    files: dict[str, Any]


class RegisterBody(Shape):
    """What is to be registered.

    Attributes:
        directory: A sealed model directory on the machine of the API; absolute. Weights are not
            sent through the API: it runs where the models are made, or shares a folder with it,
            and a copy by hand is better seen and resumed than an upload.
    """

    directory: Text = Field(min_length=1, max_length=4096)


class RegisteredShape(Shape):
    """What became of it; ``existed``: the same bytes were registered before."""

    model: str
    version: int
    digest: str
    existed: bool


class FigureShape(Shape):
    """A metric, and where it lies in 95 of 100 such test sets, where that is known."""

    value: float
    interval: tuple[float, float] | None


class MetricChangeShape(Shape):
    """One metric before and after.

    Attributes:
        gain: How much better it became; negative: worse.
        is_clear: Whether chance does not explain it.
    """

    name: str
    direction: str
    before: FigureShape | None
    after: FigureShape | None
    gain: float | None
    is_clear: bool


class LabelChangeShape(Shape):
    """The labels, and which of them are on one side only."""

    before: list[str]
    after: list[str]
    added: list[str]
    removed: list[str]


class KeyChangeShape(Shape):
    """A key of the configuration or the card."""

    key: str
    before: Any
    after: Any


class AnswerChangeShape(Shape):
    """A golden text that the two answer differently."""

    text: str
    before: list[Any]
    after: list[Any]


class GoldenChangeShape(Shape):
    """Golden texts: how many both have, and which of these are answered differently."""

    compared: int
    only_before: int
    only_after: int
    differing: list[AnswerChangeShape]


class DiffShape(Shape):
    """From one version to another; ``labels`` is null where they are the same."""

    metrics: list[MetricChangeShape]
    labels: LabelChangeShape | None
    config: list[KeyChangeShape]
    size_bytes: tuple[int, int]
    golden: GoldenChangeShape


@router.get("/models", summary="Models that may be read")
def models(
    actor: Caller, service: Served, limit: Limit = 50, after: AfterName = ""
) -> Page[ModelShape]:
    """By name."""
    found = service.models.all(actor, limit=limit, after=after)
    return Page[ModelShape].model_validate(page_of(found, limit, "name"))


@router.get("/models/{name}/versions", summary="Versions of a model")
def versions(
    actor: Caller,
    service: Served,
    name: ModelName,
    limit: Limit = 50,
    before: BeforeId = None,
    deleted: Annotated[bool, Query(description="With those whose files are gone.")] = False,
) -> Page[VersionShape]:
    """The newest first."""
    found = service.models.versions(actor, name, limit=limit, before=before, deleted=deleted)
    return Page[VersionShape].model_validate(page_of(found, limit, "number"))


@router.post("/models/{name}/versions", status_code=201, summary="Register a model directory")
def register(
    actor: Caller, service: Served, name: ModelName, body: RegisterBody, response: Response
) -> RegisteredShape:
    """Answers 200 where the same bytes were registered before."""
    done = service.models.register(actor, name, Path(body.directory))
    response.status_code = 200 if done.existed else 201
    return RegisteredShape(
        model=name, version=done.version, digest=done.digest, existed=done.existed
    )


@router.get("/models/{name}/versions/{number}", summary="One version")
def show(actor: Caller, service: Served, name: ModelName, number: Number) -> VersionDetail:
    """With its card and its files."""
    found = service.models.show(actor, VersionId(name, number))
    card = found.card.model_dump(mode="json")
    files = {path: entry.model_dump() for path, entry in found.files.items()}
    shape = VersionShape.model_validate(found).model_dump()
    return VersionDetail(**shape, uri=found.uri, card=card, files=files)


@router.delete("/models/{name}/versions/{number}", status_code=204, summary="Delete its files")
def delete(
    actor: Caller,
    service: Served,
    name: ModelName,
    number: Number,
    reason: Annotated[str, Query(max_length=1000, description="For the ledger.")] = "",
) -> None:
    """Refused for what serves and what a rollback could need."""
    service.models.delete(actor, VersionId(name, number), reason=reason)


@router.get("/models/{name}/versions/{number}/archive", summary="Its directory as a tar archive")
def archive(actor: Caller, service: Served, name: ModelName, number: Number) -> StreamingResponse:
    """Verified; the digest is in the header ``bertstream-digest``."""
    version = VersionId(name, number)
    digest = service.models.show(actor, version).digest
    folder = TemporaryDirectory(prefix="bertstream-export-")
    try:
        directory = Path(folder.name) / f"{name}-{number}"
        service.models.export(actor, version, directory)
    except BaseException:
        folder.cleanup()
        raise
    named = {
        DIGEST_HEADER: digest,
        "content-disposition": f'attachment; filename="{name}-{number}.tar"',
    }
    parts = _sent(folder, directory)
    return StreamingResponse(parts, media_type="application/x-tar", headers=named)


@router.get("/diff", summary="What differs between two versions")
def diff(
    actor: Caller,
    service: Served,
    before: Annotated[str, Query(max_length=80, description="Such as sentiment@3.")],
    after: Annotated[str, Query(max_length=80, description="Likewise.")],
) -> DiffShape:
    """Metrics, labels, configuration, size, golden answers."""
    found = service.models.diff(actor, VersionId.parse(before), VersionId.parse(after))
    return DiffShape.model_validate(found)


def _sent(folder: TemporaryDirectory[str], directory: Path) -> Iterator[bytes]:
    with folder:
        yield from tar_of(directory)
