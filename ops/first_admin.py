"""The one person of a fresh installation: who starts it is its admin, without any set-up."""

from __future__ import annotations

import getpass
import os
import re
from datetime import datetime
from pathlib import Path

from ops import grants, ledger, people, tokens
from ops.database import Database
from ops.errors import PlatformError
from ops.ledger import Entry
from ops.people import RESERVED
from ops.permissions import EVERYTHING, Kind, Permission

TOKEN_FILE = "token"
NAMELESS = "local-admin"


def ensure_local_admin(database: Database, state_dir: Path, *, now: datetime) -> str | None:
    """Make the user of this machine the admin of all models, where there is nobody yet.

    With a database that others use already nothing happens: an admin there gives the rights.

    Args:
        state_dir: Where the token is written, for this user's eyes alone.
    Returns:
        What to tell the user; None where nothing happened.
    Raises:
        DatabaseUnavailable: Retriable.
        PlatformError: The token cannot be written; nothing has happened. Not retriable.
    """
    name = _local_name()
    with database.begin() as connection:
        people.hold(connection, to_change=True)  # of two that start at once, one is the first
        if not people.is_empty(connection):
            return None
        people.add(connection, name, Kind.PERSON, now=now)
        given = grants.give(connection, name, Permission.ADMIN, EVERYTHING, by=name, now=now)
        issued = tokens.issue(connection, name, lifetime=None, now=now)
        reason = "the first start of this installation"
        evidence = {"grant": str(given.grant), "token": issued.token.prefix}
        entry = Entry(
            at=now, actor=name, action="installation.begin", reason=reason, evidence=evidence
        )
        ledger.append(connection, entry)
        # Before the commit: one that has no file would be of no use and could not be had again.
        path = _write(state_dir / TOKEN_FILE, issued.secret)
    return f"{name} is admin of all models; the token for it is in {path}"


def _local_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return NAMELESS
    name = re.sub(r"[^a-z0-9._@+-]", "-", name.lower()).lstrip("._@+-")[:63]
    return name if name and name not in RESERVED else NAMELESS


def _write(path: Path, secret: str) -> Path:
    """Whole or not at all, and never readable for others, not even for a moment."""
    draft = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
        draft.replace(path)
    except OSError as exc:
        raise PlatformError(f"the token cannot be written to {path}: {exc}") from exc
    return path
