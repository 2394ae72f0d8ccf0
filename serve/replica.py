"""A replica: bytes of a micro-batch in, outcomes out. Owns the steps in between.

Reads, merges equal texts, tokenises, plans, computes, writes. Does not use ray; safe to call
from several threads at once, so that one call is parsed while another computes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.artifact import CACHE_DIR, Artifact, load
from serve.batching import padded_tokens, plan_batches
from serve.contract import (
    Answer,
    BatchReply,
    BatchStats,
    CallOptions,
    Failure,
    FailureKind,
    Outcome,
    ReplicaInfo,
)
from serve.engine.choice import open_engine
from serve.golden import check_golden
from serve.reading import Reading, read
from serve.settings import ModelSettings
from serve.tasks.prediction import Prediction
from serve.tasks.registry import head_of
from serve.tokenize import Encoded, TextTokenizer

if TYPE_CHECKING:
    import torch

WARM_UP_WORDS = (6, 30, 126)
# The first batch of a shape takes OpenVINO half as long again, and each stream keeps 0.5 MB for
# it. Single texts do not wait for others, so their shapes up to this many tokens are warmed up.
WARM_UP_SINGLES = 64
LEAST_TOKENS = 3

# For example only zero-width characters, where the tokeniser adds no special tokens.
NO_TOKEN = Failure(
    FailureKind.EMPTY_TEXT, "the text has no tokens: the tokeniser drops all of its characters"
)

logger = logging.getLogger(__name__)


class Computed(NamedTuple):
    """Result for one distinct text: its prediction or failure, and its tokens."""

    made: Prediction | Failure
    encoded: Encoded


class Done(NamedTuple):
    """Predictions for token ids, and their cost; see ``contract.BatchStats``."""

    predictions: list[Prediction | Failure]
    padded_tokens: int
    compute_s: float


class Work(NamedTuple):
    """Results for the distinct texts of a call, and their cost; see ``contract.BatchStats``."""

    computed: dict[str, Computed]
    tokens: int
    padded_tokens: int
    compute_s: float


class Replica:
    """One version of a model, loaded, compiled and warm.

    Raises at construction:
        ArtifactError: The model directory cannot be used, or the model no longer answers its
            golden texts as it did when it was sealed. Not retriable.
        EngineUnavailable: This machine lacks the engine or precision. Not retriable.
    """

    def __init__(self, settings: ModelSettings) -> None:
        artifact = load(settings.path, task=settings.task)
        self._max_items = settings.engine.max_batch_items
        # The longest text must fit into a batch, even where the budget is smaller.
        self._max_tokens = max(settings.engine.max_batch_tokens, artifact.card.max_length)
        self._tokenizer = TextTokenizer.of(artifact)
        self._engine = open_engine(
            lambda: _module(artifact),
            settings.engine,
            on_gpu=settings.num_gpus > 0,
            cache_dir=_cache_dir(artifact.path),
            digest=_compiled_name(artifact),
        )
        self._too_long = Failure(
            FailureKind.TOO_LONG,
            f"the text exceeds the model's limit of {artifact.card.max_length} tokens",
        )
        self._head = head_of(artifact.card, precision=self._engine.precision)
        self._info = ReplicaInfo(
            model=settings.name,
            version=settings.version,
            digest=artifact.digest,
            task=artifact.card.task,
            engine=self._engine.name,
            precision=self._engine.precision,
            device=self._engine.device,
        )
        self._warm_up(artifact.card.max_length)
        check_golden(artifact, self._answers_of, precision=self._engine.precision)

    def info(self) -> ReplicaInfo:
        """Return the identity of the replica."""
        return self._info

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer each value; see ``contract.Predictor``."""
        start = time.perf_counter()
        readings = [read(value, options) for value in values]
        texts = dict.fromkeys(item.text for item in readings if isinstance(item, Reading))
        work = self._predict_texts(
            list(texts), fail_long=options.too_long == "dead-letter", top_k=options.top_k
        )
        outcomes = [_outcome(reading, work.computed) for reading in readings]
        stats = BatchStats(
            tokens=work.tokens,
            padded_tokens=work.padded_tokens,
            distinct_texts=len(texts),
            seconds=time.perf_counter() - start,
            compute_s=work.compute_s,
        )
        return BatchReply(outcomes, stats, self._info.digest)

    def close(self) -> None:
        """Free the engine; calls in progress end first."""
        self._engine.close()

    def _predict_texts(self, texts: Sequence[str], *, fail_long: bool, top_k: int | None) -> Work:
        encoded = self._tokenizer.encode(texts)
        made: list[Prediction | Failure] = [
            NO_TOKEN if not item.ids else self._too_long for item in encoded
        ]
        kept = [
            row
            for row, item in enumerate(encoded)
            if item.ids and not (fail_long and item.truncated)
        ]
        done = self._compute([encoded[row].ids for row in kept], top_k=top_k)
        for row, prediction in zip(kept, done.predictions, strict=True):
            made[row] = prediction
        computed = map(Computed, made, encoded)
        tokens = sum(len(encoded[row].ids) for row in kept)
        by_text = dict(zip(texts, computed, strict=True))
        return Work(by_text, tokens, done.padded_tokens, done.compute_s)

    def _compute(self, items: Sequence[Sequence[int]], *, top_k: int | None = None) -> Done:
        """Return the predictions for token ids, in their order."""
        if not items:
            return Done([], 0, 0.0)
        lengths = [len(ids) for ids in items]
        plan = plan_batches(
            lengths,
            max_tokens=self._max_tokens,
            max_items=self._max_items,
        )
        batches = [self._tokenizer.pad([items[index] for index in rows]) for rows in plan]
        inferred = self._engine.infer(batches)
        outputs = np.concatenate(inferred.outputs)  # (N, C) or (N, H), as planned
        in_order = np.empty_like(outputs)
        in_order[np.concatenate(plan)] = outputs
        return Done(self._made(in_order, top_k), padded_tokens(lengths, plan), inferred.compute_s)

    def _made(self, outputs: NDArray[np.float32], top_k: int | None) -> list[Prediction | Failure]:
        finite = np.asarray(np.isfinite(outputs).all(axis=1))  # (N,)
        predictions = iter(self._head.predictions(outputs[finite], top_k=top_k))
        broken = Failure(FailureKind.POISON, "the model's answer has a number that is not finite")
        return [next(predictions) if is_finite else broken for is_finite in finite.tolist()]

    def _answers_of(self, texts: Sequence[str]) -> list[Prediction | Failure]:
        work = self._predict_texts(texts, fail_long=False, top_k=None)
        return [work.computed[text].made for text in texts]

    def _warm_up(self, longest: int) -> None:
        """Compile and load what the first real batches would otherwise wait for."""
        start = time.perf_counter()
        for words in WARM_UP_WORDS:
            ids = self._tokenizer.encode(["word " * words])[0].ids
            items = min(self._max_items, self._max_tokens // len(ids))
            self._compute([ids] * items)
        self._warm_up_singles(longest)
        logger.info("%s is warm after %.1f s", self._info, time.perf_counter() - start)

    def _warm_up_singles(self, longest: int) -> None:
        ids = self._tokenizer.encode(["word " * longest])[0].ids
        for width in range(LEAST_TOKENS, min(len(ids), WARM_UP_SINGLES) + 1):
            batch = self._tokenizer.pad([ids[:width]])
            self._engine.infer([batch] * self._engine.streams)  # each stream compiles separately


def _outcome(reading: Reading | Failure, computed: Mapping[str, Computed]) -> Outcome:
    if isinstance(reading, Failure):
        return reading
    made, encoded = computed[reading.text]
    if isinstance(made, Failure):
        return made
    return Answer(
        result=made.result,
        id=reading.id,
        label=made.label,
        confidence=made.confidence,
        tokens=len(encoded.ids),
        truncated=encoded.truncated,
    )


def _module(artifact: Artifact) -> torch.nn.Module:
    # Imported here, as a compiled graph in the cache needs neither torch nor transformers.
    from serve.module import build_module

    return build_module(artifact)


def _cache_dir(path: Path) -> Path | None:
    return path / CACHE_DIR if os.access(path, os.W_OK) else None


def _compiled_name(artifact: Artifact) -> str:
    """Return a hash of what the compiled graph depends on: the model and the module's code."""
    source = (Path(__file__).parent / "module.py").read_bytes()
    versions = f"{version('torch')} {version('transformers')}".encode()
    return hashlib.sha256(b"\0".join((artifact.digest.encode(), versions, source))).hexdigest()
