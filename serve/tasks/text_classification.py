"""Text classification: one text, or a pair, to labels with scores, best first.

C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field, model_validator

from serve.agreement import ScoredLabels
from serve.contract import Failure
from serve.labels import labels_of
from serve.scores import sigmoid, softmax
from serve.task import (
    Computed,
    ImportedHead,
    Input,
    LabelledHead,
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

ProblemType = Literal["single_label", "multi_label", "regression"]
Threshold = Annotated[float, Field(ge=0, le=1)]
TOP_K = 100
PROBLEM_TYPES: Mapping[str, ProblemType] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


class ClassificationHead(LabelledHead):
    """Head of a text classifier.

    Attributes:
        problem_type: ``single_label``: scores add up to 1; ``multi_label``: each is between 0 and
            1 on its own; ``regression``: they are the model's numbers, unbounded.
        thresholds: Score from which a label of a multi-label model is in the result; a label
            without one always is.
    """

    problem_type: ProblemType
    thresholds: Mapping[str, Threshold] = {}

    @model_validator(mode="after")
    def _thresholds_fit(self) -> Self:
        require_thresholds(self.thresholds, self.labels, self.problem_type)
        return self


class ClassificationParameters(Parameters):
    """Parameters of text classification.

    Attributes:
        top_k: Maximum number of labels in a result; null for all. Thousands of labels may exceed
            the output topic's limit, which makes every record a dead letter.
        function_to_apply: From the model's numbers to scores; by default that of the model's
            problem type, as in the pipeline of transformers.
        window_merge: How the numbers of several windows of a text become one: their ``mean``,
            weighted by tokens, or the ``max`` of each class.
        thresholds: Thresholds by label of a multi-label model; they replace those of the card.
    """

    top_k: int | None = Field(default=TOP_K, ge=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    window_merge: Literal["mean", "max"] = "mean"
    thresholds: Mapping[str, Threshold] | None = None


class TextClassification(Task[ClassificationHead, ClassificationParameters]):
    """Labels with their scores, best first: ``[{"label", "score"}, ...]``.

    Labels with equal scores after rounding are in the order of their classes, so that the order
    does not depend on digits that are not reported.
    """

    name = "text-classification"
    inputs = (Input("text"), Input("text_pair", optional=True))
    head_type = ClassificationHead
    parameters_type = ClassificationParameters
    model_class = "AutoModelForSequenceClassification"
    agreement = ScoredLabels()
    result_type = list[ScoredLabel]
    reads_pairs = True
    shares_pass = True

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take the labels and the problem type of the configuration; see ``Task``."""
        config = source.model.config
        problem_type = PROBLEM_TYPES.get(config.problem_type or "")
        if problem_type is None:
            # As in the pipeline: the sigmoid for one number, the softmax for several.
            problem_type = "multi_label" if config.num_labels == 1 else "single_label"
        own = {"labels": labels_of(source), "problem_type": problem_type}
        return ImportedHead(ClassificationHead.model_validate({**own, **source.settings}))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits (B, C); see ``Task``."""
        from serve.module import headed

        classes = len(artifact.card.labels)
        return headed(artifact, cls.model_class, lambda output: output.logits, classes=classes)

    def golden_parameters(self) -> dict[str, Any]:
        """Return those that keep every label; see ``Task``."""
        return {"top_k": None, "thresholds": {}}

    def check(self, parameters: ClassificationParameters) -> None:
        """Refuse thresholds that the model cannot have; see ``Task``."""
        require_thresholds(parameters.thresholds or {}, self.head.labels, self.head.problem_type)

    def predictions(
        self, computed: Sequence[Computed], parameters: ClassificationParameters
    ) -> list[Prediction | Failure]:
        """Return the best ``top_k`` labels of each record with scores; see ``Task``."""
        merge = parameters.window_merge
        logits = np.stack([merged(record.windows[0], merge) for record in computed])  # (N, C)
        scores = self._scores(logits.astype(np.float64), parameters.function_to_apply)
        scores = scores.round(self.decimals) + 0.0  # turns -0.0 into 0.0
        thresholds = parameters.thresholds
        if thresholds is None:
            thresholds = self.head.thresholds
        kept = None if thresholds else parameters.top_k
        order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]  # (N, K)
        ranked = np.take_along_axis(scores, order, axis=1)
        rows = zip(order.tolist(), ranked.tolist(), strict=True)
        return [self._prediction(*row, thresholds, parameters) for row in rows]

    def _scores(self, logits: NDArray[np.float64], function: str | None) -> NDArray[np.float64]:
        of_type = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "none"}
        match function or of_type[self.head.problem_type]:
            case "softmax":
                return softmax(logits)
            case "sigmoid":
                return sigmoid(logits)
            case _:
                return logits

    def _prediction(
        self,
        classes: list[int],
        scores: list[float],
        thresholds: Mapping[str, float],
        parameters: ClassificationParameters,
    ) -> Prediction:
        found: list[ScoredLabel] = []
        for index, score in zip(classes, scores, strict=True):
            label = self.head.labels[index]
            if score >= thresholds.get(label, -math.inf):
                found.append({"label": label, "score": score})
            if len(found) == parameters.top_k:
                break
        result = orjson.dumps(found)
        if not found or self.head.problem_type == "regression":
            return Prediction(result)
        # The model's own numbers are unbounded, which a confidence is not.
        is_bounded = parameters.function_to_apply != "none"
        return Prediction(result, found[0]["label"], found[0]["score"] if is_bounded else None)


def require_thresholds(
    thresholds: Mapping[str, float], labels: Sequence[str], problem_type: ProblemType
) -> None:
    """Refuse thresholds of unknown labels, and of models that are not multi-label.

    Raises:
        ValueError: There is one; the message names it.
    """
    unknown = sorted(thresholds.keys() - set(labels))
    if unknown:
        raise ValueError(f"thresholds has the label {unknown[0]!r}, which the model lacks")
    if thresholds and problem_type != "multi_label":
        raise ValueError(f"thresholds need a multi_label model, but this one is {problem_type}")
