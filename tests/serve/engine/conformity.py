"""What every engine must do, written once; each engine's tests inherit it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification, BertModel

from serve.artifact import Pooling
from serve.engine.protocol import Batch, Engine
from serve.errors import EngineError
from serve.module import Classifier, Embedder

VOCABULARY = 120
POSITIONS = 64
SHAPES = [(1, 1), (3, 7), (2, 64), (8, 2), (1, 33), (5, 12), (16, 5), (1, 64)]


def tiny_bert(seed: int = 0) -> BertConfig:
    torch.manual_seed(seed)
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        num_labels=3,
        attn_implementation="sdpa",
    )


def classifier() -> torch.nn.Module:
    return Classifier(BertForSequenceClassification(tiny_bert())).eval()


def embedder(mode: str) -> torch.nn.Module:
    pooling = Pooling(mode=mode, normalize=True)
    return Embedder(BertModel(tiny_bert(), add_pooling_layer=False), pooling).eval()


def random_batch(items: int, tokens: int, seed: int = 0) -> Batch:
    """Items of differing lengths, the first as long as the batch."""
    rng = np.random.default_rng([items, tokens, seed])
    lengths = rng.integers(1, tokens + 1, size=items)
    lengths[0] = tokens
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    return Batch(rng.integers(1, VOCABULARY, size=(items, tokens)) * mask, mask)


def plain(module: torch.nn.Module, batches: list[Batch]) -> list[NDArray[np.float32]]:
    """The same numbers by the plainest way there is."""
    with torch.no_grad():
        return [module(*map(torch.from_numpy, batch)).numpy() for batch in batches]


class EngineConformity:
    """Inherited; ``engine`` is a fixture of each heir and runs ``classifier()`` in f32."""

    def test_numbers_are_those_of_plain_torch(self, engine: Engine) -> None:
        batches = [random_batch(*shape) for shape in SHAPES]
        answers = engine.infer(batches).outputs
        for answer, expected in zip(answers, plain(classifier(), batches), strict=True):
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, expected, atol=2e-6)

    def test_padding_changes_nothing(self, engine: Engine) -> None:
        ids, mask = random_batch(1, 9)
        wider = Batch(np.pad(ids, ((0, 0), (0, 20))), np.pad(mask, ((0, 0), (0, 20))))
        alone, padded = engine.infer([Batch(ids, mask), wider]).outputs
        np.testing.assert_allclose(alone, padded, atol=2e-6)

    def test_answers_outlive_later_batches(self, engine: Engine) -> None:
        first = engine.infer([random_batch(4, 9)]).outputs[0]
        kept = first.copy()
        engine.infer([random_batch(4, 9, seed) for seed in range(1, 20)])
        np.testing.assert_array_equal(first, kept)

    def test_concurrent_callers_get_their_own_answers(self, engine: Engine) -> None:
        calls = [[random_batch(*shape, seed) for shape in SHAPES] for seed in range(6)]
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(engine.infer, calls))
        for call, answer in zip(calls, answers, strict=True):
            for mine, expected in zip(answer.outputs, plain(classifier(), call), strict=True):
                np.testing.assert_allclose(mine, expected, atol=2e-6)

    def test_nothing_in_nothing_out(self, engine: Engine) -> None:
        assert engine.infer([]).outputs == []

    @pytest.mark.parametrize("token_id", [VOCABULARY, -1])
    def test_token_outside_the_vocabulary_is_an_error(self, engine: Engine, token_id: int) -> None:
        good, bad = random_batch(2, 5), random_batch(2, 5)
        bad.input_ids[1, 0] = token_id
        with pytest.raises(EngineError, match=f"batch 1: token id {token_id} is outside"):
            engine.infer([good, bad])
        assert engine.infer([good]).outputs[0].shape == (2, 3)

    def test_failing_batch_spares_the_next(self, engine: Engine) -> None:
        good, longer_than_the_model = random_batch(2, 5), random_batch(1, POSITIONS + 1)
        with pytest.raises(EngineError, match=rf"shape \(1, {POSITIONS + 1}\)"):
            engine.infer([good, longer_than_the_model, good])
        expected = plain(classifier(), [good])[0]
        np.testing.assert_allclose(engine.infer([good]).outputs[0], expected, atol=2e-6)
