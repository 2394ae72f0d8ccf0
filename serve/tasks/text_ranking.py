"""Text ranking: a query and texts to the texts' scores by a cross-encoder, best first.

N texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired

import numpy as np
import orjson
from pydantic import Field
from typing_extensions import TypedDict

from serve.agreement import Ranking
from serve.contract import Failure
from serve.errors import ArtifactError
from serve.scores import sigmoid
from serve.task import (
    MAX_TEXTS,
    Computed,
    Division,
    Head,
    ImportedHead,
    Input,
    Parameters,
    Passage,
    Prediction,
    Source,
    Task,
    TextLimit,
    Values,
    merged,
    too_many,
)

if TYPE_CHECKING:
    import torch

    from serve.artifact import Artifact

ScoreFunction = Literal["sigmoid", "none"]
ACTIVATIONS: Mapping[str, ScoreFunction] = {
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Identity": "none",
    "torch.nn.modules.linear.Identity": "none",
}
# Settings of the transformer in a saved CrossEncoder, with the only value that is supported.
ONLY_VALUES: Mapping[str, Any] = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


class RankingHead(Head):
    """Head of a cross-encoder with one output.

    Attributes:
        activation: From the model's number to a score: the ``sigmoid``, or ``none``, which
            leaves it unbounded.
        prompt: Text before every query.
    """

    activation: ScoreFunction = "sigmoid"
    prompt: str = ""


class RankingParameters(Parameters):
    """Parameters of text ranking.

    Attributes:
        activation: Replaces that of the model.
        top_k: Maximum number of texts in a result; null for all.
        return_documents: Whether each element of a result has its text.
        max_texts: Maximum number of texts in a record; one with more is a dead letter.
    """

    activation: ScoreFunction | None = None
    top_k: int | None = Field(default=None, ge=1)
    return_documents: bool = False
    max_texts: TextLimit = MAX_TEXTS


class RankedText(TypedDict, closed=True):
    """A text of the record and its score.

    Attributes:
        index: Its place in the record, from 0.
        text: The text itself, with ``return_documents``.
    """

    index: int
    score: float
    text: NotRequired[str]


class TextRanking(Task[RankingHead, RankingParameters]):
    """Texts with their scores, best first: ``[{"index", "score"}, ...]``.

    The index is the text's place in the record, and ``return_documents`` adds ``text``. Texts
    with equal scores are in the order of the model's numbers, which the sigmoid may map to the
    same digits, and then in that of the record. The score of a text that was divided into windows
    is the highest of theirs; each window has the whole query, and a query that leaves no token
    for the text makes the record a dead letter.
    """

    name = "text-ranking"
    inputs = (Input("query"), Input("texts", kind="texts"))
    head_type = RankingHead
    parameters_type = RankingParameters
    model_class = "AutoModelForSequenceClassification"
    agreement = Ranking()
    result_type = list[RankedText]
    reads_pairs = True

    @classmethod
    def check_source(cls, network: Path, settings: Mapping[str, Any]) -> None:
        """Refuse modules and settings of a CrossEncoder that are not computed; see ``Task``."""
        source = _CrossEncoder.read(network)
        if "activation" not in settings:
            _activation(*source.activation)

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take the activation and the prompt of the CrossEncoder; see ``Task``."""
        outputs = source.model.config.num_labels
        if outputs != 1:
            raise ArtifactError(
                f"{source.network}: the model has {outputs} labels, but text-ranking needs a "
                "cross-encoder whose head has one output, the relevance of a text; import it for "
                "text-classification, or choose another model"
            )
        found = _CrossEncoder.read(source.network)
        own: dict[str, Any] = {"prompt": found.prompt}
        if "activation" not in source.settings:
            own["activation"] = _activation(*found.activation)
        return ImportedHead(RankingHead.model_validate({**own, **source.settings}))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits (B, 1); see ``Task``."""
        from serve.module import headed

        return headed(artifact, cls.model_class, lambda output: output.logits, classes=1)

    def passages(self, values: Values, parameters: RankingParameters) -> list[Passage] | Failure:
        """Return the query with each text; see ``Task``."""
        query, texts = values
        assert isinstance(texts, tuple)
        if len(texts) > parameters.max_texts:
            return too_many("texts", len(texts), parameters.max_texts, "max_texts")
        return [Passage(f"{self.head.prompt}{query}", text) for text in texts]

    def division(
        self,
        *,
        windows: bool,
        stride: int,
        parameters: RankingParameters,  # noqa: ARG002
    ) -> Division:
        """Cut the longer of query and text, but divide only the text; see ``Task``."""
        return Division(windows, stride, "only_second" if windows else self.truncation)

    def predictions(
        self, computed: Sequence[Computed], parameters: RankingParameters
    ) -> list[Prediction | Failure]:
        """Return the best ``top_k`` texts of each record with scores; see ``Task``."""
        return [self._prediction(record, parameters) for record in computed]

    def _prediction(self, record: Computed, parameters: RankingParameters) -> Prediction:
        highest = [merged(windows, "max")[0] for windows in record.windows]
        logits = np.array(highest, dtype=np.float64)  # (N,)
        activation = parameters.activation or self.head.activation
        scores = sigmoid(logits) if activation == "sigmoid" else logits
        scores = scores.round(self.decimals) + 0.0  # turns -0.0 into 0.0
        # Only digits that are reported decide, so that the order is the same in every batch.
        order = np.lexsort((-logits.round(self.decimals), -scores))[: parameters.top_k]
        found: list[RankedText] = [
            {"index": index, "score": score}
            for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]
        if parameters.return_documents:
            for item in found:
                text = record.passages[item["index"]].pair
                assert text is not None
                item["text"] = text
        confidence = found[0]["score"] if activation == "sigmoid" else None
        return Prediction(orjson.dumps(found), confidence=confidence)


class _CrossEncoder(NamedTuple):
    """Settings of a source for the CrossEncoder of sentence-transformers, which it follows.

    Attributes:
        activation: The file that names the activation, and its class; None for the default.
        prompt: Text before every query.
    """

    activation: tuple[Path, Any]
    prompt: str = ""

    @classmethod
    def read(cls, network: Path) -> _CrossEncoder:
        """Read the settings of a directory.

        Raises:
            ArtifactError: A module or setting is not supported; it is named. Not retriable.
        """
        from serve.artifact import CONFIG_FILE
        from serve.checkpoint import read_json
        from serve.sentence_import import MODEL_FILE, MODULES_FILE

        config = read_json(network / CONFIG_FILE)
        own = config.get("sentence_transformers")
        if isinstance(own, dict) and "activation_fn" in own:
            activation = own["activation_fn"]
        else:
            activation = config.get("sbert_ce_default_activation_function")
        found = cls((network / CONFIG_FILE, activation))
        file = network / MODEL_FILE
        settings = read_json(file)
        # The library reads its own files only where they were saved with modules.
        if not (network / MODULES_FILE).is_file() or settings.get("model_type") != "CrossEncoder":
            return found
        _require_served(network)
        if settings.get("activation_fn") is not None:
            found = found._replace(activation=(file, settings["activation_fn"]))
        name = settings.get("default_prompt_name")
        if name is None:
            return found
        prompts = settings.get("prompts")
        prompt = prompts.get(name) if isinstance(prompts, dict) else None
        if not isinstance(prompt, str):
            raise ArtifactError(
                f"{file}: default_prompt_name is {name!r}, but prompts has no such text; correct "
                "the file"
            )
        return found._replace(prompt=prompt)


def _require_served(network: Path) -> None:
    """Refuse modules and settings of a saved CrossEncoder that would change its scores."""
    from serve.checkpoint import parse_json, read_json
    from serve.sentence_import import (
        MODULES_FILE,
        TRANSFORMER_FILES,
        WITHOUT_EFFECT,
        transformer_directory,
    )

    is_here = transformer_directory(network) == network  # refuses a file of another shape
    file = network / MODULES_FILE
    kinds = [str(module["type"]).rpartition(".")[2] for module in parse_json(file)]
    if kinds != ["Transformer"] or not is_here:
        raise ArtifactError(
            f"{file}: has the modules {', '.join(kinds)}, but only one Transformer in the same "
            "directory is supported; choose another model"
        )
    for file in (network / name for name in TRANSFORMER_FILES):
        for key, value in read_json(file).items():
            if value and key not in WITHOUT_EFFECT and value != ONLY_VALUES.get(key):
                raise ArtifactError(
                    f"{file}: {key} is {value!r}, which is not supported; choose another model"
                )


def _activation(file: Path, path: Any) -> ScoreFunction:
    if path is None:
        return "sigmoid"
    if path not in ACTIVATIONS:
        raise ArtifactError(
            f"{file}: the activation is {path}, but only Sigmoid and Identity of torch.nn are "
            "supported; choose another model, or set activation to sigmoid or none yourself"
        )
    return ACTIVATIONS[path]
