"""A replica that reads every record and computes nothing.

The throughput of a pipeline with ``engine: {kind: echo}`` is the upper limit of that pipeline.
"""

from __future__ import annotations

import time

from serve.artifact import load
from serve.contract import (
    Answer,
    BatchReply,
    BatchStats,
    CallOptions,
    Failure,
    Outcome,
    ReplicaInfo,
)
from serve.reading import Reader, Reading
from serve.registry import task_type
from serve.settings import ModelSettings

RESULT = b'[{"label":"ECHO","score":1.0}]'


class EchoReplica:
    """Stand-in for a version of any model, without its weights."""

    def __init__(self, settings: ModelSettings) -> None:
        """Compare the model directory with its manifest.

        Raises:
            ArtifactError: The directory differs from what was sealed. Not retriable.
        """
        artifact = load(settings.path, task=settings.task)
        card = artifact.card
        self._inputs = task_type(card.task)(card.head, precision="f32").inputs
        self._info = ReplicaInfo(
            model=settings.name,
            version=settings.version,
            digest=artifact.digest,
            task=artifact.card.task,
            engine="echo",
            precision="f32",
            device="none",
        )

    def info(self) -> ReplicaInfo:
        """Return the identity of the replica."""
        return self._info

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer each value that can be read; see ``contract.Predictor``."""
        start = time.perf_counter()
        reader = Reader(options, self._inputs)
        readings = [reader.read(value) for value in values]
        outcomes: list[Outcome] = [
            item
            if isinstance(item, Failure)
            else Answer(RESULT, item.id, "ECHO", 1.0, 1, truncated=False)
            for item in readings
        ]
        texts = {item.values for item in readings if isinstance(item, Reading)}
        seconds = time.perf_counter() - start
        stats = BatchStats(len(texts), len(texts), len(texts), seconds, seconds)
        return BatchReply(outcomes, stats, self._info.digest)

    def close(self) -> None:
        """Do nothing; there are no resources to free."""
