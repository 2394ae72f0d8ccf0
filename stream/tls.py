"""Loads TLS keys: one with a pass phrase is opened or refused, without a prompt."""

from __future__ import annotations

import ssl
from pathlib import Path


class KeyLocked(ValueError):
    """A key has a pass phrase that is missing or wrong; the message names the file."""


def load_chain(
    context: ssl.SSLContext, certfile: Path | str, keyfile: Path | str | None, password: str | None
) -> None:
    """Load a certificate and its key into a context.

    The pass phrase comes from a callback: without one, OpenSSL asks at the terminal.

    Raises:
        KeyLocked: The pass phrase is missing or wrong.
        OSError: A file cannot be used.
    """
    asked = False

    def answer() -> str:
        nonlocal asked
        asked = True
        return password or ""

    try:
        context.load_cert_chain(certfile, keyfile, answer)
    except (OSError, ValueError) as exc:
        if not asked:
            raise
        is_missing = "and none is set" if password is None else "and it is not the one that is set"
        raise KeyLocked(f"{keyfile or certfile} has a pass phrase, {is_missing}") from exc


def fault_of(certfile: Path | None, keyfile: Path | None, password: str | None) -> str | None:
    """Return why the pass phrase does not open a key; None if it does, or for other faults."""
    if certfile is None:
        return None
    try:
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certfile, keyfile, password)
    except KeyLocked as exc:
        return str(exc)
    except OSError:
        return None  # missing files are reported when connecting
    return None
