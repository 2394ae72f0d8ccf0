"""Registering from elsewhere: a real client, a real server, and what becomes of all that breaks."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import fsspec
import httpx
import orjson
import pytest
from anyio import to_thread
from fastapi import FastAPI

from ops.access import ledger
from ops.api.app import create_app
from ops.api.uploads import AT_ONCE, Body, Uploads
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.cli.api_client import ApiClient
from ops.cli.upload import register
from ops.errors import ApiRefused, ConfigError, StoreUnavailable, UploadBroken
from ops.service.service import Service
from ops.sql.database import Database
from serve.artifact import MANIFEST_FILE, load
from serve.errors import ArtifactAltered, ArtifactMissing
from tests.certificates import write_certificates
from tests.ops.directories import TAR, archive_of, make_directory, small_disk
from tests.ops.installation import Clock, Installation, client, install, served

pytestmark = pytest.mark.slow

VERSIONS = "/models/sentiment/versions"
MAX_BYTES = 30_000_000
STALL_S = 0.5
DEADLINE_S = 20.0


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Iterator[Installation]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}")) as database:
        yield install(database, tmp_path)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, FastAPI]]:
    """A server for all tests; each has an installation of its own behind it."""
    app = create_app(
        Service(Database("sqlite:///nowhere"), ArtifactStore("nowhere")),
        uploads=Uploads(max_bytes=MAX_BYTES, stall_s=STALL_S),
    )
    with served(app) as url:
        yield url, app


@pytest.fixture
def url(there: Installation, address: tuple[str, FastAPI]) -> str:
    url, app = address
    app.state.service = there.service
    return url


@pytest.fixture
def ana(there: Installation, url: str) -> ApiClient:
    return ApiClient(url, there.secrets["ana"])


def newest(there: Installation) -> tuple[int, str]:
    """Number and source of the newest version; the catalogue's row agrees with the ledger."""
    actor = there.service.access.authenticate(there.secrets["root"])
    (found,) = there.service.models.versions(actor, "sentiment", limit=1, deleted=False)
    with there.database.read() as connection:
        assert ledger.verify(connection) is None
    return found.number, found.source


def kept(there: Installation) -> set[str]:
    """What lies in the store."""
    store = there.folder / "store"
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_directory_is_sent_once(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made", weights=b"w" * 3_000_000)
    (made / ".cache").mkdir()
    (made / ".cache" / "graph.xml").write_text("<net/>")
    digest = load(made).digest
    done = register(ana, "sentiment", str(made))
    assert done == {"model": "sentiment", "version": 1, "digest": digest, "existed": False}
    assert newest(there) == (1, f"{socket.gethostname()}:{made}")
    assert load(there.folder / "store" / "sentiment" / digest).digest == digest
    assert {name.split("/")[1] for name in kept(there)} == {digest}
    assert not any(".cache" in name for name in kept(there))


class Told:
    """Notes how far it is."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.bytes = 0

    def begin(self, what: str, total_bytes: int | None = None) -> None:
        self.phases.append((what, total_bytes))

    def advance(self, size_bytes: int) -> None:
        self.bytes += size_bytes


def test_bytes_that_are_there_are_not_sent_again(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made")
    told = Told()
    first = register(ana, "sentiment", str(made), told)
    sent = len(archive_of(made))
    assert [total for _, total in told.phases] == [None, sent, None]
    assert told.bytes == sent

    told = Told()
    again = register(ana, "sentiment", str(made), told)
    assert again == first | {"existed": True}
    assert told.bytes == 0
    weights = there.folder / "store" / "sentiment" / first["digest"] / "model.safetensors"
    weights.write_bytes(b"spoilt")
    assert register(ana, "sentiment", str(made), told) == again
    assert (told.bytes, weights.read_bytes()) == (sent, (made / "model.safetensors").read_bytes())


def test_directory_at_a_url(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made")
    url = f"memory://models-{uuid.uuid4().hex}/made"
    files, home = fsspec.core.url_to_fs(url)
    for path in made.iterdir():
        files.pipe_file(f"{home}/{path.name}", path.read_bytes())
    assert register(ana, "sentiment", f"{url}/")["digest"] == load(made).digest
    assert newest(there) == (1, url)

    config = (made / "config.json").read_bytes()
    files.pipe_file(f"{home}/config.json", config[::-1])
    files.pipe_file(f"{home}/{MANIFEST_FILE}", b" " + (made / MANIFEST_FILE).read_bytes())
    assert register(ana, "sentiment", url)["existed"]  # what it was; nothing is sent
    with pytest.raises(ApiRefused, match=r"config\.json has sha256"):
        register(ApiClient(ana.url, there.secrets["root"]), "other", url)
    files.pipe_file(f"{home}/config.json", b"longer than it was, by far")
    with pytest.raises(ArtifactAltered, match=r"made/config\.json has 26 bytes, the manifest says"):
        register(ana, "sentiment", url)
    files.rm_file(f"{home}/config.json")
    with pytest.raises(ArtifactMissing, match=r"made/config\.json is missing"):
        register(ana, "sentiment", url)
    assert newest(there) == (1, url)


def test_url_with_a_password_is_refused(ana: ApiClient) -> None:
    with pytest.raises(ConfigError, match="contains a password") as caught:
        register(ana, "sentiment", "sftp://eve:s3cret@host/models")
    assert "s3cret" not in str(caught.value)


def test_url_that_cannot_be_read_is_told(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made")
    (made / MANIFEST_FILE).unlink()
    (made / MANIFEST_FILE).mkdir()
    with pytest.raises(StoreUnavailable, match=r"MANIFEST\.json cannot be read"):
        register(ana, "sentiment", made.as_uri())


def test_altered_directory_is_not_sent(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made")
    (made / "config.json").write_text("{}")
    told = Told()
    with pytest.raises(ArtifactAltered, match=r"config\.json has sha256"):
        register(ana, "sentiment", str(made), told)
    assert told.bytes == 0


def test_who_may_not_sends_nothing(there: Installation, url: str) -> None:
    made = make_directory(there.folder / "made")
    told = Told()
    with pytest.raises(ApiRefused, match="eve lacks the permission register") as caught:
        register(ApiClient(url, there.secrets["eve"]), "sentiment", str(made), told)
    assert (caught.value.status, told.bytes) == (403, 0)


@pytest.mark.parametrize("size_bytes", [MAX_BYTES + 1, 1 << 60])
def test_too_much_is_told_before_it_is_sent(
    there: Installation, url: str, ana: ApiClient, size_bytes: int
) -> None:
    with pytest.raises(ApiRefused, match="at most 30,000,000 bytes") as caught:
        ana.get(f"/models/sentiment/uploads/{'0' * 64}", size_bytes=size_bytes)
    assert caught.value.status == 413
    head = f"content-length: {size_bytes}\r\ncontent-type: application/x-tar"
    status, body = answered(url, there, head, b"")
    assert (status, "at most 30,000,000 bytes" in body["message"]) == (413, True)


def test_no_room_is_told_before_it_is_sent(there: Installation) -> None:
    app = create_app(there.service, uploads=Uploads(max_bytes=1 << 60))
    with served(app) as url:
        ana = ApiClient(url, there.secrets["ana"])
        with pytest.raises(ApiRefused, match="there is no space for") as caught:
            ana.get(f"/models/sentiment/uploads/{'0' * 64}", size_bytes=1 << 59)
        assert caught.value.status == 503
        head = f"content-length: {1 << 59}\r\ncontent-type: application/x-tar"
        status, body = answered(url, there, head, b"")
    assert (status, body["error"]) == (503, "StoreUnavailable")
    assert kept(there) == set()


def sent(url: str, there: Installation, head: str, who: str = "ana") -> socket.socket:
    """A connection on which the head of an upload was sent."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), DEADLINE_S)
    lines = (
        f"POST /api/v1{VERSIONS} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {there.secrets[who]}",
        head,
    )
    connection.sendall("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
    return connection


def answered(
    url: str, there: Installation, head: str, content: bytes, who: str = "ana"
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer; the server closes the connection behind it."""
    with sent(url, there, head, who) as connection:
        connection.sendall(content)
        answer = b""
        with suppress(ConnectionResetError):  # of what was sent and not wanted
            while part := connection.recv(65_536):
                answer += part
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in top.lower()  # at once, and not when it has been quiet for long
    return int(top.split()[1]), orjson.loads(body)


def test_permission_is_asked_for_before_the_body(there: Installation, url: str) -> None:
    head = "content-length: 5000\r\ncontent-type: application/x-tar"
    assert answered(url, there, head, b"", who="eve")[0] == 403


@pytest.mark.parametrize(
    ("head", "status", "why"),
    [
        ("content-type: application/x-tar\r\ntransfer-encoding: chunked", 411, "Content-Length"),
        ("content-type: application/json\r\ntransfer-encoding: chunked", 415, "application/x-tar"),
        ("content-type: application/json\r\ncontent-length: 2", 415, "application/x-tar"),
        ("content-length: 2", 415, "application/x-tar"),
    ],
)
def test_what_must_be_told_of_a_body(
    there: Installation, url: str, head: str, status: int, why: str
) -> None:
    found, body = answered(url, there, head, b"")
    assert (found, why in body["message"]) == (status, True)


@pytest.mark.parametrize("more", [-1024, 512])
def test_length_that_is_not_that_of_the_archive(there: Installation, url: str, more: int) -> None:
    content = archive_of(make_directory(there.folder / "made"))
    content = content[:more] if more < 0 else content + b"x" * more
    with client(url, there.secrets["ana"]) as ana:
        response = ana.post(VERSIONS, content=content, headers=TAR)
    assert (response.status_code, response.json()["error"]) == (422, "ArtifactStoreError")
    assert kept(there) == set()


def test_upload_that_stalls_is_given_up(there: Installation, url: str) -> None:
    content = archive_of(make_directory(there.folder / "made"))
    head = f"content-length: {len(content)}\r\ncontent-type: application/x-tar"
    status, body = answered(url, there, head, content[:-2000])
    assert (status, body["error"]) == (408, "UploadBroken")
    assert body["message"].startswith(f"no data for 0.5 s after {len(content) - 2000:,} bytes")
    assert list((there.folder / "store").iterdir()) == []


def test_upload_that_breaks_off_leaves_nothing(there: Installation, url: str) -> None:
    content = archive_of(make_directory(there.folder / "made", weights=bytes(2_000_000)))
    store = there.folder / "store"
    with sent(url, there, f"content-length: {len(content)}\r\n{head_of(TAR)}") as connection:
        connection.sendall(content[:-5_000])
        wait_until(lambda: any("model.safetensors" in name for name in kept(there)))
    wait_until(lambda: list(store.iterdir()) == [])


def test_body_that_breaks_off_is_not_whole() -> None:
    """Whatever has come: an archive may seem to be at its end."""

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def read() -> bytes:
        body = Body(receive, stall_s=DEADLINE_S)
        return await to_thread.run_sync(lambda: body.read(3) + body.read(9) + body.read(9))

    whole = [{"type": "http.request", "body": b"abcd", "more_body": True}, {"type": "http.request"}]
    messages = list(whole)
    assert anyio.run(read) == b"abcd"
    messages = [whole[0], {"type": "http.disconnect"}]
    with pytest.raises(UploadBroken, match="broke off after 4 bytes"):
        anyio.run(read)


def head_of(headers: dict[str, str]) -> str:
    return "\r\n".join(f"{name}: {value}" for name, value in headers.items())


def test_disk_that_becomes_full(there: Installation, ana: ApiClient) -> None:
    made = make_directory(there.folder / "made", weights=bytes(25_000_000))
    with (
        small_disk(4_000_000),
        pytest.raises(ApiRefused, match=r"model\.safetensors cannot be written: File too large"),
    ):
        register(ana, "sentiment", str(made))
    assert list((there.folder / "store").iterdir()) == []
    assert register(ana, "sentiment", str(made))["version"] == 1


def test_uploads_at_once_wait_for_their_turn(there: Installation, url: str) -> None:
    """Those that stall keep nobody from asking something else, nor others from their turn."""
    content = archive_of(make_directory(there.folder / "made"))

    def staged() -> int:
        return len(list((there.folder / "store").glob(".partial-*")))

    with ExitStack() as stack:
        for _ in range(2 * AT_ONCE):
            head = f"content-length: {len(content)}\r\n{head_of(TAR)}"
            stack.enter_context(sent(url, there, head))
        wait_until(lambda: staged() >= AT_ONCE)
        found = set()
        wait_until(lambda: found.add(staged()) or 0 in found)
        assert max(found) == AT_ONCE
        for _ in range(2 * AT_ONCE):
            stack.enter_context(sent(url, there, head))
        with client(url, there.secrets["ana"]) as ana:
            assert ana.get("/models").status_code == 200
            # Its turn may come too late on a busy machine; then it is told to try again.
            wait_until(lambda: ana.post(VERSIONS, content=content, headers=TAR).status_code == 201)


def test_same_directory_at_once_is_one_version(there: Installation, url: str) -> None:
    made = make_directory(there.folder / "made", weights=bytes(2_000_000))
    content = archive_of(made)
    found: list[httpx.Response] = []

    def send() -> None:
        with client(url, there.secrets["ana"]) as ana:
            found.append(ana.post(VERSIONS, content=content, headers=TAR))

    threads = [threading.Thread(target=send) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(response.status_code for response in found) == [200, 200, 200, 201]
    assert {response.json()["version"] for response in found} == {1}
    assert {name.split("/")[1] for name in kept(there)} == {load(made).digest}


def test_version_that_is_deleted_while_it_is_kept(
    there: Installation, ana: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_directory(there.folder / "made")
    register(ana, "sentiment", str(made))
    root = there.service.access.authenticate(there.secrets["root"])
    there.service.models.delete(root, VersionId("sentiment", 1), reason="")
    put = ArtifactStore.put

    def overtaken(store: ArtifactStore, *arguments: Any, **options: Any) -> str:
        uri = put(store, *arguments, **options)
        monkeypatch.setattr(ArtifactStore, "put", put)
        store.delete(uri)
        return uri

    monkeypatch.setattr(ArtifactStore, "put", overtaken)
    with pytest.raises(ApiRefused, match="deleted while it was being stored; send it again"):
        register(ana, "sentiment", str(made))
    assert register(ana, "sentiment", str(made))["version"] == 1


def test_source_is_one_line(there: Installation, url: str) -> None:
    content = archive_of(make_directory(there.folder / "made"))
    with client(url, there.secrets["ana"]) as ana:
        refused = ana.post(VERSIONS, content=content, headers=TAR, params={"source": "a\nb"})
        assert (refused.status_code, refused.json()["error"]) == (422, "Invalid")
        assert ana.post(VERSIONS, content=content, headers=TAR).status_code == 201
    assert newest(there) == (1, "an upload of ana")


def test_over_tls_into_a_store_that_is_no_folder(
    there: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    store = ArtifactStore(f"memory://store-{uuid.uuid4().hex}", staging=there.folder / "staged")
    service = Service(there.database, store, Clock())
    made = make_directory(there.folder / "made", weights=bytes(20_000_000))
    with served(create_app(service), certificate=files.keystore) as url:
        ana = ApiClient(url, there.secrets["ana"])
        with small_disk(2_000_000), pytest.raises(ApiRefused, match="cannot be written"):
            register(ana, "sentiment", str(made))
        done = register(ana, "sentiment", str(made))
        assert register(ana, "sentiment", str(made)) == done | {"existed": True}
    assert list((there.folder / "staged").iterdir()) == []
    store.within("sentiment").fetch(
        f"{store.url}/sentiment/{done['digest']}", done["digest"], tmp_path / "copies"
    )
