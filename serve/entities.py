"""Entities in a text: windows joined to one sequence of tokens, then words and entities grouped.

Pure; without a tokeniser. C classes, T tokens of a window, N tokens of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.scores import softmax
from serve.task import Window
from serve.windows import own_tokens, shared_tokens

Scheme = Literal["bio", "bioes", "io"]
WordStrategy = Literal["first", "average", "max"]

BEGINNING = frozenset("BSU")
ENDING = frozenset("ELSU")
# An end or a single token, in the two ways of writing both.
OF_BIOES = frozenset("ELSU")


class Tokens(NamedTuple):
    """The tokens of a text, without special ones.

    Attributes:
        text: The text itself.
        ids: Token ids; shape (N,).
        offsets: First character of each and the one after its last; shape (N, 2).
        scores: Score of each label, which add up to 1; float32, shape (N, C).
        first: Position of the first token in the model's input, after its special tokens.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    scores: NDArray[np.float32]
    first: int


class TokenSpan(NamedTuple):
    """Neighbouring tokens that got a label together: a token or a word.

    Attributes:
        first: Number of the first token.
        stop: Number of the token after the last.
        label: Number of the label.
        score: Score of the label, 0..1.
    """

    first: int
    stop: int
    label: int
    score: float


class Tag(NamedTuple):
    """How a label takes part in entities.

    Attributes:
        kind: Kind of the entity, such as ``PER`` for ``B-PER``.
        begins: Whether an entity always begins here.
        ends: Whether an entity always ends here.
    """

    kind: str
    begins: bool
    ends: bool


class _Part(NamedTuple):
    """A window without special tokens.

    Attributes:
        rows: Id, first character and the one after the last of each token; shape (T, 3).
        logits: Shape (T, C).
        first: Position of the first token in the model's input.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    first: int


def tokens_of(text: str, windows: Sequence[Window]) -> Tokens:
    """Return all tokens of a text, each once, from the window in which it has most context.

    Args:
        windows: Windows of the text, in its order; with encodings, and with logits as first output.
    """
    parts = [_without_special(window) for window in windows]
    starts = [0]
    for before, after in pairwise(parts):
        starts.append(starts[-1] + len(before.rows) - shared_tokens(before.rows, after.rows))
    rows, logits = _joined(parts, starts)
    return Tokens(
        text=text,
        ids=rows[:, 0].tolist(),
        offsets=[(start, end) for start, end in rows[:, 1:].tolist()],
        # In float32, sure scores are equal, and the first of them counts, as in the pipeline.
        scores=softmax(logits.astype(np.float64)).astype(np.float32),
        first=parts[0].first,
    )


def token_spans(scores: NDArray[np.float32]) -> list[TokenSpan]:
    """Return one span for each token, with its best label; shape (N, C) to (N,)."""
    labels = scores.argmax(axis=1).tolist()
    best = scores.max(axis=1).tolist()
    return [
        TokenSpan(place, place + 1, label, score)
        for place, (label, score) in enumerate(zip(labels, best, strict=True))
    ]


def word_spans(
    scores: NDArray[np.float32], inside: Sequence[bool], strategy: WordStrategy
) -> list[TokenSpan]:
    """Return one span for each word, with one label for all of its tokens.

    Args:
        scores: Scores of the tokens, shape (N, C).
        inside: Whether a token continues the word before it; shape (N,).
        strategy: Scores of a word: those of its ``first`` token, of the token with the highest
            score (``max``), or the ``average`` of all.
    """
    starts = [place for place, continues in enumerate(inside) if not continues or place == 0]
    spans: list[TokenSpan] = []
    for first, stop in pairwise([*starts, len(scores)]):
        of_word = _word_scores(scores[first:stop], strategy)  # (C,)
        label = int(of_word.argmax())
        spans.append(TokenSpan(first, stop, label, float(of_word[label])))
    return spans


def entity_groups(spans: Sequence[TokenSpan], tags: Sequence[Tag]) -> list[list[TokenSpan]]:
    """Return the spans of each entity; spans that stand outside are grouped, too.

    Args:
        spans: Spans of a text, in their order.
        tags: Tag of each label, shape (C,).
    """
    groups: list[list[TokenSpan]] = []
    last: Tag | None = None
    for span in spans:
        tag = tags[span.label]
        if last is None or tag.begins or last.ends or tag.kind != last.kind:
            groups.append([])
        groups[-1].append(span)
        last = tag
    return groups


def tags_of(labels: Sequence[str], scheme: Scheme) -> list[Tag]:
    """Return the tag of each label, shape (C,)."""
    known = {"bio": "BI", "io": "BI", "bioes": "BIELSU"}[scheme]
    tags: list[Tag] = []
    for label in labels:
        prefix, kind = _divided(label)
        if prefix not in known:
            prefix, kind = "", label
        begins = prefix in BEGINNING and scheme != "io"
        tags.append(Tag(kind, begins, ends=prefix in ENDING))
    return tags


def scheme_of(labels: Sequence[str]) -> Scheme:
    """Return the scheme that labels are written in.

    An ``E-``, ``L-``, ``S-`` or ``U-`` counts where the same kind also has a ``B-`` or ``I-``: it
    may be the beginning of a name.
    """
    divided = [_divided(label) for label in labels]
    inner = {kind for prefix, kind in divided if prefix in ("B", "I")}
    if any(prefix in OF_BIOES and kind in inner for prefix, kind in divided):
        return "bioes"
    return "bio" if any(prefix == "B" for prefix, _ in divided) else "io"


def _divided(label: str) -> tuple[str, str]:
    """Return prefix and kind of a label; an empty prefix where it has none."""
    prefix, hyphen, kind = label.partition("-")
    return (prefix, kind) if hyphen else ("", label)


def _without_special(window: Window) -> _Part:
    places, rows = own_tokens(window)
    return _Part(rows, window.outputs[0][places], int(places[0]) if len(places) else 0)


def _joined(
    parts: Sequence[_Part], starts: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows (N, 3) and logits (N, C) of all parts, the first token of each at its start."""
    if len(parts) == 1:
        return parts[0].rows, parts[0].logits
    total = starts[-1] + len(parts[-1].rows)
    rows = np.empty((total, 3), dtype=np.int64)
    logits = np.empty((total, parts[0].logits.shape[1]), dtype=np.float32)
    most = np.full(total, -1)
    for part, start in zip(parts, starts, strict=True):
        length = len(part.rows)
        context = np.full(length, total)
        if start > 0:
            context = np.arange(length)
        if start + length < total:
            context = np.minimum(context, np.arange(length)[::-1])
        better = np.flatnonzero(context > most[start : start + length])
        most[start + better] = context[better]
        rows[start + better] = part.rows[better]
        logits[start + better] = part.logits[better]
    return rows, logits


def _word_scores(scores: NDArray[np.float32], strategy: WordStrategy) -> NDArray[np.float32]:
    """Return the scores of a word, shape (T, C) to (C,)."""
    match strategy:
        case "first":
            chosen: NDArray[np.float32] = scores[0]
        case "max":
            chosen = scores[scores.max(axis=1).argmax()]
        case "average":
            chosen = scores.mean(axis=0)
    return chosen
