"""Every error of ``train``. Problems of a base model are errors of ``serve``.

TrainError
|-- DataError          the training file cannot be used; names the line where there is one
|-- BaseUnsupported    the base model cannot be trained in the requested way
`-- TrainingDiverged   the loss was never a finite number
"""

from __future__ import annotations

from typing import ClassVar


class TrainError(Exception):
    """Root of the errors of ``train``; retrying would not help."""

    retriable: ClassVar[bool] = False


class DataError(TrainError):
    """The training file cannot be used; the message names the line where there is one."""


class BaseUnsupported(TrainError):
    """The base model cannot be trained in the requested way."""


class TrainingDiverged(TrainError):
    """The loss was never a finite number."""
