"""The first admin of an installation: the person who starts it, without any set-up.

An admin who is locked out gets a new token by starting it again.
"""

from __future__ import annotations

import getpass
import re
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from ops.access import grants, ledger, people, tokens
from ops.access.ledger import Entry
from ops.access.people import RESERVED
from ops.access.permissions import EVERYTHING, Kind, Permission, decide, groups_of
from ops.errors import PlatformError
from ops.processes.state_file import replace_file
from ops.sql.database import Database

TOKEN_FILE = "token"
NAMELESS = "local-admin"


def ensure_local_admin(database: Database, state_dir: Path, *, now: datetime) -> str | None:
    """Make the user of this machine the admin of all models if no people exist yet.

    An admin whose token in the file is no longer valid gets a new one there. If others already
    use the database, nothing happens: an admin there gives the rights.

    Args:
        state_dir: Directory for the token file, which only this user can read.
    Returns:
        The message for the user; None if nothing happened.
    Raises:
        DatabaseUnavailable: Retriable.
        PlatformError: The token cannot be read or written; nothing was changed. Not retriable.
    """
    name, path = _local_name(), state_dir / TOKEN_FILE
    with database.begin() as connection:
        people.lock_rights(connection, to_change=True)  # serialises concurrent starts
        if people.is_empty(connection):
            people.add(connection, name, Kind.PERSON, now=now)
            given = grants.give(connection, name, Permission.ADMIN, EVERYTHING, by=name, now=now)
            action, reason = "installation.begin", "the first start of this installation"
            evidence = {"grant": str(given)}
            message = f"{name} is admin of all models; the token for it is in {path}"
        elif _is_locked_out(connection, name, path, now):
            action, reason = "installation.recover", f"no valid token was in {path}"
            evidence = {}
            message = f"{name} had no valid token; a new one is in {path}"
        else:
            return None
        issued = tokens.issue(connection, name, lifetime=None, now=now)
        evidence["token"] = issued.token.prefix
        entry = Entry(at=now, actor=name, action=action, reason=reason, evidence=evidence)
        ledger.append(connection, entry)
        # Before the commit: without its file the token would be lost.
        _write(path, issued.secret)
    return message


def _is_locked_out(connection: Connection, name: str, path: Path, now: datetime) -> bool:
    """Return whether an admin has no valid token in the file of this installation."""
    token = tokens.by_secret(connection, _read(path))
    if token is None:
        # Any other database may be shared, and another user may have the same name elsewhere.
        is_ours = connection.dialect.name == "sqlite"
    else:
        is_ours = token.holder == name and token.fault(now) is not None
    groups = groups_of(name, people.memberships_above(connection, name))
    held = grants.held_by(connection, [name, *groups])
    may_all = decide(name, groups, held, Permission.ADMIN, EVERYTHING).allowed
    return is_ours and may_all and name in people.active_persons(connection)


def _local_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return NAMELESS
    name = re.sub(r"[^a-z0-9._@+-]", "-", name.lower()).lstrip("._@+-")[:63]
    return name if name and name not in RESERVED else NAMELESS


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise PlatformError(f"the token cannot be read from {path}: {exc}") from exc


def _write(path: Path, secret: str) -> None:
    """Write the token atomically, never readable for others, not even for a moment."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, secret + "\n", private=True)
    except OSError as exc:
        raise PlatformError(f"the token cannot be written to {path}: {exc}") from exc
