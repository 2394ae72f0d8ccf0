"""Fill-mask: a text with masks to the tokens that fit in their place, best first.

The engine returns the vectors that the model's last layer, the decoder, compares with each token
of the vocabulary. The decoder itself runs on the host, for the masks alone: its logits for all
tokens of a batch would be dozens of times as many numbers.

H hidden, M masks, N candidates, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from serve.agreement import ScoredLabels, Tolerance
from serve.contract import Failure, FailureKind
from serve.decoder import (
    Decoder,
    last_layer,
    on_host,
    read_decoder,
    require_linear,
    saved_names,
)
from serve.errors import ArtifactError
from serve.scores import softmax
from serve.task import (
    Computed,
    Division,
    Head,
    ImportedHead,
    Parameters,
    Prediction,
    Source,
    Task,
    Window,
)

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from serve.artifact import Artifact
    from serve.tokenize import TextTokenizer

# Masks whose logits are computed at once: with 250,000 tokens they take 16 MB.
ROWS_AT_ONCE = 16
# Each mask is filled with top_k tokens, and each of these is written with the whole text.
MAX_MASKS = 32
MAX_TOP_K = 1000
# Digits that even the smallest scores have: of 30,000 tokens most would otherwise score 0.
DIGITS = 2
# Powers of ten for smaller scores are not exact in float64, so these have fewer digits.
SMALLEST_POWER = -18.0
# Blanks before punctuation and contractions, which some tokenisers remove, in this order.
JOINED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def _listed(targets: Any) -> Any:
    return (targets,) if isinstance(targets, str) else targets


Target = Annotated[str, Field(min_length=1)]
Targets = Annotated[tuple[Target, ...], BeforeValidator(_listed), Field(min_length=1)]


class FillMaskHead(Head):
    """Head of a model that fills masks.

    Attributes:
        mask_token: Text that stands for a missing word, such as ``[MASK]``.
        mask_token_id: Token id of it.
        decoder_weight: Name in ``model.safetensors`` of the decoder's matrix (V, H).
        decoder_bias: Name in ``model.safetensors`` of its bias (V,); None where it has none.
        clean_up: Whether texts of tokens lose the blanks before punctuation.
    """

    mask_token: str = Field(min_length=1)
    mask_token_id: int = Field(ge=0)
    decoder_weight: str
    decoder_bias: str | None = None
    clean_up: bool = False


class FillMaskParameters(Parameters):
    """Parameters of fill-mask.

    Attributes:
        top_k: Maximum number of tokens for each mask.
        targets: The only words to consider; null for all tokens. A word that is not one token is
            replaced by its first token, and one without any token is ignored.
        max_masks: Maximum number of masks in a text.
    """

    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)
    targets: Targets | None = None
    max_masks: int = Field(default=MAX_MASKS, ge=1)


class FilledMasks(ScoredLabels):
    """Results such as ``[{"score": 0.9, "token": 7, "token_str": "day", ...}, ...]``, best first.

    With several masks, they are a list of such lists.
    """

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare the score of every expected token; see ``Agreement``.

        The last tokens may be others with nearly the same score.
        """
        ours, theirs = _by_mask(found), _by_mask(expected)
        if len(ours) != len(theirs):
            return f"it has {len(ours)} masks, expected {len(theirs)}"
        for tokens, wanted in zip(ours, theirs, strict=True):
            labels = {item["label"] for item in tokens}
            least = min((item["score"] for item in tokens), default=0.0) + tolerance.score
            required = [i for i in wanted if i["label"] in labels or i["score"] > least]
            fault = super().difference(tokens, required, tolerance)
            if fault is not None:
                return fault
        return None

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the best token of every mask; see ``Agreement``."""
        ours, theirs = _by_mask(found), _by_mask(expected)
        return len(ours) == len(theirs) and all(
            super(FilledMasks, self).same_best(*pair, tolerance)
            for pair in zip(ours, theirs, strict=True)
        )

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the tokens given for every mask, and every score; see ``Agreement``."""
        first, second = _by_mask(before), _by_mask(after)
        return len(first) == len(second) and all(
            super(FilledMasks, self).same_for_people(*pair)
            for pair in zip(first, second, strict=True)
        )

    def answer(self, result: Any) -> str:
        """Return the best token of every mask; see ``Agreement``."""
        return ", ".join(str(tokens[0]["token_str"]) for tokens in _lists(result) if tokens)


class Mask(NamedTuple):
    """A mask, in the window where it has the most context; it is the token at ``place``."""

    window: Window
    place: int


class Candidates(NamedTuple):
    """Tokens for a mask, best first, and their scores; shape (N,)."""

    tokens: list[int]
    scores: list[float]


class FilledToken(TypedDict, closed=True):
    """A token for a mask.

    Attributes:
        token: Its id.
        sequence: The text with it.
    """

    score: float
    token: int
    token_str: str
    sequence: str


class FillMask(Task[FillMaskHead, FillMaskParameters]):
    """Tokens for a mask, best first: ``[{"score", "token", "token_str", "sequence"}, ...]``.

    Several masks have a list of such lists, and ``sequence`` has the other masks. It is the text
    of the window, where a text was divided.
    """

    name = "fill-mask"
    head_type = FillMaskHead
    parameters_type = FillMaskParameters
    model_class = "AutoModelForMaskedLM"
    agreement = FilledMasks()
    result_type = list[FilledToken] | list[list[FilledToken]]

    def __init__(self, head: FillMaskHead, *, precision: str) -> None:
        """Keep what results depend on; see ``Task``."""
        super().__init__(head, precision=precision)
        self._decoder: Decoder | None = None
        self._backend: Tokenizer | None = None

    @classmethod
    def open(cls, artifact: Artifact, tokenizer: TextTokenizer, *, precision: str) -> Self:
        """Read the decoder; see ``Task``."""
        task = super().open(artifact, tokenizer, precision=precision)
        task._decoder = read_decoder(
            artifact.path, task.head.decoder_weight, task.head.decoder_bias
        )
        task._backend = tokenizer.backend
        return task

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Find the mask and the decoder, and check both; see ``Task``."""
        tokens = _probe(source)
        name, decoder = last_layer(source.model, source.network)
        require_linear(source, name, tokens)
        weight, bias = saved_names(source, decoder)
        own = {
            "mask_token": str(source.tokenizer.mask_token),
            "mask_token_id": source.tokenizer.mask_token_id,
            "decoder_weight": weight,
            "decoder_bias": bias,
            "clean_up": _cleans_up(source.tokenizer),
        }
        return ImportedHead(FillMaskHead.model_validate({**own, **source.settings}))

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return what the decoder reads (B, T, H); see ``Task``."""
        from torch import nn
        from transformers import AutoModelForMaskedLM

        from serve.module import Headed, load_pretrained

        model = load_pretrained(AutoModelForMaskedLM, artifact.path)
        name, decoder = last_layer(model, artifact.path)
        head = artifact.card.head
        assert isinstance(head, FillMaskHead)
        stored = read_decoder(artifact.path, head.decoder_weight, head.decoder_bias)
        if not stored.is_same(on_host(decoder)):
            raise ArtifactError(
                f"{artifact.path}: the weights that the card names as the decoder are not those "
                "of the model's last layer; import the model again"
            )
        model.set_submodule(name, nn.Identity())
        return Headed(model, lambda output: output.logits)

    def check(self, parameters: FillMaskParameters) -> None:
        """Refuse targets without any token, once the tokeniser is loaded; see ``Task``."""
        if parameters.targets is not None and self._backend is not None:
            self._target_ids(parameters.targets)

    def division(self, *, windows: bool, stride: int, parameters: FillMaskParameters) -> Division:
        """Keep offsets of windows, to recognise a mask that several have; see ``Task``."""
        division = super().division(windows=windows, stride=stride, parameters=parameters)
        return division._replace(offsets=windows)

    def predictions(
        self, computed: Sequence[Computed], parameters: FillMaskParameters
    ) -> list[Prediction | Failure]:
        """Return the best tokens for the masks of each record; see ``Task``."""
        found = [self._masks(record.windows[0], parameters) for record in computed]
        masks = [mask for one in found if not isinstance(one, Failure) for mask in one]
        targets = self._target_ids(parameters.targets) if parameters.targets else None
        candidates = iter(self._candidates(masks, targets, parameters.top_k))
        return [
            one if isinstance(one, Failure) else self._prediction(one, candidates) for one in found
        ]

    def _masks(
        self, windows: Sequence[Window], parameters: FillMaskParameters
    ) -> list[Mask] | Failure:
        """Return the masks in the order of the text, or why they are not filled."""
        best: dict[Any, tuple[int, Mask]] = {}
        for window in windows:
            ids, encoding = window.encoded.ids, window.encoded.encoding
            for place in np.flatnonzero(ids == self.head.mask_token_id).tolist():
                # The same mask has the same characters in all windows.
                key = place if encoding is None else encoding.offsets[place]
                context = min(place, len(ids) - 1 - place)
                if key not in best or context > best[key][0]:
                    best[key] = (context, Mask(window, place))
        if not best:
            where = " in the part that is not cut off" if windows[0].encoded.truncated else ""
            return Failure(
                FailureKind.WRONG_INPUT,
                f"the text has no mask{where}; write {self.head.mask_token} for the missing word",
            )
        if len(best) > parameters.max_masks:
            return Failure(
                FailureKind.TOO_MANY,
                f"the text has {len(best):,} masks, but max_masks allows "
                f"{parameters.max_masks:,}; send fewer, or raise max_masks",
            )
        return [best[key][1] for key in sorted(best)]

    def _candidates(
        self, masks: Sequence[Mask], targets: NDArray[np.int64] | None, top_k: int
    ) -> list[Candidates]:
        """Return the best tokens for each mask; shape (M,) to (M,)."""
        assert self._decoder is not None  # set by open, before anything is computed
        found: list[Candidates] = []
        for first in range(0, len(masks), ROWS_AT_ONCE):
            block = masks[first : first + ROWS_AT_ONCE]
            states = np.stack([mask.window.outputs[0][mask.place] for mask in block])
            scores = softmax(self._decoder.logits(states).astype(np.float64))  # (M, V)
            if targets is not None:
                scores = scores[:, targets]
            found += (best(row, targets, top_k, decimals=self.decimals) for row in scores)
        return found

    def _prediction(self, masks: Sequence[Mask], candidates: Iterator[Candidates]) -> Prediction:
        rows = [self._filled(mask, next(candidates), alone=len(masks) == 1) for mask in masks]
        return Prediction(orjson.dumps(rows[0] if len(rows) == 1 else rows))

    def _filled(self, mask: Mask, candidates: Candidates, *, alone: bool) -> list[FilledToken]:
        ids: list[int] = mask.window.encoded.ids.tolist()
        before, after = ids[: mask.place], ids[mask.place + 1 :]
        # Other masks are special tokens, which would be dropped.
        sequences = self._texts(
            [[*before, token, *after] for token in candidates.tokens], skip=alone
        )
        words = self._texts([[token] for token in candidates.tokens], skip=False)
        return [
            {"score": score, "token": token, "token_str": word, "sequence": sequence}
            for score, token, word, sequence in zip(
                candidates.scores, candidates.tokens, words, sequences, strict=True
            )
        ]

    def _texts(self, rows: list[list[int]], *, skip: bool) -> list[str]:
        assert self._backend is not None  # set by open
        texts = self._backend.decode_batch(rows, skip_special_tokens=skip)
        return [cleaned(text) for text in texts] if self.head.clean_up else texts

    def _target_ids(self, targets: Sequence[str]) -> NDArray[np.int64]:
        """Return the distinct token ids of words, ascending."""
        assert self._backend is not None  # set by open
        found: set[int] = set()
        for target in targets:
            own = self._backend.token_to_id(target)
            parts = self._backend.encode(target, add_special_tokens=False).ids
            found.update(parts[:1] if own is None else (own,))
        if not found:
            raise ValueError(f"targets: {', '.join(targets)}: the tokeniser has no token for any")
        return np.array(sorted(found))


def best(
    scores: NDArray[np.float64], tokens: NDArray[np.int64] | None, top_k: int, *, decimals: int
) -> Candidates:
    """Return the best tokens with rounded scores.

    Args:
        scores: Shape (V,).
        tokens: Ids of the tokens that the scores are for, ascending; None for 0, 1, ...
        decimals: Decimals of a score that are kept. The order depends on as many digits after
            leading zeros, and on the ids where these are equal.
    """
    kept = min(top_k, len(scores))
    least = np.partition(scores, -kept)[-kept]
    # All that may be equal to the last one after rounding.
    near = np.flatnonzero(scores >= least * (1 - 2 * 10.0 ** (1 - decimals)))
    ranked = rounded(scores[near], digits=decimals)
    order = np.argsort(-ranked, kind="stable")[:kept]
    places = near[order]
    chosen = places if tokens is None else tokens[places]
    reported = rounded(ranked[order], digits=DIGITS, decimals=decimals)
    return Candidates(chosen.tolist(), reported.tolist())


def rounded(scores: NDArray[np.float64], *, digits: int, decimals: int = 0) -> NDArray[np.float64]:
    """Return scores with some decimals, and with more where fewer digits than some would stay.

    Args:
        scores: Between 0 and 1; any shape.
        digits: Least number of digits after leading zeros.
    """
    powers = np.floor(np.log10(np.maximum(scores, 10.0**SMALLEST_POWER)))
    factors = 10.0 ** np.maximum(decimals, digits - 1 - powers)
    short: NDArray[np.float64] = np.round(scores * factors) / factors
    return short


def cleaned(text: str) -> str:
    """Return a text without the blanks that stand before punctuation and contractions."""
    for joined in JOINED:
        text = text.replace(joined, joined.strip())
    return text


def _probe(source: Source) -> list[int]:
    """Return the tokens of a text with one mask; refuse a tokeniser without masks."""
    tokenizer, remedy = source.tokenizer, "choose a model that was trained to fill masks"
    if tokenizer.mask_token_id is None:
        raise ArtifactError(f"{source.network}: its tokeniser has no mask token; {remedy}")
    tokens: list[int] = tokenizer(f"A fine {tokenizer.mask_token} day.").input_ids
    if tokens.count(tokenizer.mask_token_id) != 1:
        raise ArtifactError(
            f"{source.network}: its tokeniser does not read {tokenizer.mask_token} in a text as "
            f"the mask token; {remedy}"
        )
    return tokens


def _cleans_up(tokenizer: Any) -> bool:
    """Return whether transformers cleans the texts of tokens; it does not for byte pairs."""
    if not tokenizer.clean_up_tokenization_spaces:
        return False
    forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    is_bpe = type(tokenizer.backend_tokenizer.model).__name__ == "BPE"
    return not is_bpe or bool(getattr(tokenizer, forced, False))


def _lists(result: Any) -> list[list[dict[str, Any]]]:
    return result if result and isinstance(result[0], list) else [result]


def _by_mask(result: Any) -> list[list[dict[str, Any]]]:
    """Return tokens with their scores for each mask; different tokens may have the same text."""
    return [
        [
            {"label": f"{item['token_str']} ({item['token']})", "score": item["score"]}
            for item in tokens
        ]
        for tokens in _lists(result)
    ]
