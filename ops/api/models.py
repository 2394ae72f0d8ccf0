"""Endpoints for models and versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import (
    AfterName,
    BeforeId,
    Limit,
    ModelName,
    Number,
    Page,
    Shape,
    page_of,
)
from ops.api.uploads import TAR, Body, uploads_of
from ops.catalogue.archive import sizes_of, tar_of
from ops.catalogue.diff import Diff
from ops.catalogue.versions import ModelSummary, Registered, Version, VersionId
from serve.artifact import MANIFEST_FILE

DIGEST_HEADER = "bertstream-digest"
ARCHIVE = {"type": "string", "format": "binary"}
# Larger than any disk, and within the integers of a database.
MAX_SIZE = 1 << 60

router = APIRouter(tags=["models"])


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


class KnownShape(Shape):
    """Version that has the given bytes; null if they must be sent."""

    version: int | None


@router.get("/models", summary="Models that the caller may read")
def models(
    actor: Authenticated, service: Served, limit: Limit = 50, after: AfterName = ""
) -> Page[ModelSummary]:
    """Sorted by name."""
    found = service.models.all(actor, limit=limit, after=after)
    return page_of(found, limit, "name")


@router.get("/models/{name}/versions", summary="Versions of a model")
def versions(
    actor: Authenticated,
    service: Served,
    name: ModelName,
    limit: Limit = 50,
    before: BeforeId = None,
    deleted: Annotated[bool, Query(description="Include deleted versions.")] = False,
) -> Page[VersionShape]:
    """Newest first."""
    found = service.models.versions(actor, name, limit=limit, before=before, deleted=deleted)
    shown = [VersionShape.model_validate(version) for version in found]
    return page_of(shown, limit, "number")


@router.get("/models/{name}/uploads/{digest}", summary="Whether a directory must be sent")
def known(
    request: Request,
    actor: Authenticated,
    service: Served,
    name: ModelName,
    digest: Annotated[
        str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="Manifest's digest.")
    ],
    size_bytes: Annotated[int, Query(ge=0, le=MAX_SIZE, description="Archive size.")],
) -> KnownShape:
    """Call this before an upload: checks permission and capacity, and whether it is needed."""
    uploads_of(request).require_allowed(size_bytes)
    return KnownShape(version=service.models.known(actor, name, digest, size_bytes=size_bytes))


@router.post(
    "/models/{name}/versions",
    status_code=201,
    summary="Register a model directory",
    openapi_extra={"requestBody": {"required": True, "content": {TAR: {"schema": ARCHIVE}}}},
)
async def register(
    request: Request,
    response: Response,
    actor: Authenticated,
    service: Served,
    name: ModelName,
    source: Annotated[
        str, Query(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$", description="Its origin.")
    ] = "",
) -> Registered:
    """The body is a tar archive of plain files: `MANIFEST.json`, then the files that it lists.

    Requires the header Content-Length. Returns 200 if the same bytes were registered before.
    """

    def keep(body: Body, size_bytes: int) -> Registered:
        origin = source or f"an upload of {actor.name}"
        return service.models.register(actor, name, body, size_bytes=size_bytes, source=origin)

    done = await uploads_of(request).run(request, keep)
    response.status_code = 200 if done.existed else 201
    return done


@router.get("/models/{name}/versions/{number}", summary="One version")
def show(actor: Authenticated, service: Served, name: ModelName, number: Number) -> Version:
    """Includes its card and its files."""
    return service.models.show(actor, VersionId(name, number))


@router.delete("/models/{name}/versions/{number}", status_code=204, summary="Delete its files")
def delete(
    actor: Authenticated,
    service: Served,
    name: ModelName,
    number: Number,
    reason: Annotated[str, Query(max_length=1000, description="Reason for the ledger.")] = "",
) -> None:
    """Refused for versions that are served or that a rollback could need."""
    service.models.delete(actor, VersionId(name, number), reason=reason)


@router.get("/models/{name}/versions/{number}/archive", summary="Its directory as a tar archive")
def archive(
    actor: Authenticated, service: Served, name: ModelName, number: Number
) -> StreamingResponse:
    """Verified before it is sent; the digest is in the header ``bertstream-digest``."""
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


@router.get("/diff", summary="Differences of two versions")
def diff(
    actor: Authenticated,
    service: Served,
    before: Annotated[str, Query(max_length=80, description="E.g. sentiment@3.")],
    after: Annotated[str, Query(max_length=80, description="E.g. sentiment@4.")],
) -> Diff:
    """Compares metrics, labels, configuration, size and golden answers."""
    return service.models.diff(actor, VersionId.parse(before), VersionId.parse(after))


def _sent(folder: TemporaryDirectory[str], directory: Path) -> Iterator[bytes]:
    with folder:
        sizes = sizes_of((directory / MANIFEST_FILE).read_bytes())
        yield from tar_of(sizes, lambda name: (directory / name).open("rb"))
