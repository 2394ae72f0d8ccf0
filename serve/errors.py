"""Every error of ``serve``.

ServeError
|-- ArtifactError             the model directory cannot be used
|   |-- ArtifactMissing       no such directory, or a file of it is not there
|   |-- ArtifactAltered       a file's sha256 is not the manifest's
|   `-- TaskMismatch          the directory was made for another task
|-- EngineUnavailable         engine or precision that this machine has not
|-- EngineError               inference failed on a batch (retriable)
`-- ItemTooLong               one item alone is over the token budget
"""

from __future__ import annotations

from typing import ClassVar


def first_line(error: Exception) -> str:
    """The first line of what an error of a library says; those behind it are for its authors."""
    return str(error).strip().partition("\n")[0]


class ServeError(Exception):
    """Root of the errors of ``serve``."""

    retriable: ClassVar[bool] = False


class ArtifactError(ServeError):
    """The model directory cannot be used."""


class ArtifactMissing(ArtifactError):
    """No such directory, or a file of it is not there."""


class ArtifactAltered(ArtifactError):
    """A file of the model directory is not the one its manifest names."""


class TaskMismatch(ArtifactError):
    """The model directory was made for another task than the one asked for."""


class EngineUnavailable(ServeError):
    """An engine or precision was asked for by name that this machine has not."""


class EngineError(ServeError):
    """Inference failed on a batch as a whole."""

    retriable: ClassVar[bool] = True


class ItemTooLong(ServeError):
    """One item alone exceeds the token budget of a batch."""
