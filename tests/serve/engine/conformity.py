"""Tests that every engine must pass, written once; each engine's tests inherit them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from serve.embedding import Pooling, PoolingMode
from serve.engine.padding import Arrays
from serve.engine.protocol import Engine, Item
from serve.errors import EngineError
from serve.module import Embedder, Headed

VOCABULARY = 120
POSITIONS = 64
SHAPES = [(1, 1), (3, 7), (2, 64), (8, 2), (1, 33), (5, 12), (16, 5), (1, 64)]

OpenEngine = Callable[..., Engine]
"""Opens the engine with what a factory builds, in float32; ``token_types`` is False by default."""


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


def bert() -> Any:
    """A classifier as transformers has it."""
    return BertForSequenceClassification(tiny_bert()).eval()


def classifier() -> torch.nn.Module:
    """The same as a module of a task."""
    return Headed(bert(), lambda output: output.logits).eval()


def embedder(mode: PoolingMode) -> torch.nn.Module:
    pooling = Pooling(mode=mode, normalize=True)
    return Embedder(BertModel(tiny_bert(), add_pooling_layer=False), pooling).eval()


class TwoOutputs(torch.nn.Module):
    """One output for each text, one for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = BertModel(tiny_bert(), add_pooling_layer=False)
        self.of_text = torch.nn.Linear(32, 3)
        self.of_token = torch.nn.Linear(32, 5)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return self.of_text(states[:, 0]), self.of_token(states)


def two_outputs() -> torch.nn.Module:
    return TwoOutputs().eval()


def random_items(
    items: int, tokens: int, seed: int = 0, *, token_types: bool = False
) -> list[Item]:
    """Items of differing lengths, the first the longest."""
    rng = np.random.default_rng([items, tokens, seed])
    lengths = rng.integers(1, tokens + 1, size=items)
    lengths[0] = tokens
    return [
        Item(
            rng.integers(1, VOCABULARY, size=length, dtype=np.int32),
            np.sort(rng.integers(0, 2, size=length, dtype=np.int32)) if token_types else None,
        )
        for length in lengths
    ]


def items_of_all_shapes(seed: int = 0, *, token_types: bool = False) -> list[Item]:
    return [
        item
        for shape in SHAPES
        for item in random_items(*shape, seed=seed, token_types=token_types)
    ]


def plain(module: torch.nn.Module, items: Sequence[Item]) -> list[Arrays]:
    """The same numbers by the plainest way there is: each item alone, without padding."""
    answers: list[Arrays] = []
    for item in items:
        ids = torch.from_numpy(item.ids.astype(np.int64))[None]
        with torch.no_grad():
            outputs = module(ids, torch.ones_like(ids))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        answers.append(tuple(output[0].numpy() for output in outputs))
    return answers


def require_close(found: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
    for answer, wanted in zip(found, expected, strict=True):
        for array, reference in zip(answer, wanted, strict=True):
            assert array.dtype == np.float32
            assert array.shape == reference.shape
            np.testing.assert_allclose(array, reference, atol=2e-6)


class EngineConformity:
    """Inherited; fixtures of each heir: ``engine`` runs ``classifier()`` in f32, ``open_engine``
    is an ``OpenEngine``."""

    def test_numbers_are_those_of_plain_torch(self, engine: Engine) -> None:
        items = items_of_all_shapes()
        require_close(engine.infer(items).outputs, plain(classifier(), items))

    def test_padding_changes_nothing(self, engine: Engine) -> None:
        (item,), (longer,) = random_items(1, 9), random_items(1, 29)
        alone, together = engine.infer([item]), engine.infer([item, longer])
        assert (alone.padded_tokens, together.padded_tokens) == (9, 2 * 29)
        require_close(together.outputs[:1], alone.outputs)

    def test_token_types_are_those_of_transformers(self, open_engine: OpenEngine) -> None:
        items, model = items_of_all_shapes(token_types=True), bert()
        expected: list[Arrays] = []
        for item in items:
            assert item.types is not None
            ids = torch.from_numpy(item.ids.astype(np.int64))[None]
            types = torch.from_numpy(item.types.astype(np.int64))[None]
            with torch.no_grad():
                logits = model(input_ids=ids, token_type_ids=types).logits
            expected.append((logits[0].numpy(),))
        with closing(open_engine(classifier, token_types=True)) as engine:
            require_close(engine.infer(items).outputs, expected)
        # Without them the numbers would be others.
        without = plain(classifier(), items)
        assert any(
            np.abs(one[0] - other[0]).max() > 1e-4
            for one, other in zip(without, expected, strict=True)
        )

    def test_each_output_of_several_is_cut_to_its_item(self, open_engine: OpenEngine) -> None:
        items = items_of_all_shapes()
        with closing(open_engine(two_outputs)) as engine:
            found = engine.infer(items).outputs
        for item, (of_text, of_tokens) in zip(items, found, strict=True):
            assert of_text.shape == (3,)
            assert of_tokens.shape == (len(item.ids), 5)
        require_close(found, plain(two_outputs(), items))

    def test_answers_outlive_later_batches(self, engine: Engine) -> None:
        first = engine.infer(random_items(4, 9)).outputs
        kept = [array.copy() for (array,) in first]
        for seed in range(1, 20):
            engine.infer(random_items(4, 9, seed))
        for (array,), copy in zip(first, kept, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_concurrent_callers_get_their_own_answers(self, engine: Engine) -> None:
        calls = [items_of_all_shapes(seed) for seed in range(6)]
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(engine.infer, calls))
        for call, answer in zip(calls, answers, strict=True):
            require_close(answer.outputs, plain(classifier(), call))

    def test_nothing_in_nothing_out(self, engine: Engine) -> None:
        assert engine.infer([]) == ([], 0, 0)

    def test_cost_is_counted(self, engine: Engine) -> None:
        inferred = engine.infer(random_items(5, 12))
        assert inferred.padded_tokens == 5 * 12
        assert inferred.compute_s > 0

    def test_warm_engine_answers_the_same(self, engine: Engine) -> None:
        items = random_items(2, 9)
        engine.warm_up(items[0])
        require_close(engine.infer(items).outputs, plain(classifier(), items))

    @pytest.mark.parametrize("token_id", [VOCABULARY, -1])
    def test_token_outside_the_vocabulary_is_an_error(self, engine: Engine, token_id: int) -> None:
        good, bad = random_items(2, 5), random_items(2, 5)
        bad[1].ids[0] = token_id
        with pytest.raises(EngineError, match=f"batch 0: token id {token_id} is outside"):
            engine.infer([*good, *bad])
        require_close(engine.infer(good).outputs, plain(classifier(), good))

    def test_failing_batch_spares_the_next(self, engine: Engine) -> None:
        good, longer_than_the_model = random_items(2, 5), random_items(1, POSITIONS + 1)
        with pytest.raises(EngineError, match=rf"shape \(3, {POSITIONS + 1}\)"):
            engine.infer([*good, *longer_than_the_model])
        require_close(engine.infer(good).outputs, plain(classifier(), good))

    def test_closed_engine_reports_it(self, open_engine: OpenEngine) -> None:
        engine = open_engine(classifier)
        engine.close()
        (item,) = random_items(1, 4)
        for compute in (lambda: engine.infer([item]), lambda: engine.warm_up(item)):
            with pytest.raises(EngineError, match="closed"):
                compute()
