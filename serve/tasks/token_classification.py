"""Token classification: one text to the entities in it, such as names, with their places.

C classes, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson
from typing_extensions import TypedDict

from serve.agreement import Structure
from serve.contract import Failure
from serve.entities import (
    Scheme,
    Tokens,
    TokenSpan,
    WordStrategy,
    entity_groups,
    scheme_of,
    tags_of,
    token_spans,
    tokens_of,
    word_spans,
)
from serve.labels import labels_of
from serve.task import Computed, ImportedHead, LabelledHead, Parameters, Prediction, Source, Task

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from serve.artifact import Artifact
    from serve.tokenize import TextTokenizer


class TokenHead(LabelledHead):
    """Head of a token classifier.

    Attributes:
        scheme: Meaning of the labels' prefixes. ``bio``: ``B-`` begins an entity, ``I-`` and labels
            without a prefix continue one of the same kind. ``bioes``: also ``E-`` or ``L-`` ends
            one, and ``S-`` or ``U-`` is one alone. ``io``: neighbours of the same kind are one
            entity.
        unk_token_id: Token that stands for unknown words; None where there is none.
    """

    scheme: Scheme
    unk_token_id: int | None = None


class TokenParameters(Parameters):
    """Parameters of token classification, those of the pipeline of transformers.

    Attributes:
        aggregation_strategy: ``none`` returns every token, ``simple`` groups tokens to entities.
            The others first give all tokens of a word the label of its ``first`` token, of the
            ``average`` of their scores, or of the token with the highest score (``max``).
        ignore_labels: Labels (with ``none``) or kinds of entities that are not in the result.
    """

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: tuple[str, ...] = ("O",)


class Wording:
    """Texts of tokens and words, as the decoder of the tokeniser writes them.

    Args:
        unknown: Id of the token for unknown words.
    """

    def __init__(self, tokenizer: Tokenizer, unknown: int | None) -> None:
        self._token: Any = tokenizer.id_to_token
        self._decoder: Any = tokenizer.decoder
        self._unknown = unknown
        self._marks_parts = bool(getattr(tokenizer.model, "continuing_subword_prefix", None))

    def of_token(self, tokens: Tokens, place: int) -> str:
        """Return a token, or the text of an unknown one."""
        if tokens.ids[place] == self._unknown:
            start, end = tokens.offsets[place]
            return tokens.text[start:end]
        return str(self._token(tokens.ids[place]))

    def of_word(self, tokens: Tokens, span: TokenSpan) -> str:
        """Return the text of a word."""
        return self.joined([self.of_token(tokens, place) for place in range(span.first, span.stop)])

    def joined(self, parts: list[str]) -> str:
        """Return the text of several tokens or words."""
        return " ".join(parts) if self._decoder is None else str(self._decoder.decode(parts))

    def inside(self, tokens: Tokens) -> list[bool]:
        """Return for each token whether it continues the word before it, as the pipeline does."""
        found: list[bool] = []
        for index, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
            if index == self._unknown:
                found.append(False)
            elif self._marks_parts:
                # A part of a word has a mark, so that it is longer than its text.
                found.append(len(self._token(index)) != end - start)
            else:
                found.append(start > 0 and " " not in tokens.text[start - 1 : start + 1])
        return found


class Entity(TypedDict, closed=True):
    """An entity and its place in the text, in characters; the end is exclusive."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class LabelledToken(TypedDict, closed=True):
    """A token with a label, without aggregation.

    Attributes:
        index: Its place among the tokens, special ones included.
    """

    entity: str
    score: float
    index: int
    word: str
    start: int
    end: int


class TokenClassification(Task[TokenHead, TokenParameters]):
    """Entities with their places: ``[{"entity_group", "score", "word", "start", "end"}, ...]``.

    ``start`` and ``end`` count characters of the text. Without aggregation, each token is
    ``{"entity", "score", "index", "word", "start", "end"}``.
    """

    name = "token-classification"
    head_type = TokenHead
    parameters_type = TokenParameters
    model_class = "AutoModelForTokenClassification"
    agreement = Structure()
    result_type = list[Entity] | list[LabelledToken]
    needs_offsets = True
    shares_pass = True

    _wording: Wording

    def __init__(self, head: TokenHead, *, precision: str) -> None:
        """Keep what results depend on; see ``Task``."""
        super().__init__(head, precision=precision)
        self._tags = tags_of(head.labels, head.scheme)

    @classmethod
    def open(cls, artifact: Artifact, tokenizer: TextTokenizer, *, precision: str) -> Self:
        """Return the task with the decoder of the tokeniser; see ``Task``."""
        task = super().open(artifact, tokenizer, precision=precision)
        task._wording = Wording(tokenizer.backend, task.head.unk_token_id)
        return task

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Take the labels of the configuration and detect their scheme; see ``Task``."""
        labels = labels_of(source)
        own = {
            "labels": labels,
            "scheme": scheme_of(labels),
            "unk_token_id": source.tokenizer.unk_token_id,
        }
        return ImportedHead(TokenHead.model_validate({**own, **source.settings}))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits (B, T, C); see ``Task``."""
        from serve.module import headed

        classes = len(artifact.card.labels)
        return headed(artifact, cls.model_class, lambda output: output.logits, classes=classes)

    def predictions(
        self, computed: Sequence[Computed], parameters: TokenParameters
    ) -> list[Prediction | Failure]:
        """Return the entities of each text in their order; see ``Task``."""
        ignored = frozenset(parameters.ignore_labels)
        found: list[Prediction | Failure] = []
        for record in computed:
            tokens = tokens_of(record.passages[0].text, record.windows[0])
            if parameters.aggregation_strategy == "none":
                result: list[Entity] | list[LabelledToken] = self._labelled(tokens, ignored)
            else:
                result = self._entities(tokens, ignored, parameters.aggregation_strategy)
            found.append(Prediction(orjson.dumps(result)))
        return found

    def _labelled(self, tokens: Tokens, ignored: AbstractSet[str]) -> list[LabelledToken]:
        """Return every token whose label is not ignored."""
        return [
            {
                "entity": self.head.labels[span.label],
                "score": round(span.score, self.decimals),
                "index": tokens.first + span.first,
                "word": self._wording.of_token(tokens, span.first),
                "start": tokens.offsets[span.first][0],
                "end": tokens.offsets[span.first][1],
            }
            for span in token_spans(tokens.scores)
            if self.head.labels[span.label] not in ignored
        ]

    def _entities(
        self, tokens: Tokens, ignored: AbstractSet[str], strategy: Literal["simple"] | WordStrategy
    ) -> list[Entity]:
        """Return every entity whose kind is not ignored."""
        wording = self._wording
        if strategy == "simple":
            spans = token_spans(tokens.scores)
        else:
            spans = word_spans(tokens.scores, wording.inside(tokens), strategy)
        found: list[Entity] = []
        for group in entity_groups(spans, self._tags):
            kind = self.head.labels[group[0].label].split("-", 1)[-1]
            if kind in ignored:
                continue
            if strategy == "simple":
                parts = [wording.of_token(tokens, span.first) for span in group]
            else:
                parts = [wording.of_word(tokens, span) for span in group]
            score = fmean(span.score for span in group)
            found.append(
                {
                    "entity_group": kind,
                    "score": round(score, self.decimals),
                    "word": wording.joined(parts),
                    "start": tokens.offsets[group[0].first][0],
                    "end": tokens.offsets[group[-1].stop - 1][1],
                }
            )
        return found
