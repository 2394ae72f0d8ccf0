"""A replica: bytes of a micro-batch in, outcomes out. Owns the steps in between.

Reads, merges equal records and passages, tokenises, computes, writes. Does not use ray; safe to
call from several threads at once, so that one call is parsed while another computes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from serve.artifact import CACHE_DIR, Artifact, load
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
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
from serve.golden import check_golden, golden_options
from serve.parameters import checked_parameters
from serve.reading import Reader, Reading
from serve.registry import task_type
from serve.settings import ModelSettings
from serve.task import Computed, Encoded, Passage, Prediction, Values, Window
from serve.tokenize import TextTokenizer

if TYPE_CHECKING:
    import torch

WARM_UP_WORDS = (6, 30, 126)
# The first batch of a shape takes OpenVINO half as long again, and each stream keeps 0.5 MB for
# it. Single texts do not wait for others, so their shapes up to this many tokens are warmed up.
WARM_UP_SINGLES = 64
LEAST_TOKENS = 3
# Code that a compiled graph contains, besides that of the tasks.
MODULE_FILES = ("module.py", "pooling.py", "multi_head.py", "decoder.py")

# For example only zero-width characters, where the tokeniser adds no special tokens.
NO_TOKEN = Failure(
    FailureKind.EMPTY_TEXT, "the text has no tokens: the tokeniser drops all of its characters"
)

NOT_FINITE = Failure(FailureKind.POISON, "the model's answer has a number that is not finite")

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """Outcomes for the distinct records of a call, and their cost; see ``contract.BatchStats``."""

    answered: dict[Values, Answer | Failure]
    tokens: int
    padded_tokens: int
    distinct: int
    compute_s: float


class Computation(NamedTuple):
    """Windows of each passage, and their cost; see ``contract.BatchStats``."""

    windows: dict[Passage, list[Window] | Failure]
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
        card = artifact.card
        self._tokenizer = TextTokenizer.of(artifact)
        self._batches = BatchSettings(
            pad_id=self._tokenizer.pad_id,
            # The longest text must fit into a batch, even where the budget is smaller.
            max_tokens=max(settings.engine.max_batch_tokens, card.max_length),
            max_items=settings.engine.max_batch_items,
        )
        self._engine = open_engine(
            lambda: _module(artifact),
            settings.engine,
            on_gpu=settings.num_gpus > 0,
            cache_dir=_cache_dir(artifact.path),
            digest=_compiled_name(artifact),
            batches=self._batches,
            token_types=card.tokenizer.token_types,
        )
        self._too_long = Failure(
            FailureKind.TOO_LONG,
            f"the text exceeds the model's limit of {card.max_length} tokens",
        )
        self._task = task_type(card.task).open(
            artifact, self._tokenizer, precision=self._engine.precision
        )
        self._info = ReplicaInfo(
            model=settings.name,
            version=settings.version,
            digest=artifact.digest,
            task=card.task,
            engine=self._engine.name,
            precision=self._engine.precision,
            device=self._engine.device,
        )
        self._warm_up(card.max_length)
        options = golden_options(card)
        check_golden(
            artifact,
            lambda values: self.predict(values, options).outcomes,
            precision=self._engine.precision,
        )

    def info(self) -> ReplicaInfo:
        """Return the identity of the replica."""
        return self._info

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer each value; see ``contract.Predictor``."""
        start = time.perf_counter()
        parameters = checked_parameters(self._task, options.parameters)
        reader = Reader(options, self._task.inputs)
        readings = [reader.read(value) for value in values]
        distinct = dict.fromkeys(item.values for item in readings if isinstance(item, Reading))
        work = self._answer(list(distinct), options, parameters)
        outcomes = [_outcome(reading, work.answered) for reading in readings]
        stats = BatchStats(
            tokens=work.tokens,
            padded_tokens=work.padded_tokens,
            distinct_texts=work.distinct,
            seconds=time.perf_counter() - start,
            compute_s=work.compute_s,
        )
        return BatchReply(outcomes, stats, self._info.digest)

    def close(self) -> None:
        """Free the engine; calls in progress end first."""
        self._engine.close()

    def _answer(self, records: Sequence[Values], options: CallOptions, parameters: Any) -> Work:
        """Return the outcome of each distinct record; their passages are computed together."""
        asked = {values: self._task.passages(values, parameters) for values in records}
        distinct = dict.fromkeys(
            passage
            for passages in asked.values()
            if not isinstance(passages, Failure)
            for passage in passages
        )
        done = self._compute(list(distinct), options, parameters)
        answered: dict[Values, Answer | Failure] = {}
        computed: list[Computed] = []
        for values, passages in asked.items():
            record = _computed(values, passages, done.windows)
            if isinstance(record, Failure):
                answered[values] = record
            else:
                computed.append(record)
        if computed:
            predictions = self._task.predictions(computed, parameters)
            for record, prediction in zip(computed, predictions, strict=True):
                answered[record.values] = _answer_of(record, prediction)
        return Work(answered, done.tokens, done.padded_tokens, len(distinct), done.compute_s)

    def _compute(
        self, passages: Sequence[Passage], options: CallOptions, parameters: Any
    ) -> Computation:
        """Tokenise passages and compute their windows."""
        division = self._task.division(
            windows=options.long_text == "window",
            stride=options.window_stride,
            parameters=parameters,
        )
        divided = self._tokenizer.divide(passages, division)
        windows: dict[Passage, list[Window] | Failure] = {}
        kept: list[tuple[Passage, Encoded]] = []
        for passage, parts in zip(passages, divided, strict=True):
            if isinstance(parts, Failure):
                windows[passage] = parts
            elif not len(parts[0].ids):
                windows[passage] = NO_TOKEN
            elif parts[0].truncated and options.long_text == "dead-letter":
                windows[passage] = self._too_long
            else:
                windows[passage] = []
                kept += ((passage, one) for one in parts)
        if not kept:
            return Computation(windows, 0, 0, 0.0)
        inferred = self._engine.infer([Item(one.ids, one.types) for _, one in kept])
        for (passage, encoded), outputs in zip(kept, inferred.outputs, strict=True):
            found = windows[passage]
            if isinstance(found, Failure):
                continue
            if all(np.isfinite(array).all() for array in outputs):
                found.append(Window(encoded, outputs))
            else:
                windows[passage] = NOT_FINITE
        tokens = sum(len(encoded.ids) for _, encoded in kept)
        return Computation(windows, tokens, inferred.padded_tokens, inferred.compute_s)

    def _warm_up(self, longest: int) -> None:
        """Compile and load what the first real batches would otherwise wait for."""
        start = time.perf_counter()
        for words in WARM_UP_WORDS:
            item = self._item(words)
            items = min(self._batches.max_items, self._batches.max_tokens // len(item.ids))
            self._engine.infer([item] * items)
        item = self._item(longest)
        for width in range(LEAST_TOKENS, min(len(item.ids), WARM_UP_SINGLES) + 1):
            types = None if item.types is None else item.types[:width]
            self._engine.warm_up(Item(item.ids[:width], types))
        logger.info("%s is warm after %.1f s", self._info, time.perf_counter() - start)

    def _item(self, words: int) -> Item:
        (encoded,) = self._tokenizer.encode(["word " * words])
        return Item(encoded.ids, encoded.types)


def _computed(
    values: Values,
    passages: list[Passage] | Failure,
    windows: Mapping[Passage, list[Window] | Failure],
) -> Computed | Failure:
    if isinstance(passages, Failure):
        return passages
    found: list[list[Window]] = []
    for passage in passages:
        computed = windows[passage]
        if isinstance(computed, Failure):
            return computed
        found.append(computed)
    return Computed(values, passages, found)


def _answer_of(record: Computed, prediction: Prediction | Failure) -> Answer | Failure:
    if isinstance(prediction, Failure):
        return prediction
    encoded = [window.encoded for windows in record.windows for window in windows]
    return Answer(
        result=prediction.result,
        id=None,
        label=prediction.label,
        confidence=prediction.confidence,
        tokens=sum(len(one.ids) for one in encoded),
        truncated=any(one.truncated for one in encoded),
        parts=prediction.parts,
    )


def _outcome(reading: Reading | Failure, answered: Mapping[Values, Answer | Failure]) -> Outcome:
    if isinstance(reading, Failure):
        return reading
    answer = answered[reading.values]
    if isinstance(answer, Failure) or reading.id is None:
        return answer
    return answer._replace(id=reading.id)


def _module(artifact: Artifact) -> torch.nn.Module:
    # Imported here, as a compiled graph in the cache needs neither torch nor transformers.
    from serve.module import build_module

    return build_module(artifact)


def _cache_dir(path: Path) -> Path | None:
    return path / CACHE_DIR if os.access(path, os.W_OK) else None


def _compiled_name(artifact: Artifact) -> str:
    """Return a hash of what the compiled graph depends on: the model and the module's code."""
    here = Path(__file__).parent
    # The files of all tasks, as a multi-task model has modules of several.
    files = [*map(here.joinpath, MODULE_FILES), *sorted(here.glob("tasks/*.py"))]
    versions = f"{version('torch')} {version('transformers')}".encode()
    parts = [artifact.digest.encode(), versions, *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
