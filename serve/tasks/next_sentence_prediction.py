"""Next sentence prediction: whether the second of two texts follows the first in a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import orjson

from serve.agreement import ScoredLabels
from serve.contract import Failure
from serve.scores import softmax
from serve.task import (
    Computed,
    Head,
    ImportedHead,
    Input,
    Parameters,
    Prediction,
    ScoredLabel,
    Source,
    Task,
    merged,
)

if TYPE_CHECKING:
    import torch

    from serve.artifact import Artifact


class NextSentenceHead(Head):
    """Head of a model for next sentences; its classes are the same in every model.

    Attributes:
        labels: Class 0 is a text that follows.
    """

    labels: tuple[Literal["is_next"], Literal["not_next"]] = ("is_next", "not_next")


class NextSentencePrediction(Task[NextSentenceHead, Parameters]):
    """Both labels with their scores, best first: ``[{"label": "is_next", "score"}, ...]``.

    Equal scores after rounding leave ``is_next`` first.
    """

    name = "next-sentence-prediction"
    inputs = (Input("text"), Input("text_pair"))
    head_type = NextSentenceHead
    model_class = "AutoModelForNextSentencePrediction"
    agreement = ScoredLabels()
    result_type = list[ScoredLabel]
    reads_pairs = True

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Return the head, which is the same for every model; see ``Task``."""
        return ImportedHead(NextSentenceHead.model_validate(source.settings))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits (B, 2); see ``Task``."""
        from serve.module import headed

        return headed(artifact, cls.model_class, lambda output: output.logits)

    def predictions(
        self,
        computed: Sequence[Computed],
        parameters: Parameters,  # noqa: ARG002
    ) -> list[Prediction | Failure]:
        """Return both labels of each record with scores; see ``Task``."""
        logits = np.stack([merged(record.windows[0]) for record in computed])  # (N, 2)
        scores = softmax(logits.astype(np.float64)).round(self.decimals)
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        rows = zip(order.tolist(), ranked.tolist(), strict=True)
        return [self._prediction(*row) for row in rows]

    def _prediction(self, classes: list[int], scores: list[float]) -> Prediction:
        labels = [self.head.labels[index] for index in classes]
        found: list[ScoredLabel] = [
            {"label": label, "score": score} for label, score in zip(labels, scores, strict=True)
        ]
        return Prediction(orjson.dumps(found), labels[0], scores[0])
