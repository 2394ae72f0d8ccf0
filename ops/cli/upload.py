"""A model directory on its way to the control API: looked at here first, then sent as a stream."""

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
    """Is told how far it is."""

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        """Something begins; with a total where parts of it will be told."""

    def advance(self, size_bytes: int) -> None:
        """So much more of it is done."""


class Quiet:
    """Tells nobody."""

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        """See ``UploadProgress``."""

    def advance(self, size_bytes: int) -> None:
        """See ``UploadProgress``."""


class UploadSource(NamedTuple):
    """A sealed model directory, here or at a URL.

    Attributes:
        place: As the catalogue will tell where it is from.
        document: Its manifest.
    """

    place: str
    document: bytes
    opened: Opened


def register(
    client: ApiClient, name: str, directory: str, progress: UploadProgress | None = None
) -> dict[str, Any]:
    """Have the platform keep a model directory as the next version of a model.

    Bytes that it has already are not sent again.

    Args:
        directory: A path, or a URL that fsspec reads.
    Returns:
        ``model``, ``version``, ``digest`` and ``existed``.
    Raises:
        ArtifactError: It is not a sealed model directory, or is being changed. Not retriable.
        StoreUnavailable, StoreUnsupported: The URL cannot be read.
        NotRunning, ApiRefused: As of ``ApiClient.request``.
    """
    progress = progress or Quiet()
    progress.begin("comparing it with its manifest")
    source = _at_url(directory) if "://" in directory else _here(Path(directory))
    digest = Manifest.model_validate_json(source.document).digest()
    sizes = sizes_of(source.document)
    size_bytes = tar_bytes(sizes)
    # Asked first, so that who may not, or need not, sends nothing.
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
        with _told(str(path / name)), (path / name).open("rb") as file:
            yield file

    return UploadSource(f"{socket.gethostname()}:{path}", document, content)


def _at_url(url: str) -> UploadSource:
    """Sizes are compared before anything is sent; the sums of what was sent, by who receives it."""
    url = url.rstrip("/")
    files, home = opened(url, {})
    with _told(f"{url}/{MANIFEST_FILE}"):
        document = bytes(files.cat_file(f"{home}/{MANIFEST_FILE}"))
    for name, size in sizes_of(document).items():
        with _told(f"{url}/{name}"):
            found = files.size(f"{home}/{name}")
        if found != size:
            raise ArtifactAltered(
                f"{url}/{name} has {found:,} bytes and the manifest says {size:,}; seal it again"
            )

    @contextmanager
    def content(name: str) -> Iterator[IO[bytes]]:
        with _told(f"{url}/{name}"), files.open(f"{home}/{name}", "rb") as file:
            yield file

    return UploadSource(url, document, content)


@contextmanager
def _told(place: str) -> Iterator[None]:
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
    progress.begin("being kept")
