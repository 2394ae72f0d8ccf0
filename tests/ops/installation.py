"""A platform's control side for tests: people, a store, and the control API on a free port."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from ops.access import grants, people, tokens
from ops.access.permissions import Kind, Permission
from ops.access.transactions import Actor
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import Registered
from ops.service.service import Service
from ops.sql.database import Database
from tests.ops.directories import archive_of

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DEADLINE_S = 20
# Made once: to read the authorities of the machine takes longer than most tests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
GROUPS = {"mlops": Kind.TEAM, "risk": Kind.TEAM, "platform-it": Kind.DEPARTMENT}
PERSONS = ("root", "ana", "bob", "eve")
MEMBERSHIPS = (("ana", "mlops"), ("mlops", "platform-it"), ("bob", "risk"))
GRANTS = (
    ("root", Permission.ADMIN, "*"),
    ("platform-it", Permission.REGISTER, "sentiment"),
    ("risk", Permission.APPROVE, "risk-*"),
)


@dataclass
class Clock:
    """A time that stands until somebody moves it."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, step: timedelta) -> None:
        self.now += step


@dataclass
class Installation:
    """root is admin; ana may register sentiment by her department; bob may approve risk-*.

    Attributes:
        secrets: A token of each person, for 30 days; eve may nothing.
    """

    service: Service
    database: Database
    clock: Clock
    folder: Path
    secrets: dict[str, str]


def install(database: Database, folder: Path) -> Installation:
    """Fill a database that has the tables."""
    clock = Clock()
    with database.begin() as connection:
        for name, kind in {**dict.fromkeys(PERSONS, Kind.PERSON), **GROUPS}.items():
            people.add(connection, name, kind, now=NOW)
        for member, group in MEMBERSHIPS:
            people.join(connection, member, group)
        for holder, permission, pattern in GRANTS:
            grants.give(connection, holder, permission, pattern, by="root", now=NOW)
        secrets = {
            name: tokens.issue(connection, name, lifetime=timedelta(days=30), now=NOW).secret
            for name in PERSONS
        }
    store = ArtifactStore(folder / "store")
    return Installation(Service(database, store, clock), database, clock, folder, secrets)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app: FastAPI, *, certificate: Path | None = None) -> Iterator[str]:
    """Run an application on a free port of loopback; gives its URL.

    Args:
        certificate: PEM with its key; without it no TLS is spoken.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ssl_certfile=certificate)
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert server.ready.wait(DEADLINE_S)
        scheme = "https" if certificate else "http"
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        listening.close()
        assert not thread.is_alive()


def keep(service: Service, actor: Actor, name: str, directory: Path) -> Registered:
    """Register a directory, as an upload of its archive does."""
    content = archive_of(directory)
    return service.models.register(
        actor, name, io.BytesIO(content), size_bytes=len(content), source=f"here:{directory}"
    )


def client(url: str, secret: str | None = None) -> httpx.Client:
    """A client that shows a token."""
    headers = {"authorization": f"Bearer {secret}"} if secret is not None else {}
    return httpx.Client(
        base_url=f"{url}/api/v1", headers=headers, timeout=DEADLINE_S, verify=NO_TLS
    )
