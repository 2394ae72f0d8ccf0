from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.sources import locate
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS

PACKAGED = locate(None)
MEGABYTE = 1_000_000


def packaged_tokenizer(max_length: int) -> TextTokenizer:
    file = str(PACKAGED / TOKENIZER_FILE)
    return TextTokenizer(Tokenizer.from_file(file), max_length=max_length, pad_id=0)


SHORT = packaged_tokenizer(8)
WHOLE = packaged_tokenizer(1 << 20)


@pytest.mark.model
def test_ids_are_those_of_transformers(minilm: Artifact) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(PACKAGED)
    found = TextTokenizer.of(minilm).encode(TEXTS)

    assert [item.ids for item in found] == peer(TEXTS, truncation=True, max_length=256).input_ids
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
        assert short.ids == (whole.ids if fits else [*whole.ids[:7], whole.ids[-1]])


def test_no_word_is_cut_in_the_middle() -> None:
    # The first 128 characters, which a model of 8 tokens is tried with, end within "wonderful".
    text = "a b c d e" + " " * 115 + "wonderful " + "day " * 100
    item = SHORT.encode([text])[0]

    assert item.ids == SHORT.encode(["a b c d e wonderful"])[0].ids
    assert item.truncated


def test_text_behind_a_long_blank_is_found() -> None:
    for blanks in (1_000, 100_000):
        item = SHORT.encode(["one" + " " * blanks + "two"])[0]
        assert item.ids == SHORT.encode(["one two"])[0].ids


@pytest.mark.timeout(20)
def test_a_long_word_behind_an_early_blank_comes_to_an_end() -> None:
    # However much of it is tried, the last blank is the one behind the first word.
    item = SHORT.encode(["one\n" + "x" * 10_000])[0]
    assert item.ids == SHORT.encode(["one [UNK]"])[0].ids


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["word ", "a", " ", "\0", "漢", "!"])
def test_a_megabyte_takes_seconds_at_most(piece: str) -> None:
    start = time.perf_counter()
    item = packaged_tokenizer(256).encode([piece * (MEGABYTE // len(piece.encode()))])[0]

    assert len(item.ids) <= 256
    assert time.perf_counter() - start < 10


def test_padding_goes_right_and_is_masked() -> None:
    batch = packaged_tokenizer(8).pad([[101, 7, 102], [101, 102]])

    assert batch.input_ids.tolist() == [[101, 7, 102], [101, 102, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


def test_padding_has_the_id_of_the_model() -> None:
    tokenizer = Tokenizer.from_file(str(PACKAGED / TOKENIZER_FILE))
    padded = TextTokenizer(tokenizer, max_length=8, pad_id=1).pad([[5, 6], [5]])

    assert padded.input_ids.tolist() == [[5, 6], [5, 1]]


def test_nothing_gives_nothing() -> None:
    assert SHORT.encode([]) == []
