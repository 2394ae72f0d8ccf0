"""Sentence similarity: a query and texts to the cosine of the query with each text.

H hidden, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from serve.agreement import ScoreList
from serve.contract import Failure
from serve.embedding import EmbeddingHead
from serve.errors import ArtifactError
from serve.task import (
    MAX_TEXTS,
    Computed,
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

# Names that sentence-transformers gives the prompts of the two sides.
QUERY, DOCUMENT = "query", "document"


class SimilarityParameters(Parameters):
    """Parameters of sentence similarity.

    Attributes:
        query_prompt_name: Name of the model's prompt before the query. By default ``query``;
            where the model has neither a prompt ``query`` nor ``document``, or both are empty,
            its default prompt, if any.
        text_prompt_name: Name of the prompt before each text; likewise, by default ``document``.
        dimensions: Numbers of a vector that are compared, from the first; for models that were
            trained so that the first numbers carry most (Matryoshka).
        max_texts: Maximum number of texts in a record; one with more is a dead letter.
    """

    query_prompt_name: str | None = None
    text_prompt_name: str | None = None
    dimensions: int | None = Field(default=None, ge=1)
    max_texts: TextLimit = MAX_TEXTS


class SentenceSimilarity(Task[EmbeddingHead, SimilarityParameters]):
    """Cosines of the query with each text, in the order of the texts: ``[0.91, 0.13]``.

    The vector of a text that was divided into windows is the mean of theirs, weighted by tokens.
    """

    name = "sentence-similarity"
    inputs = (Input("query"), Input("texts", kind="texts"))
    head_type = EmbeddingHead
    parameters_type = SimilarityParameters
    model_class = "AutoModel"
    agreement = ScoreList()
    result_type = list[float]
    sentence_transformers = True

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take pooling, layers and prompts of sentence-transformers; see ``Task``."""
        from serve.sentence_import import embedding_head

        imported = embedding_head(source)
        head = imported.head
        assert isinstance(head, EmbeddingHead)
        if head.tokens:
            raise ArtifactError(
                "tokens: sentence-similarity compares one vector for each text; omit it"
            )
        if "pooling" not in source.settings:
            _require_one_prompt(source, head)
        return imported

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return embeddings (B, H); see ``Task``."""
        from serve.module import embedder

        return embedder(artifact)

    def check(self, parameters: SimilarityParameters) -> None:
        """Refuse a prompt that the model does not have; see ``Task``."""
        prompts = _prompts(self.head, parameters)
        if self.head.pooling.skip and set(prompts) != {self.head.prompt(None)}:
            raise ValueError("the pooling skips the tokens of the default prompt: use no other")

    def passages(self, values: Values, parameters: SimilarityParameters) -> list[Passage] | Failure:
        """Return the query and each text, after their prompts; see ``Task``."""
        query, texts = values
        assert isinstance(texts, tuple)
        if len(texts) > parameters.max_texts:
            return too_many("texts", len(texts), parameters.max_texts, "max_texts")
        before_query, before_text = _prompts(self.head, parameters)
        return [
            Passage(f"{before_query}{query}"),
            *(Passage(f"{before_text}{text}") for text in texts),
        ]

    def predictions(
        self, computed: Sequence[Computed], parameters: SimilarityParameters
    ) -> list[Prediction | Failure]:
        """Return the cosines of each record as JSON; see ``Task``."""
        return [self._prediction(record, parameters.dimensions) for record in computed]

    def _prediction(self, record: Computed, dimensions: int | None) -> Prediction:
        rows = [merged(windows)[:dimensions] for windows in record.windows]
        vectors = np.stack(rows, dtype=np.float64)  # (1 + N, H)
        scores = cosines(vectors[0], vectors[1:]).round(self.decimals) + 0.0  # no -0.0
        return Prediction(orjson.dumps(scores.tolist()))


def cosines(query: NDArray[np.float64], texts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of one vector (H,) with each of others (N, H); 0 where one is zero."""
    norms = np.linalg.norm(texts, axis=1) * np.linalg.norm(query)  # (N,)
    quotients: NDArray[np.float64] = (texts @ query) / np.where(norms > 0, norms, 1.0)
    return quotients.clip(-1.0, 1.0)


def _prompts(head: EmbeddingHead, parameters: SimilarityParameters) -> tuple[str, str]:
    """Return the prompts before the query and before a text.

    Raises:
        ValueError: The model has no prompt of a name that was chosen.
    """
    # A model that distinguishes the two sides leaves one without a prompt on purpose, so its
    # default, which is often the prompt of one side, is not used for the other.
    distinguishes = any(head.prompts.get(side) for side in (QUERY, DOCUMENT))

    def prompt(name: str | None, side: str) -> str:
        if name is None and distinguishes:
            return head.prompts.get(side, "")
        return head.prompt(name)

    return (
        prompt(parameters.query_prompt_name, QUERY),
        prompt(parameters.text_prompt_name, DOCUMENT),
    )


def _require_one_prompt(source: Source, head: EmbeddingHead) -> None:
    """Refuse several prompts where the pooling skips their tokens: it skips a fixed number."""
    from serve.sentence_import import skips_prompts

    if not skips_prompts(source.directory):
        return
    default = head.prompt(None)
    # Without a default, a prompt that a pipeline names later would be pooled unnoticed.
    offered = _prompts(head, SimilarityParameters()) if default else tuple(head.prompts.values())
    if set(offered) - {default}:
        raise ArtifactError(
            f"{source.directory}: the pooling skips the tokens of a prompt, which is supported "
            "only where the query and the texts have the default prompt; choose another model, "
            "or set a pooling yourself"
        )
