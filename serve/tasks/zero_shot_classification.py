"""Zero-shot classification: a text and any labels to the labels with scores, best first.

The model decides for each label whether the text entails a sentence that contains the label.

C classes of the model, L candidate labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from serve.agreement import ScoredLabels, Tolerance
from serve.contract import Failure, FailureKind
from serve.errors import ArtifactError
from serve.labels import labels_of
from serve.scores import softmax
from serve.task import (
    Computed,
    ImportedHead,
    Input,
    LabelledHead,
    Parameters,
    Passage,
    Prediction,
    Source,
    Task,
    Values,
    merged,
    too_many,
)

if TYPE_CHECKING:
    import torch

    from serve.artifact import Artifact

ENTAILMENT = "entail"
MAX_LABELS = 1000
PLACE = "{}"
NO_LABELS = Failure(
    FailureKind.NO_TEXT,
    "no labels: send them as the field 'candidate_labels', or set the parameter candidate_labels",
)


def _separated(labels: Any) -> Any:
    """Return the labels of a text with commas, which the pipeline of transformers accepts too."""
    if not isinstance(labels, str):
        return labels
    return [label.strip() for label in labels.split(",") if label.strip()]


Label = Annotated[str, StringConstraints(pattern=r"\S")]
Labels = Annotated[tuple[Label, ...], BeforeValidator(_separated), Field(min_length=1)]


class ZeroShotHead(LabelledHead):
    """Head of a model that decides whether one text entails another.

    Attributes:
        entailment: Class of the model for a text that entails the other.
    """

    entailment: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.labels) < 2:
            raise ValueError("labels must be at least two: for entailment and for its opposite")
        if self.entailment >= len(self.labels):
            raise ValueError(f"entailment must be below {len(self.labels)}, the number of labels")
        return self

    @property
    def contradiction(self) -> int:
        """Class that entailment is compared with: the first, or the last where that is taken."""
        return len(self.labels) - 1 if self.entailment == 0 else 0


class ZeroShotParameters(Parameters):
    """Parameters of zero-shot classification.

    Attributes:
        candidate_labels: Labels for records without any; a list, or one text with commas.
        hypothesis_template: Sentence that a text entails where a label fits; ``{}`` is the label.
        multi_label: Whether each label has a score on its own; otherwise they add up to 1.
        max_labels: Maximum number of labels of a record; each costs a computation.
        top_k: Maximum number of labels in a result; null for all.
        window_merge: How the numbers of several windows of a text become one: their ``mean``,
            weighted by tokens, or the ``max`` of each class.
    """

    candidate_labels: Labels | None = None
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False
    max_labels: int = Field(default=MAX_LABELS, ge=1)
    top_k: int | None = Field(default=None, ge=1)
    window_merge: Literal["mean", "max"] = "mean"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        template = self.hypothesis_template
        if any(template.count(part) != 1 for part in (PLACE, *PLACE)):
            raise ValueError(
                f"hypothesis_template must contain {PLACE} once, where the label goes, and no "
                f"other brace, but is {template!r}"
            )
        found = len(self.candidate_labels or ())
        if found > self.max_labels:
            raise ValueError(
                f"candidate_labels has {found:,} labels, but max_labels allows "
                f"{self.max_labels:,}; give fewer, or raise max_labels"
            )
        return self


class RankedLabels(ScoredLabels):
    """Results such as ``{"labels": ["good", ...], "scores": [0.9, ...]}``, best first."""

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare the score of every expected label; see ``Agreement``."""
        return super().difference(_paired(found), _paired(expected), tolerance)

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the best label; see ``Agreement``."""
        return super().same_best(_paired(found), _paired(expected), tolerance)

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the labels given, and every score; see ``Agreement``."""
        return super().same_for_people(_paired(before), _paired(after))

    def answer(self, result: Any) -> str:
        """Return the best label; see ``Agreement``."""
        return super().answer(_paired(result))


class SequenceLabels(TypedDict, closed=True):
    """Labels of a text and the score of each, best first.

    Attributes:
        sequence: The text.
    """

    sequence: str
    labels: list[str]
    scores: list[float]


class ZeroShotClassification(Task[ZeroShotHead, ZeroShotParameters]):
    """Labels with their scores, best first: ``{"sequence", "labels", "scores"}``.

    A label that is repeated counts once. Labels with equal scores after rounding stay in the
    order in which they were given.
    """

    name = "zero-shot-classification"
    inputs = (Input("text"), Input("candidate_labels", kind="texts", optional=True))
    head_type = ZeroShotHead
    parameters_type = ZeroShotParameters
    model_class = "AutoModelForSequenceClassification"
    agreement = RankedLabels()
    result_type = SequenceLabels
    reads_pairs = True
    truncation = "only_first"

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take the labels of the configuration, and find that of entailment; see ``Task``."""
        labels = labels_of(source)
        entailment = source.settings.get("entailment")
        if entailment is None:
            entailment = entailment_of(labels, source.directory)
        own = {**source.settings, "labels": labels, "entailment": entailment}
        return ImportedHead(ZeroShotHead.model_validate(own))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits (B, C); see ``Task``."""
        from serve.module import headed

        classes = len(artifact.card.labels)
        return headed(artifact, cls.model_class, lambda output: output.logits, classes=classes)

    def passages(self, values: Values, parameters: ZeroShotParameters) -> list[Passage] | Failure:
        """Return the text with the sentence of each label; see ``Task``."""
        labels = _labels(values, parameters)
        if not labels:
            return NO_LABELS
        if len(labels) > parameters.max_labels:
            return too_many("candidate_labels", len(labels), parameters.max_labels, "max_labels")
        text = _text(values)
        template = parameters.hypothesis_template
        return [Passage(text, template.replace(PLACE, label)) for label in labels]

    def predictions(
        self, computed: Sequence[Computed], parameters: ZeroShotParameters
    ) -> list[Prediction | Failure]:
        """Return the labels of each record with scores; see ``Task``."""
        return [self._prediction(record, parameters) for record in computed]

    def _prediction(self, record: Computed, parameters: ZeroShotParameters) -> Prediction:
        labels = _labels(record.values, parameters)
        logits = np.stack([merged(one, parameters.window_merge) for one in record.windows])
        scores = self._scores(logits.astype(np.float64), parameters).round(self.decimals)
        order = np.argsort(-scores, kind="stable")[: parameters.top_k]
        ranked: list[float] = scores[order].tolist()
        best = [labels[index] for index in order]
        text = _text(record.values)
        result: SequenceLabels = {"sequence": text, "labels": best, "scores": ranked}
        return Prediction(orjson.dumps(result), best[0], ranked[0])

    def _scores(
        self, logits: NDArray[np.float64], parameters: ZeroShotParameters
    ) -> NDArray[np.float64]:
        """Return a score for each label; shape (L, C) to (L,)."""
        if not parameters.multi_label and len(logits) > 1:
            return softmax(logits[:, self.head.entailment])
        return softmax(logits[:, [self.head.contradiction, self.head.entailment]])[:, 1]


def entailment_of(labels: Sequence[str], directory: Path) -> int:
    """Return the class of the first label whose name begins with entail, in any case.

    Args:
        directory: Directory of the source, for the message.
    Raises:
        ArtifactError: There is none. Not retriable.
    """
    for index, label in enumerate(labels):
        if label.lower().startswith(ENTAILMENT):
            return index
    shown = ", ".join(f"{index} is {label!r}" for index, label in enumerate(labels[:5]))
    raise ArtifactError(
        f"{directory}: no label begins with {ENTAILMENT!r} ({shown}): set the class with "
        "entailment=INDEX, or choose a model that was trained for natural language inference"
    )


def _text(values: Values) -> str:
    text = values[0]
    assert isinstance(text, str)
    return text


def _labels(values: Values, parameters: ZeroShotParameters) -> list[str]:
    own = values[1]
    assert not isinstance(own, str)
    return list(dict.fromkeys(own or parameters.candidate_labels or ()))


def _paired(result: Any) -> list[dict[str, Any]]:
    pairs = zip(result["labels"], result["scores"], strict=True)
    return [{"label": label, "score": score} for label, score in pairs]
