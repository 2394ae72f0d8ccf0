from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from serve.artifact import TOKENIZER_FILE, Artifact, Tokenizing
from serve.contract import Failure, FailureKind
from serve.sources import locate
from serve.task import Division, Encoded, Passage, Truncation
from serve.tokenize import MAX_WINDOWS, TextTokenizer
from tests.serve.tiny import TEXTS

PACKAGED = locate(None)
MEGABYTE = 1_000_000


def packaged_tokenizer(max_length: int, **settings: Any) -> TextTokenizer:
    return TextTokenizer(
        Tokenizer.from_file(str(PACKAGED / TOKENIZER_FILE)),
        max_length=max_length,
        pad_id=0,
        settings=Tokenizing(**settings),
    )


SHORT = packaged_tokenizer(8)
WHOLE = packaged_tokenizer(1 << 20)


@pytest.mark.model
def test_ids_are_those_of_transformers(minilm: Artifact) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(PACKAGED)
    found = TextTokenizer.of(minilm).encode(TEXTS)

    wanted = peer(TEXTS, truncation=True, max_length=256).input_ids
    assert [item.ids.tolist() for item in found] == wanted
    assert {item.ids.dtype for item in found} == {np.dtype(np.int32)}
    assert not any(item.truncated for item in found)


@pytest.mark.parametrize(("words", "truncated"), [(5, False), (6, False), (7, True), (500, True)])
def test_only_texts_that_lose_tokens_are_flagged(words: int, truncated: bool) -> None:
    item = SHORT.encode(["word " * words])[0]

    assert len(item.ids) == min(words + 2, 8)
    assert item.truncated is truncated


# Long enough that most texts are cut in characters first; any alphabet, and long blanks.
PIECES = st.text(max_size=12) | st.sampled_from(["word ", " " * 300, "\n", "\0", "漢字", "x" * 150])


@given(st.lists(st.lists(PIECES, max_size=40).map("".join), max_size=4))
def test_cutting_characters_first_never_changes_the_tokens(texts: list[str]) -> None:
    for short, whole in zip(SHORT.encode(texts), WHOLE.encode(texts), strict=True):
        fits = len(whole.ids) <= 8
        assert short.truncated is not fits
        ids = whole.ids.tolist()
        assert short.ids.tolist() == (ids if fits else [*ids[:7], ids[-1]])


def test_no_word_is_cut_in_the_middle() -> None:
    # The first 128 characters, which a model of 8 tokens is tried with, end within "wonderful".
    text = "a b c d e" + " " * 115 + "wonderful " + "day " * 100
    item = SHORT.encode([text])[0]

    assert item.ids.tolist() == SHORT.encode(["a b c d e wonderful"])[0].ids.tolist()
    assert item.truncated


def test_text_behind_a_long_blank_is_found() -> None:
    for blanks in (1_000, 100_000):
        item = SHORT.encode(["one" + " " * blanks + "two"])[0]
        assert item.ids.tolist() == SHORT.encode(["one two"])[0].ids.tolist()


@pytest.mark.timeout(20)
def test_a_long_word_behind_an_early_blank_comes_to_an_end() -> None:
    # However much of it is tried, the last blank is the one behind the first word.
    item = SHORT.encode(["one\n" + "x" * 10_000])[0]
    assert item.ids.tolist() == SHORT.encode(["one [UNK]"])[0].ids.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["word ", "a", " ", "\0", "漢", "!"])
def test_a_megabyte_takes_seconds_at_most(piece: str) -> None:
    start = time.perf_counter()
    item = packaged_tokenizer(256).encode([piece * (MEGABYTE // len(piece.encode()))])[0]

    assert len(item.ids) <= 256
    assert time.perf_counter() - start < 10


def test_nothing_gives_nothing() -> None:
    assert SHORT.encode([]) == []


TYPED = packaged_tokenizer(9, token_types=True)
SECONDS = Division(truncation="only_second")
WINDOWS = Division(windows=True, stride=1)


@pytest.fixture(scope="module")
def peer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(PACKAGED)


def windows_of(tokenizer: TextTokenizer, passage: Passage, division: Division) -> list[Encoded]:
    (windows,) = tokenizer.divide([passage], division)
    assert not isinstance(windows, Failure)
    return windows


def words(tokenizer: TextTokenizer, encoded: Encoded) -> str:
    return " ".join(tokenizer.backend.id_to_token(number) or "" for number in encoded.ids.tolist())


# As a first text, a pair, or both: far longer than the model's limit, with few or many tokens.
HALVES = (
    "fine",
    "the screen is good and the battery is bad",
    "word " * 100,
    "one" + " " * 5_000 + "two three" + " " * 40_000 + "four five six seven eight nine ten " * 3,
    "x" * 3_000,
    " " * 3_000 + "end of it",
    "漢字" * 200,
    "a b " * 61 + " " * 2_000 + "c " * 100,
)


@pytest.mark.model
@pytest.mark.parametrize("max_length", [8, 9, 64])
def test_pairs_are_those_of_transformers(peer: Any, max_length: int) -> None:
    tokenizer = packaged_tokenizer(max_length, token_types=True)
    pairs = [Passage(first, second) for first in HALVES for second in HALVES]
    for passage, windows in zip(pairs, tokenizer.divide(pairs), strict=True):
        wanted = peer(*passage, truncation=True, max_length=max_length)
        assert not isinstance(windows, Failure)
        (only,) = windows
        assert only.ids.tolist() == wanted["input_ids"]
        assert only.types is not None
        assert only.types.tolist() == wanted["token_type_ids"]
        assert only.truncated is (len(peer(*passage).input_ids) > max_length)


@given(
    st.lists(PIECES, max_size=30).map("".join),
    st.lists(PIECES, max_size=30).map("".join),
    st.sampled_from([8, 9]),
)
def test_cutting_characters_of_pairs_first_never_changes_the_tokens(
    first: str, second: str, max_length: int
) -> None:
    # The library's own truncation of the whole texts.
    tokenizer = {8: SHORT, 9: TYPED}[max_length]
    (windows,) = tokenizer.divide([Passage(first, second)])
    assert not isinstance(windows, Failure)
    assert windows[0].ids.tolist() == tokenizer.backend.encode(first, second).ids


def test_types_are_only_of_models_that_have_them() -> None:
    pair, single = Passage("a b", "c"), Passage("a")
    (with_types,) = windows_of(TYPED, pair, Division())
    assert with_types.types is not None
    assert with_types.types.tolist() == [0, 0, 0, 0, 1, 1]
    assert with_types.types.dtype == np.int32
    (of_one,) = windows_of(TYPED, single, Division())
    assert of_one.types is not None
    assert of_one.types.tolist() == [0, 0, 0]
    assert windows_of(SHORT, pair, Division())[0].types is None


def test_only_the_second_text_is_cut() -> None:
    long = "day " * 300
    (cut,) = windows_of(SHORT, Passage("a b", long), SECONDS)
    assert words(SHORT, cut) == "[CLS] a b [SEP] day day day [SEP]"
    assert cut.truncated
    (cut,) = windows_of(SHORT, Passage(long, "a b"), Division(truncation="only_first"))
    assert words(SHORT, cut) == "[CLS] day day day [SEP] a b [SEP]"


def test_text_that_leaves_no_token_for_the_other_fails_alone() -> None:
    long = Passage("a b c d e f", "day " * 300)
    neighbours = [Passage("a b", "day " * 300), Passage("c", "d")]
    first, failure, last = SHORT.divide([neighbours[0], long, neighbours[1]], SECONDS)

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TOO_LONG
    assert "limit of 8 tokens for both" in failure.message
    for found, passage in ((first, neighbours[0]), (last, neighbours[1])):
        assert not isinstance(found, Failure)
        (alone,) = windows_of(SHORT, passage, SECONDS)
        assert found[0].ids.tolist() == alone.ids.tolist()
    assert SHORT.divide([long], SECONDS) == [failure]


def content(encoded: Encoded) -> list[int]:
    ids: list[int] = encoded.ids.tolist()
    return ids[1:-1]


@given(st.integers(0, 100), st.integers(0, 3))
def test_windows_contain_every_token_and_share_the_stride(number: int, stride: int) -> None:
    text = " ".join(str(n) for n in range(number))
    (whole,) = WHOLE.encode([text])
    # 8 tokens are 2 special ones and 6 of the text, of which at most 5 // 4 may be shared.
    stride = min(stride, 1)
    windows = windows_of(SHORT, Passage(text), Division(windows=True, stride=stride))

    found = content(windows[0])
    for window in windows[1:]:
        assert found[len(found) - stride :] == content(window)[:stride]
        found += content(window)[stride:]
    assert found == content(whole)
    assert {len(window.ids) for window in windows[:-1]} <= {8}
    assert not any(window.truncated for window in windows)


@pytest.mark.parametrize("stride", [0, 7, 64, 1_000])
@pytest.mark.parametrize("max_length", [3, 4, 5, 8, 64])
def test_any_stride_is_reduced_until_windows_advance(max_length: int, stride: int) -> None:
    tokenizer = packaged_tokenizer(max_length)
    windows = windows_of(tokenizer, Passage("word " * 100), Division(windows=True, stride=stride))

    assert len(windows) <= 100
    assert all(len(window.ids) <= max_length for window in windows)
    assert sum(len(content(window)) for window in windows) >= 100


def test_windows_of_a_text_that_is_cut_on_the_left_stand_in_its_order() -> None:
    tokenizer = packaged_tokenizer(6, truncation_side="left")
    (cut,) = windows_of(tokenizer, Passage("a b c d e f g h i"), Division())
    assert words(tokenizer, cut) == "[CLS] f g h i [SEP]"
    windows = windows_of(tokenizer, Passage("a b c d e f g h i"), Division(windows=True))
    assert [words(tokenizer, one) for one in windows] == [
        "[CLS] a [SEP]",
        "[CLS] b c d e [SEP]",
        "[CLS] f g h i [SEP]",
    ]


def test_short_text_is_one_window_with_the_same_tokens() -> None:
    windowed = SHORT.divide([Passage(text) for text in ("fine", "a b c d e f", "")], WINDOWS)
    cut = SHORT.encode(["fine", "a b c d e f", ""])
    for windows, one in zip(windowed, cut, strict=True):
        assert not isinstance(windows, Failure)
        assert [window.ids.tolist() for window in windows] == [one.ids.tolist()]


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
def test_windows_of_pairs_contain_every_token_of_both(truncation: Truncation) -> None:
    long, short = " ".join(map(str, range(10, 40))), "a b"
    passage = Passage(long, short) if truncation == "only_first" else Passage(short, long)
    tokenizer = packaged_tokenizer(16, token_types=True)
    windows = windows_of(
        tokenizer, passage, Division(windows=True, stride=2, truncation=truncation)
    )

    assert len(windows) > 2
    of_long = 0 if truncation == "only_first" else 1
    found: list[int] = []
    for window in windows:
        assert window.types is not None
        assert len(window.ids) <= 16
        ids, types = window.ids.tolist()[1:], window.types.tolist()[1:]
        parts: tuple[list[int], list[int]] = ([], [])
        for number, kind in zip(ids, types, strict=True):
            parts[kind].append(number)
        assert tokenizer.backend.decode(parts[1 - of_long]) == "a b"
        mine = parts[of_long][:-1]  # without [SEP]
        assert not found or found[-2:] == mine[:2]
        found += mine[2:] if found else mine
    assert tokenizer.backend.decode(found) == long


def test_two_long_texts_of_a_pair_meet_in_windows() -> None:
    windows = windows_of(SHORT, Passage("a b c d", "w x y z"), Division(windows=True, stride=0))
    assert sorted(words(SHORT, window) for window in windows) == [
        "[CLS] a b [SEP] w x y [SEP]",
        "[CLS] a b [SEP] z [SEP]",
        "[CLS] c d [SEP] w x y [SEP]",
        "[CLS] c d [SEP] z [SEP]",
    ]


def test_question_that_leaves_less_than_the_stride_has_windows_that_share_nothing() -> None:
    question, context = "a b c d e f g h i j", " ".join(map(str, range(10, 30)))
    division = Division(windows=True, stride=6, truncation="only_second")
    passages = [Passage("a", context), Passage(question, context), Passage(question, "10")]
    tokenizer = packaged_tokenizer(16)
    usual, tight, fits = tokenizer.divide(passages, division)

    assert not isinstance(usual, Failure)
    assert not isinstance(tight, Failure)
    assert not isinstance(fits, Failure)
    assert words(tokenizer, usual[1]).startswith("[CLS] a [SEP] 16 17")
    assert [words(tokenizer, window).split("[SEP]")[1] for window in tight[:2]] == [
        " 10 11 12 ",
        " 13 14 15 ",
    ]
    assert len(tight) == 7
    assert [words(tokenizer, window) for window in fits] == [f"[CLS] {question} [SEP] 10 [SEP]"]


def test_too_many_windows_fail_their_text_alone() -> None:
    most, more = "word " * (MAX_WINDOWS * 5 + 1), "word " * (MAX_WINDOWS * 5 + 2)
    full, failure, short = SHORT.divide([Passage(most), Passage(more), Passage("fine")], WINDOWS)

    assert len(full) == MAX_WINDOWS
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TOO_LONG
    assert f"{MAX_WINDOWS + 1} windows of 8 tokens" in failure.message
    assert not isinstance(short, Failure)
    # Cut instead, it has an answer.
    assert SHORT.encode([more])[0].truncated


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["漢字", "word "])
@pytest.mark.parametrize("side", ["right", "left"])
def test_two_long_texts_do_not_fill_the_memory(piece: str, side: str) -> None:
    tokenizer = packaged_tokenizer(64, truncation_side=side)
    less, more = piece * 20_000, "x " + piece * 20_000
    cut, windowed = Division(), Division(windows=True)
    for long, first, division in (
        (Passage(less, more), 30, cut),
        (Passage(more, less), 31, cut),
        (Passage(less, more), 0, windowed),
    ):
        windows, short = tokenizer.divide([long, Passage("fine", "day")], division)
        assert not isinstance(short, Failure)
        if side == "right" and division is cut:
            assert not isinstance(windows, Failure)
            assert (len(windows[0].ids), windows[0].truncated) == (64, True)
            assert windows[0].ids.tolist().index(102) == 1 + first
        else:
            assert isinstance(windows, Failure)
            assert windows.kind is FailureKind.TOO_LONG
            assert "at most 256 are computed" in windows.message


@pytest.mark.parametrize("truncation", ["only_first", "only_second"])
def test_windows_with_few_tokens_are_counted_before_they_are_made(truncation: Truncation) -> None:
    tokenizer = packaged_tokenizer(256)
    texts = ["word " * 252, "day " * 100_000]
    if truncation == "only_first":
        texts.reverse()
    start = time.perf_counter()
    # As many windows of 256 tokens as the text has tokens would fill 8 GB.
    (failure,) = tokenizer.divide([Passage(*texts)], Division(windows=True, truncation=truncation))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TOO_LONG
    assert "100000 windows of 256 tokens" in failure.message
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("context", "windows"), [(MAX_WINDOWS, MAX_WINDOWS), (257, None)])
def test_most_windows_of_a_text_beside_another_are_computed(
    context: int, windows: int | None
) -> None:
    passage = Passage("a b c d", "day " * context)
    (found,) = SHORT.divide([passage], Division(windows=True, truncation="only_second"))
    assert (None if isinstance(found, Failure) else len(found)) == windows


def test_text_of_many_pairs_is_tokenised_once() -> None:
    tokenizer = packaged_tokenizer(64)
    passages = [Passage("day " * (MEGABYTE // 4), f"label {n}") for n in range(100)]
    start = time.perf_counter()
    found = tokenizer.divide(passages, Division(truncation="only_first"))

    assert not any(isinstance(windows, Failure) for windows in found)
    assert time.perf_counter() - start < 20


def test_length_of_windows_may_be_set_below_the_model_limit() -> None:
    windows = windows_of(WHOLE, Passage("a b c d e f"), Division(windows=True, max_length=5))
    assert [words(WHOLE, window) for window in windows] == [
        "[CLS] a b c [SEP]",
        "[CLS] d e f [SEP]",
    ]
    (cut,) = windows_of(WHOLE, Passage("word " * 300), Division(max_length=5))
    assert (len(cut.ids), cut.truncated) == (5, True)
    (cut,) = windows_of(SHORT, Passage("word " * 300), Division(max_length=50))
    assert len(cut.ids) == 8


def test_offsets_are_kept_where_they_are_needed() -> None:
    text = "Ein Größenwahn 😀 ok"
    (encoded,) = windows_of(WHOLE, Passage(text), Division(offsets=True))
    assert encoded.encoding is not None
    spans = [text[start:stop] for start, stop in encoded.encoding.offsets[1:-1]]
    assert "".join(spans) == "".join(text.split())
    assert windows_of(WHOLE, Passage(text), Division())[0].encoding is None
