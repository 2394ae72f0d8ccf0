"""Every error of ``serve``.

ServeError
|-- ArtifactError             the model directory cannot be used
|   |-- ArtifactMissing       the directory or one of its files does not exist
|   |-- ArtifactAltered       a file's sha256 differs from the manifest
|   `-- TaskMismatch          the directory was made for another task
|-- EngineUnavailable         this machine lacks the requested engine or precision
|-- EngineError               inference failed on a batch (retriable)
|-- ParametersRefused         a task or a model lacks a parameter that a pipeline sets
`-- ItemTooLong               one item alone exceeds the token budget of a batch
"""

from __future__ import annotations

from typing import ClassVar


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message; the rest is for its developers."""
    return str(error).strip().partition("\n")[0]


class ServeError(Exception):
    """Root of the errors of ``serve``."""

    retriable: ClassVar[bool] = False


class ArtifactError(ServeError):
    """The model directory cannot be used."""


class ArtifactMissing(ArtifactError):
    """The model directory or one of its files does not exist."""


class ArtifactAltered(ArtifactError):
    """A file of the model directory differs from the manifest."""


class TaskMismatch(ArtifactError):
    """The model directory was made for a task other than the requested one."""


class EngineUnavailable(ServeError):
    """This machine lacks the requested engine or precision."""


class EngineError(ServeError):
    """Inference failed on a batch as a whole."""

    retriable: ClassVar[bool] = True


class ParametersRefused(ServeError):
    """A task or a model lacks a parameter that a pipeline sets, or its value is not allowed."""


class ItemTooLong(ServeError):
    """One item alone exceeds the token budget of a batch."""
