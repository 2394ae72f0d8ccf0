from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from serve.artifact import TOKENIZER_FILE
from serve.entities import (
    Tokens,
    TokenSpan,
    entity_groups,
    scheme_of,
    tags_of,
    token_spans,
    tokens_of,
    word_spans,
)
from serve.sources import locate
from serve.task import Encoded, Window

TOKENIZER = Tokenizer.from_file(str(locate(None) / TOKENIZER_FILE))
TOKENIZER.no_padding()
# Rows are tokens, columns are labels.
SCORES = np.array(
    [[0.5, 0.45, 0.05], [0.1, 0.35, 0.55], [0.3, 0.5, 0.2], [0.2, 0.7, 0.1]], dtype=np.float32
)


def groups_of(labels: Sequence[str], scheme: str, sequence: str) -> list[str]:
    """Group tokens with the labels of a sequence; each group as its labels with blanks."""
    spans = [TokenSpan(n, n + 1, labels.index(one), 1.0) for n, one in enumerate(sequence.split())]
    groups = entity_groups(spans, tags_of(labels, scheme))
    return [" ".join(labels[span.label] for span in group) for group in groups]


BIOES = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC") for prefix in "BIES")]
BILOU = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC") for prefix in "BILU")]


@pytest.mark.parametrize(
    ("sequence", "groups"),
    [
        ("B-PER I-PER E-PER O", ["B-PER I-PER E-PER", "O"]),
        ("S-PER S-PER", ["S-PER", "S-PER"]),
        ("B-PER E-PER I-PER", ["B-PER E-PER", "I-PER"]),
        ("E-PER E-PER", ["E-PER", "E-PER"]),
        ("I-PER S-PER I-PER", ["I-PER", "S-PER", "I-PER"]),
        ("B-PER B-PER E-PER", ["B-PER", "B-PER E-PER"]),
        ("B-PER I-LOC E-LOC S-LOC O O", ["B-PER", "I-LOC E-LOC", "S-LOC", "O O"]),
    ],
)
def test_ends_and_singles_bound_entities(sequence: str, groups: list[str]) -> None:
    assert groups_of(BIOES, "bioes", sequence) == groups
    other = sequence.replace("E-", "L-").replace("S-", "U-")
    written = [group.replace("E-", "L-").replace("S-", "U-") for group in groups]
    assert groups_of(BILOU, "bioes", other) == written


def test_only_a_beginning_divides_neighbours_of_a_kind() -> None:
    labels = ["O", "B-PER", "I-PER", "PER", "B-LOC"]
    sequence = "B-PER I-PER PER B-PER B-PER I-PER B-LOC PER O O I-PER"

    assert groups_of(labels, "bio", sequence) == [
        "B-PER I-PER PER",
        "B-PER",
        "B-PER I-PER",
        "B-LOC",
        "PER",
        "O O",
        "I-PER",
    ]
    assert groups_of(labels, "io", sequence) == [
        "B-PER I-PER PER B-PER B-PER I-PER",
        "B-LOC",
        "PER",
        "O O",
        "I-PER",
    ]


def test_other_prefixes_are_part_of_the_kind() -> None:
    labels = ["part-PER", "E-PER", "I-PER"]

    assert groups_of(labels, "bio", "part-PER I-PER E-PER E-PER") == [
        "part-PER",
        "I-PER",
        "E-PER E-PER",
    ]


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (["O", "B-PER", "I-PER"], "bio"),
        (["O", "B-PER"], "bio"),
        (["O", "PER", "LOC"], "io"),
        (["O", "I-PER", "I-LOC"], "io"),
        (BIOES, "bioes"),
        (BILOU, "bioes"),
        (["O", "B-PER", "I-PER", "S-PER"], "bioes"),
        (["O", "U-turn", "S-bend"], "io"),
        (["O", "B-PER", "I-PER", "E-mail"], "bio"),
    ],
)
def test_scheme_is_seen_from_the_labels(labels: list[str], scheme: str) -> None:
    assert scheme_of(labels) == scheme


def test_every_token_is_a_span_of_its_best_label() -> None:
    found = token_spans(SCORES)

    assert [(span.first, span.stop, span.label) for span in found] == [
        (0, 1, 0),
        (1, 2, 2),
        (2, 3, 1),
        (3, 4, 1),
    ]
    assert [span.score for span in found] == pytest.approx([0.5, 0.55, 0.5, 0.7])


@pytest.mark.parametrize(
    ("strategy", "label", "score"), [("first", 0, 0.5), ("average", 1, 0.4), ("max", 2, 0.55)]
)
def test_word_gets_one_label_for_all_of_its_tokens(strategy: str, label: int, score: float) -> None:
    word, last = word_spans(SCORES, [True, True, False, True], strategy)

    assert (word.first, word.stop, word.label) == (0, 2, label)
    assert word.score == pytest.approx(score)
    assert (last.first, last.stop, last.label) == (2, 4, 1)


def test_no_tokens_have_no_spans() -> None:
    none = np.empty((0, 3), dtype=np.float32)

    assert token_spans(none) == word_spans(none, [], "first") == []
    assert entity_groups([], tags_of(["O"], "io")) == []


def divided(
    text: str,
    limit: int | None,
    stride: int = 0,
    *,
    side: str = "right",
    tokenizer: Tokenizer = TOKENIZER,
) -> list[Window]:
    """Windows of a text; the logits of a token are its window's number and its place there."""
    tokenizer.no_truncation()
    if limit is not None:
        tokenizer.enable_truncation(limit, stride=stride, direction=side)
    first = tokenizer.encode(text)
    encodings = [first, *first.overflowing]
    if side == "left":
        encodings.reverse()  # as TextTokenizer does
    return [
        Window(
            Encoded(np.array(one.ids, dtype=np.int32), encoding=one),
            (np.stack([np.full(len(one), number), np.arange(len(one))], axis=1) / np.float32(10),),
        )
        for number, one in enumerate(encodings)
    ]


def windows_of_tokens(tokens: Tokens) -> list[int]:
    """Return for each token the number of its window less its place there."""
    # The softmax keeps the difference of the two logits.
    differences = np.log(tokens.scores[:, 0]) - np.log(tokens.scores[:, 1])
    return [round(float(one) * 10) for one in differences]


@given(
    st.lists(st.sampled_from(["fine ", "unbelievable", "漢字", "😀", "e\u0301", "a a a ", ". "])),
    st.integers(4, 9),
    st.integers(0, 4),
    st.sampled_from(["left", "right"]),
)
def test_windows_have_every_token_once(
    parts: list[str], limit: int, stride: int, side: str
) -> None:
    text = "".join(parts)
    whole = tokens_of(text, divided(text, None))
    found = tokens_of(text, divided(text, limit, min(stride, limit - 3), side=side))

    assert found[:3] == whole[:3]
    assert found.first == whole.first == (1 if parts else 0)
    assert len(found.scores) == len(found.ids)


def test_windows_may_divide_a_character_of_equal_tokens() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    of_bytes = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "\U00010410abc"  # its bytes are f0 90 90 90
    whole = tokens_of(text, divided(text, None, tokenizer=of_bytes))
    found = tokens_of(text, divided(text, 5, 3, tokenizer=of_bytes))

    assert len(whole.ids) == 7
    assert len(set(whole.ids[1:4])) == 1
    assert found[:3] == whole[:3]


def test_token_is_taken_from_the_window_with_most_context() -> None:
    # [CLS] a b c d e f [SEP], then [CLS] c d e f g h [SEP], then [CLS] e f g h i [SEP]
    found = tokens_of("a b c d e f g h i", divided("a b c d e f g h i", 8, 4))

    assert windows_of_tokens(found) == [-1, -2, -3, -4, 1 - 3, 1 - 4, 2 - 3, 2 - 4, 2 - 5]
