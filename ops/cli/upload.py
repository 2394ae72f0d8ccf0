"""Upload of a model directory to the control API: verified here first, then sent as a stream."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from ops.catalogue.archive import Opened, sizes_of, tar_bytes, tar_of
from ops.catalogue.store import opened
from ops.cli.api_client import COPY_TIMEOUT_S, ApiClient
from ops.errors import StoreUnavailable
from serve.artifact import MANIFEST_FILE, Manifest, load
from serve.errors import ArtifactAltered, ArtifactMissing

TAR = "application/x-tar"


class UploadProgress(Protocol):
    """Receives the progress of an upload."""

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        """Begin a step; with ``total_bytes`` if calls of ``advance`` will follow."""

    def advance(self, size_bytes: int) -> None:
        """Add bytes to those that are done."""


class Quiet:
    """Ignores the progress."""

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        """See ``UploadProgress``."""

    def advance(self, size_bytes: int) -> None:
        """See ``UploadProgress``."""


class UploadSource(NamedTuple):
    """A sealed model directory, here or at a URL.

    Attributes:
        place: Origin that the catalogue will record.
        document: Bytes of its manifest.
    """

    place: str
    document: bytes
    opened: Opened


def register(
    client: ApiClient, name: str, directory: str, progress: UploadProgress | None = None
) -> dict[str, Any]:
    """Register a model directory with the platform as the next version of a model.

    Bytes that the platform has already are not sent again.

    Args:
        directory: A path, or a URL that fsspec reads.
    Returns:
        ``model``, ``version``, ``digest`` and ``existed``.
    Raises:
        ArtifactError: It is not a sealed model directory, or is being changed. Not retriable.
        StoreUnavailable, StoreUnsupported: The URL cannot be read.
        NotRunning, ApiRefused: See ``ApiClient.request``.
    """
    progress = progress or Quiet()
    progress.begin("comparing with the manifest")
    source = _at_url(directory) if "://" in directory else _here(Path(directory))
    digest = Manifest.model_validate_json(source.document).digest()
    sizes = sizes_of(source.document)
    size_bytes = tar_bytes(sizes)
    # Asked first, so that nothing is sent if it is not allowed or not needed.
    path = f"/models/{name}/uploads/{digest}"
    known = client.request("GET", path, query={"size_bytes": size_bytes}, timeout_s=COPY_TIMEOUT_S)[
        "version"
    ]
    if known is not None:
        return {"model": name, "version": known, "digest": digest, "existed": True}
    progress.begin("sending", size_bytes)
    done: dict[str, Any] = client.upload(
        f"/models/{name}/versions",
        _counted(tar_of(sizes, source.opened), progress),
        size_bytes=size_bytes,
        content_type=TAR,
        query={"source": source.place},
    )
    return done


def _here(path: Path) -> UploadSource:
    path = path.expanduser().resolve()
    load(path)
    document = (path / MANIFEST_FILE).read_bytes()

    @contextmanager
    def content(name: str) -> Iterator[IO[bytes]]:
        with _store_errors(str(path / name)), (path / name).open("rb") as file:
            yield file

    return UploadSource(f"{socket.gethostname()}:{path}", document, content)


def _at_url(url: str) -> UploadSource:
    """Open a directory at a URL and compare file sizes; the receiver compares the checksums."""
    url = url.rstrip("/")
    files, home = opened(url, {})
    with _store_errors(f"{url}/{MANIFEST_FILE}"):
        document = bytes(files.cat_file(f"{home}/{MANIFEST_FILE}"))
    for name, size in sizes_of(document).items():
        with _store_errors(f"{url}/{name}"):
            found = files.size(f"{home}/{name}")
        if found != size:
            raise ArtifactAltered(
                f"{url}/{name} has {found:,} bytes, the manifest says {size:,}; seal it again"
            )

    @contextmanager
    def content(name: str) -> Iterator[IO[bytes]]:
        with _store_errors(f"{url}/{name}"), files.open(f"{home}/{name}", "rb") as file:
            yield file

    return UploadSource(url, document, content)


@contextmanager
def _store_errors(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise ArtifactMissing(f"{place} is missing: not a sealed model; import it first") from exc
    except OSError as exc:
        raise StoreUnavailable(f"{place} cannot be read: {exc}") from exc


def _counted(parts: Iterator[bytes], progress: UploadProgress) -> Iterator[bytes]:
    for part in parts:
        yield part
        progress.advance(len(part))
    progress.begin("registering")
