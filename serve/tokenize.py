"""Conversion of texts to token ids and padded arrays with the model's Rust tokeniser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from tokenizers import Encoding, Tokenizer

from serve.artifact import CONFIG_FILE, TOKENIZER_FILE, Artifact, Tokenizing
from serve.checkpoint import library, read_json
from serve.engine.protocol import Batch

# A text is first cut to this many characters per token of the model's limit. English has about
# 5; only texts that are mostly white space need a second round with more.
CHARACTERS_PER_TOKEN = 16
# Pre-tokenisers after which no token spans a blank.
DIVIDES_AT_BLANKS = frozenset(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"))


class Encoded(NamedTuple):
    """Token ids of one text.

    Attributes:
        ids: Token ids, special tokens included; never more than the model's limit.
        truncated: Whether the text had more tokens and was cut.
    """

    ids: list[int]
    truncated: bool


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
        tokenizer.enable_truncation(max_length, direction=settings.truncation_side)
        tokenizer.encode_special_tokens = settings.split_special_tokens
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._prompt = settings.prompt
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
        """Tokenise texts, in one library call unless a text is long and mostly white space.

        The work per text is bounded by the model's limit, unless its tokens may span blanks: a
        long text is cut before a blank, and a longer part is tried only if that part had too few
        tokens. Its first tokens are those of the whole text.

        Args:
            texts: Shape (N,); any characters.
        Returns:
            Shape (N,).
        """
        texts = [self._prompt + text for text in texts] if self._prompt else texts
        limit = self._max_length * CHARACTERS_PER_TOKEN
        cut = [_cut(text, limit) for text in texts] if self._may_cut else texts
        encodings = self._tokenizer.encode_batch_fast(cut)
        encoded = [self._encoded(encoding) for encoding in encodings]
        for index, text in enumerate(texts):
            tried, part = limit, cut[index]
            while len(part) < len(text) and not encoded[index].truncated:
                # Multiplies the limit, not the length of the part: the last blank may be at the
                # same position within four times as much, and the loop would never end.
                tried *= 4
                part = _cut(text, tried)
                encoded[index] = self._encoded(self._tokenizer.encode_batch_fast([part])[0])
        return encoded

    def pad(self, items: Sequence[Sequence[int]]) -> Batch:
        """Return arrays of B items, padded on the right to the longest.

        Args:
            items: Token ids of each item; shape (B,), B >= 1.
        """
        shape = (len(items), max(len(ids) for ids in items))
        input_ids = np.full(shape, self._pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        for row, ids in enumerate(items):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return Batch(input_ids, attention_mask)

    def _encoded(self, encoding: Encoding) -> Encoded:
        ids = encoding.ids
        return Encoded(ids, len(ids) == self._max_length and bool(encoding.overflowing))


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
