"""The files of a model from elsewhere: whether a library can read them, in sentences of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from serve.errors import ArtifactError, ServeError


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no such file.

    Raises:
        ArtifactError: It cannot be read, or holds something else. Not retriable.
    """
    if not file.is_file():
        return {}
    document = parse_json(file)
    if not isinstance(document, dict):
        raise ArtifactError(f"{file}: must be a JSON object; download it again or correct it")
    return document


def parse_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: It cannot be read, or is not JSON. Not retriable.
    """
    try:
        return orjson.loads(file.read_bytes())
    except OSError as exc:
        raise ArtifactError(f"{file}: cannot be read: {exc.strerror}") from exc
    except orjson.JSONDecodeError as exc:
        raise ArtifactError(f"{file}: is not JSON: {exc}; download it again or correct it") from exc


@contextmanager
def library(place: Path, fault: str) -> Iterator[None]:
    """Turn whatever a library raises about a model's files into one sentence.

    tokenizers raises bare ``Exception``, transformers every kind there is, so every kind is caught
    here and raised again as ours.

    Args:
        fault: What then is wrong, for example ``transformers cannot load it``.
    Raises:
        ArtifactError: A call within raised something. Not retriable.
    """
    try:
        yield
    except ServeError:
        raise
    except Exception as exc:
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        cause = lines[0] if lines else type(exc).__name__
        raise ArtifactError(f"{place}: {fault}: {cause}") from exc
