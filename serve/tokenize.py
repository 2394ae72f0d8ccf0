"""Conversion of texts to token ids with the model's Rust tokeniser, whole, cut or in windows."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import orjson
from tokenizers import Encoding, Tokenizer

from serve.artifact import CONFIG_FILE, TOKENIZER_FILE, Artifact, Tokenizing
from serve.checkpoint import library, read_json
from serve.contract import Failure, FailureKind
from serve.task import Division, Encoded, Passage

# A text is first cut to this many characters per token of the model's limit. English has about
# 5; only texts that are mostly white space need a second round with more.
CHARACTERS_PER_TOKEN = 16
# A text of a megabyte would have more and block its replica for longer than a call may take.
MAX_WINDOWS = 256
# Part of the library's message where the text that is not cut leaves no token for the other.
TEXT_TOO_SHORT = "Truncation error"
# Pre-tokenisers after which no token spans a blank.
DIVIDES_AT_BLANKS = frozenset(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"))

CUT = Division()
Whole = Callable[[str], Encoding]
"""Returns the encoding of a text that is not cut; remembers those of one call."""


class TextTokenizer:
    """The tokeniser of one model; safe to call from several threads at once."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        pad_id: int,
        settings: Tokenizing | None = None,
    ) -> None:
        settings = settings or Tokenizing()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = settings.split_special_tokens
        self.max_length = max_length
        self.pad_id = pad_id
        self._settings = settings
        tokenizer.enable_truncation(max_length, direction=settings.truncation_side)
        self.backend = tokenizer
        self._tokenizers = {(max_length, CUT.truncation, CUT.stride): tokenizer}
        self._making = threading.Lock()
        self._may_cut = settings.truncation_side == "right" and _divides_at_blanks(tokenizer)

    @classmethod
    def of(cls, artifact: Artifact) -> TextTokenizer:
        """Load the tokeniser of a model directory.

        Raises:
            ArtifactError: Its file cannot be read. Not retriable.
        """
        file = artifact.path / TOKENIZER_FILE
        with library(file, "the tokeniser cannot be read; import the model again"):
            tokenizer = Tokenizer.from_file(str(file))
        config = read_json(artifact.path / CONFIG_FILE)
        card = artifact.card
        pad_id = config.get("pad_token_id") or 0
        return cls(tokenizer, max_length=card.max_length, pad_id=pad_id, settings=card.tokenizer)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise texts; long ones are cut. Shape (N,) to (N,)."""
        divided = self.divide([Passage(text) for text in texts])
        return [windows[0] for windows in divided if not isinstance(windows, Failure)]

    def divide(
        self, passages: Sequence[Passage], division: Division = CUT
    ) -> list[list[Encoded] | Failure]:
        """Tokenise passages, in one library call unless one is long and mostly white space.

        The work per text is bounded by the model's limit, unless its tokens may span blanks: a
        long text that will be cut is first cut before a blank, and a longer part is tried only if
        that part had too few tokens. Its first tokens are those of the whole text. A text of long
        pairs is first tokenised whole, once even where it is in several.

        Args:
            passages: Shape (N,); any characters.
        Returns:
            The windows of each passage, one where it fits or is cut; or why it has none: the text
            that is not cut leaves no token for the other, or there are too many windows.
        """
        limit = min(division.max_length or self.max_length, self.max_length)
        characters = limit * CHARACTERS_PER_TOKEN
        whole = cache(self._whole)
        parts = [self._part(passage, characters, division, whole=whole) for passage in passages]
        encodings = self._encoded_batch(parts, limit, division, whole=whole)
        divided = [self._divided(one, limit, division) for one in encodings]
        for index, passage in enumerate(passages):
            longer, part = characters, parts[index]
            while passage.pair is None and part != passage and not _is_cut(divided[index]):
                # Multiplies the limit, not the length of the part: the last blank may be at the
                # same position within four times as much, and the loop would never end.
                longer *= 4
                part = self._part(passage, longer, division, whole=whole)
                (again,) = self._encoded_batch([part], limit, division, whole=whole)
                divided[index] = self._divided(again, limit, division)
        return divided

    def _with(self, limit: int, division: Division) -> Tokenizer:
        """Return a tokeniser for the division; its settings belong to the object, not the call."""
        stride = self._stride(limit, division)
        key = (limit, division.truncation, stride)
        with self._making:
            if key not in self._tokenizers:
                made = Tokenizer.from_str(self.backend.to_str())
                made.encode_special_tokens = self._settings.split_special_tokens
                made.enable_truncation(
                    limit,
                    stride=stride,
                    strategy=division.truncation,
                    direction=self._settings.truncation_side,
                )
                self._tokenizers[key] = made
            return self._tokenizers[key]

    def _stride(self, limit: int, division: Division) -> int:
        """Return the tokens that two windows have in common, at most half of their tokens.

        The library panics where a text in a window has no more tokens than that, and each of two
        long texts may have only half of a window.
        """
        if not division.windows:
            return 0
        available = max(0, limit - self.backend.num_special_tokens_to_add(is_pair=True))
        share = 4 if division.truncation == "longest_first" else 2
        return min(division.stride, available // share)

    def _part(
        self, passage: Passage, characters: int, division: Division, *, whole: Whole
    ) -> Passage:
        """Return a passage without most of what would be cut anyway."""
        text, pair = passage
        if division.windows or max(len(text), len(pair or "")) <= characters:
            return passage
        if pair is not None:
            return self._part_of_pair(text, pair, whole=whole)
        return Passage(_cut(text, characters)) if self._may_cut else passage

    def _part_of_pair(self, text: str, pair: str, *, whole: Whole) -> Passage:
        """Return the beginnings of two texts that are cut to the same tokens as the texts.

        The library computes each part of one text with each part of the other: millions for two
        long ones. The text with more tokens may keep one token more, so its beginning has more.
        """
        if self._settings.truncation_side == "left":
            return Passage(text, pair)
        texts = [text, pair]
        encodings = [*map(whole, texts)]
        first_is_longer = len(encodings[0]) > len(encodings[1])
        beginnings = [
            _beginning(one, encoding, self.max_length * (3 if is_longer else 2))
            for one, encoding, is_longer in zip(
                texts, encodings, (first_is_longer, not first_is_longer), strict=True
            )
        ]
        again = [*map(whole, beginnings)]
        same = (len(again[0]) > len(again[1])) is first_is_longer and all(
            one.ids[: self.max_length] == other.ids[: self.max_length]
            for one, other in zip(encodings, again, strict=True)
        )
        return Passage(*(beginnings if same else texts))

    def _whole(self, text: str) -> Encoding:
        """Return the encoding of a text that is not cut, without special tokens."""
        return self._untruncated.encode(text, add_special_tokens=False)

    @cached_property
    def _untruncated(self) -> Tokenizer:
        made = Tokenizer.from_str(self.backend.to_str())
        made.encode_special_tokens = self._settings.split_special_tokens
        made.no_truncation()
        return made

    def _encoded_batch(
        self, passages: Sequence[Passage], limit: int, division: Division, *, whole: Whole
    ) -> list[Encoding | Failure]:
        """Return the encodings, or why a passage has none."""
        suited = [self._suited(passage, limit, division, whole=whole) for passage in passages]
        if all(one == division for one in suited):
            try:
                return self._encode(passages, limit, division)
            except Exception as exc:  # the library raises it bare
                if TEXT_TOO_SHORT not in str(exc):
                    raise
        encodings: list[Encoding | Failure] = []
        for passage, one in zip(passages, suited, strict=True):
            try:
                own = one if isinstance(one, Failure) else self._encode([passage], limit, one)[0]
            except Exception as exc:
                if TEXT_TOO_SHORT not in str(exc):
                    raise
                message = f"one of the two texts alone exceeds the limit of {limit} tokens for both"
                own = Failure(FailureKind.TOO_LONG, message)
            encodings.append(own)
        return encodings

    def _encode(
        self, passages: Sequence[Passage], limit: int, division: Division
    ) -> list[Encoding | Failure]:
        tokenizer = self._with(limit, division)
        inputs = [text if pair is None else (text, pair) for text, pair in passages]
        # Without offsets, the library (0.23) gives tokens of later windows the types of the first.
        with_offsets = division.offsets or division.windows
        encode = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast
        return list(encode(inputs))

    def _suited(
        self, passage: Passage, limit: int, division: Division, *, whole: Whole
    ) -> Division | Failure:
        """Return a division with which the library can handle a passage, or why there is none.

        It panics where windows share more tokens than they have, and its memory ends before the
        windows of two long texts do, or those of one beside a text that leaves it few tokens.
        """
        longest = max(len(passage.text), len(passage.pair or ""))
        is_long = division.windows or longest > limit * CHARACTERS_PER_TOKEN
        if passage.pair is None or not is_long:
            return division
        first, second = len(whole(passage.text)), len(whole(passage.pair))
        available = limit - self.backend.num_special_tokens_to_add(is_pair=True)
        stride = self._stride(limit, division)
        if first + second <= available:
            return division
        if division.truncation != "longest_first":
            fixed, divided = first, second
            if division.truncation == "only_first":
                fixed, divided = second, first
            width = available - fixed
            if width <= stride:
                division, stride = division._replace(stride=0), 0
            is_bounded = width <= 0 or not division.windows
            windows = 1 if is_bounded else _windows(divided, width, stride)
            return division if windows <= MAX_WINDOWS else _too_many(windows, limit)
        less = min(first, second, available // 2)
        windows = _windows(min(first, second), less, stride) * _windows(
            max(first, second), available - less, stride
        )
        return division if windows <= MAX_WINDOWS else _too_many(windows, limit)

    def _divided(
        self, encoding: Encoding | Failure, limit: int, division: Division
    ) -> list[Encoded] | Failure:
        if isinstance(encoding, Failure):
            return encoding
        overflowing = encoding.overflowing if len(encoding) == limit else ()
        if not division.windows:
            return [self._one(encoding, division, truncated=bool(overflowing))]
        windows = [encoding, *overflowing]
        if self._settings.truncation_side == "left":
            windows.reverse()  # the library begins at the end of the text
        if len(windows) > MAX_WINDOWS:
            return _too_many(len(windows), limit)
        return [self._one(window, division, truncated=False) for window in windows]

    def _one(self, encoding: Encoding, division: Division, *, truncated: bool) -> Encoded:
        types = None
        if self._settings.token_types:
            types = np.array(encoding.type_ids, dtype=np.int32)
        ids = np.array(encoding.ids, dtype=np.int32)
        return Encoded(ids, types, truncated, encoding if division.offsets else None)


def _too_many(windows: int, limit: int) -> Failure:
    return Failure(
        FailureKind.TOO_LONG,
        f"the text has {windows} windows of {limit} tokens, but at most {MAX_WINDOWS} are "
        "computed; divide it",
    )


def _windows(tokens: int, width: int, stride: int) -> int:
    """Return the number of windows of a text with a number of tokens."""
    return 1 + math.ceil(max(0, tokens - width) / max(1, width - stride))


def _beginning(text: str, encoding: Encoding, tokens: int) -> str:
    """Return a text up to a number of its tokens."""
    if len(encoding) <= tokens:
        return text
    place = encoding.token_to_chars(tokens)
    assert place is not None  # a token of the text
    return text[: place[0]]


def _is_cut(windows: list[Encoded] | Failure) -> bool:
    return isinstance(windows, Failure) or windows[0].truncated


def _cut(text: str, limit: int) -> str:
    """Cut a text before the last blank within ``limit`` characters, or within 4, 16, ... times."""
    if len(text) <= limit:
        return text
    blank = text.rfind(" ", 1, limit)
    if blank > 0:
        return text[:blank]
    return _cut(text, 4 * limit)


def _divides_at_blanks(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens before a blank are independent of what follows it."""
    added = tokenizer.get_added_tokens_decoder().values()
    if tokenizer.pre_tokenizer is None or any(len(token.content.split()) > 1 for token in added):
        return False
    parts = _parts(orjson.loads(tokenizer.pre_tokenizer.__getstate__()))
    return any(
        part["type"] in DIVIDES_AT_BLANKS
        or (part["type"] == "ByteLevel" and part.get("use_regex", True))
        or (part["type"] == "Metaspace" and part.get("split", True))
        for part in parts
    )


def _parts(pre_tokenizer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield pre_tokenizer
    for part in pre_tokenizer.get("pretokenizers", ()):
        yield from _parts(part)
