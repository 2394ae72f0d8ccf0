"""Extractive question answering: a question and a context to the part of it that answers.

Follows transformers 4.57, the last version with this pipeline, with these differences: an answer in
several windows has its best score, unless ``window_merge`` is ``sum``; a word that two windows
divide is whole; an answer has no blanks around it; a question is never cut; and several answers are
always a list, without empty ones that no span stands for.

T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import orjson
from pydantic import Field
from typing_extensions import TypedDict

from serve.agreement import Structure
from serve.contract import Failure, FailureKind
from serve.errors import ArtifactError
from serve.scores import softmax
from serve.spans import best_spans
from serve.task import (
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
    Values,
    Window,
)

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

    from serve.artifact import Artifact
    from serve.tokenize import TextTokenizer

# The second text of a pair.
CONTEXT = 1
NO_QUESTION, NO_CONTEXT = (
    Failure(
        FailureKind.EMPTY_TEXT,
        f"the {name} has no tokens: the tokeniser drops all of its characters",
    )
    for name in ("question", "context")
)


class AnswerParameters(Parameters):
    """Parameters of question answering.

    Attributes:
        top_k: Maximum number of answers; with 1 the result is an answer, otherwise a list.
        doc_stride: Tokens that neighbouring windows of a context have in common; a window has at
            least twice as many, so that they are fewer with a small ``max_seq_len``.
        max_answer_len: Maximum length of an answer, in tokens.
        max_seq_len: Tokens of a window, question and special tokens included; at most the
            model's limit. Longer contexts are divided, whatever the pipeline's ``long_text``.
        max_question_len: Maximum length of a question, in tokens. A longer one has no answer, as
            that to a part of it would mislead.
        handle_impossible_answer: Whether that there is no answer competes with the answers.
        align_to_words: Whether an answer that begins or ends within a word has the whole word.
        window_merge: Score of an answer that several windows have: the ``max``, with its place;
            or the ``sum``, with the first place, as in transformers. A sum may exceed 1.
    """

    top_k: int = Field(default=1, ge=1)
    doc_stride: int = Field(default=128, ge=0)
    max_answer_len: int = Field(default=15, ge=1)
    max_seq_len: int = Field(default=384, ge=8)
    max_question_len: int = Field(default=64, ge=1)
    handle_impossible_answer: bool = False
    align_to_words: bool = True
    window_merge: Literal["max", "sum"] = "max"


class Span(NamedTuple):
    """Part of a context with its score; the end in characters is exclusive."""

    score: float
    start: int
    end: int


class TextAnswer(TypedDict, closed=True):
    """An answer and its place in the context, in characters; the end is exclusive."""

    score: float
    start: int
    end: int
    answer: str


class QuestionAnswering(Task[Head, AnswerParameters]):
    """``{"score", "start", "end", "answer"}``, or a list of them, best first.

    Places are in characters (Unicode code points) of the context. Equal texts, in upper or lower
    case, are one answer. That there is none is an answer with empty text, from 0 to 0.
    """

    name = "question-answering"
    inputs = (Input("question"), Input("context"))
    parameters_type = AnswerParameters
    model_class = "AutoModelForQuestionAnswering"
    agreement = Structure()
    result_type = TextAnswer | list[TextAnswer]
    reads_pairs = True
    truncation = "only_second"
    needs_offsets = True

    def __init__(
        self, head: Head, *, precision: str, tokenizer: TextTokenizer | None = None
    ) -> None:
        """Keep what results depend on; see ``Task``.

        Args:
            tokenizer: Measures questions; None where no record is read.
        """
        super().__init__(head, precision=precision)
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, artifact: Artifact, tokenizer: TextTokenizer, *, precision: str) -> Self:
        """Return the task with the tokeniser; see ``Task``."""
        return cls(artifact.card.head, precision=precision, tokenizer=tokenizer)

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Return a head without labels; see ``Task``."""
        if source.settings:
            raise ArtifactError(
                f"{source.directory}: {', '.join(source.settings)} was given, but a model for "
                f"{cls.name} has no such field; leave it out"
            )
        return ImportedHead(Head())

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return logits of the first and the last token of an answer (B, T, 2); see ``Task``."""
        import torch

        from serve.module import headed

        def starts_and_ends(output: Any) -> torch.Tensor:
            return torch.stack([output.start_logits, output.end_logits], dim=-1)

        return headed(artifact, cls.model_class, starts_and_ends)

    def passages(self, values: Values, parameters: AnswerParameters) -> list[Passage] | Failure:
        """Return the question with the context, unless it is too long; see ``Task``."""
        question, context = values
        assert isinstance(question, str)
        assert isinstance(context, str)
        return self._fault(question, parameters) or [Passage(question, context)]

    def division(
        self,
        *,
        windows: bool,  # noqa: ARG002
        stride: int,  # noqa: ARG002
        parameters: AnswerParameters,
    ) -> Division:
        """Divide every long context, as the pipeline of transformers does; see ``Task``."""
        return Division(
            windows=True,
            stride=parameters.doc_stride,
            truncation=self.truncation,
            offsets=True,
            max_length=parameters.max_seq_len,
        )

    def predictions(
        self, computed: Sequence[Computed], parameters: AnswerParameters
    ) -> list[Prediction | Failure]:
        """Return the best answers of each record; see ``Task``."""
        return [self._prediction(record, parameters) for record in computed]

    def _fault(self, question: str, parameters: AnswerParameters) -> Failure | None:
        """Return why a question cannot be asked."""
        assert self._tokenizer is not None  # a replica opens tasks with it
        backend, limit = self._tokenizer.backend, self._tokenizer.max_length
        (encoded,) = self._tokenizer.encode([question])
        tokens = len(encoded.ids) - backend.num_special_tokens_to_add(is_pair=False)
        if tokens <= 0:
            return NO_QUESTION
        found = f"the question has {'more than ' if encoded.truncated else ''}{tokens} tokens"
        if tokens > parameters.max_question_len:
            return Failure(
                FailureKind.TOO_LONG,
                f"{found}, but max_question_len allows {parameters.max_question_len}; shorten it, "
                "or raise max_question_len",
            )
        window = min(parameters.max_seq_len, limit)
        if tokens + backend.num_special_tokens_to_add(is_pair=True) < window:
            return None
        remedy = ", or raise max_seq_len" if window < limit else ""
        return Failure(
            FailureKind.TOO_LONG,
            f"{found}, which leaves none of the limit of {window} tokens for the context; shorten "
            f"it{remedy}",
        )

    def _prediction(self, record: Computed, parameters: AnswerParameters) -> Prediction | Failure:
        context = record.values[1]
        assert isinstance(context, str)
        (windows,) = record.windows
        encodings = [_encoding(window) for window in windows]
        if CONTEXT not in encodings[0].sequence_ids:
            return NO_CONTEXT
        words = _words(encodings) if parameters.align_to_words else {}
        best: dict[str, Span] = {}
        none = 1.0
        for window in windows:
            found, without = _answers(window, context, words=words, parameters=parameters)
            for text, span in found.items():
                best[text] = _merged(best[text], span, parameters) if text in best else span
            none = min(none, without)
        answers = [*best.values()]
        if parameters.handle_impossible_answer:
            answers.append(Span(none, 0, 0))
        answers.sort(key=lambda one: (-one.score, one.start, one.end))
        if not answers:  # for example of a context of only characters that are not shown
            return NO_CONTEXT
        rows = [self._row(span, context) for span in answers[: parameters.top_k]]
        result = orjson.dumps(rows[0] if parameters.top_k == 1 else rows)
        return Prediction(result, confidence=min(1.0, rows[0]["score"]))

    def _row(self, span: Span, context: str) -> TextAnswer:
        score, start, end = span
        return {
            "score": round(score, self.decimals),
            "start": start,
            "end": end,
            "answer": context[start:end],
        }


def _answers(
    window: Window,
    context: str,
    *,
    words: Mapping[int | None, tuple[int, int]],
    parameters: AnswerParameters,
) -> tuple[dict[str, Span], float]:
    """Return the likely answers of a window by text, and the score of having none.

    Args:
        words: Place of each word in characters; empty where answers are not aligned to words.
    """
    encoding = _encoding(window)
    sequences = encoding.sequence_ids
    first = sequences.index(CONTEXT)
    stop = first + sequences.count(CONTEXT)
    # The token before both texts, [CLS], has the score of no answer; some models have none.
    null = [0] if sequences[0] is None else []
    (logits,) = window.outputs  # (T, 2)
    scores = softmax(logits[[*null, *range(first, stop)]].T.astype(np.float64))
    starts, ends = scores[:, len(null) :]
    # Several spans become one when they are aligned to words.
    count = 2 * parameters.top_k + 10 if parameters.align_to_words else parameters.top_k
    answers: dict[str, Span] = {}
    for score, begin, last in best_spans(
        starts, ends, longest=parameters.max_answer_len, count=count
    ):
        start, end = _place(encoding, first + begin, last=first + last, words=words)
        text = context[start:end].strip()
        if not text:
            continue
        start = context.index(text, start)  # some tokens begin with a blank
        same = answers.get(text.lower(), Span(0.0, start, start + len(text)))
        answers[text.lower()] = same._replace(score=same.score + score)
    return answers, float(scores[:, 0].prod()) if null else 0.0


def _merged(known: Span, span: Span, parameters: AnswerParameters) -> Span:
    if parameters.window_merge == "sum":
        return known._replace(score=known.score + span.score)
    return max(known, span, key=lambda one: one.score)


def _place(
    encoding: Encoding, first: int, *, last: int, words: Mapping[int | None, tuple[int, int]]
) -> tuple[int, int]:
    """Return where tokens, or the words that they are parts of, begin and end in characters."""
    begin, end = encoding.token_to_word(first), encoding.token_to_word(last)
    if begin in words and end in words:
        return words[begin][0], words[end][1]
    return encoding.offsets[first][0], encoding.offsets[last][1]


def _words(encodings: Sequence[Encoding]) -> dict[int | None, tuple[int, int]]:
    """Return the place of each word of a context in characters; a window may have a part of it."""
    words: dict[int | None, tuple[int, int]] = {}
    for encoding in encodings:
        parts = zip(encoding.sequence_ids, encoding.word_ids, encoding.offsets, strict=True)
        for sequence, word, (start, end) in parts:
            if sequence != CONTEXT or word is None:
                continue
            known = words.get(word, (start, end))
            words[word] = min(known[0], start), max(known[1], end)
    return words


def _encoding(window: Window) -> Encoding:
    encoding = window.encoded.encoding
    assert encoding is not None  # the task needs offsets
    return encoding
