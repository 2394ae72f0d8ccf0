from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING

from serve.combining import combine
from serve.module import build_module
from serve.multi_head import HEADS_DIR
from serve.tokenize import TextTokenizer
from tests.serve.heads import heads_of
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = pytest.mark.model

TASKS = ("text-classification", "token-classification", "feature-extraction")
SIZES = {
    "vocab_size": 30_522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
    "pad_token_id": 0,
}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
FAMILIES = {
    "bert": {},
    "distilbert": DISTILBERT,
    "roberta": {},
    "xlm-roberta": {},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 32},
    "mpnet": {},
    "deberta-v2": {},
    "modernbert": {"local_attention": 8},
}
USUAL = ("distilbert", "albert")


def config_of(family: str) -> Any:
    return CONFIG_MAPPING[family](**{**SIZES, **FAMILIES[family]})


@pytest.mark.parametrize(
    "family",
    [
        family if family in USUAL else pytest.param(family, marks=pytest.mark.architectures)
        for family in FAMILIES
    ],
)
def test_heads_on_one_encoder_compute_what_whole_models_do(family: str, tmp_path: Path) -> None:
    alone = heads_of(config_of(family), TASKS, tmp_path)
    combined = combine({name: one.path for name, one in alone.items()}, tmp_path / "combined")
    tokenizer = TextTokenizer.of(combined)
    (encoded, *_) = tokenizer.encode([TEXTS[1]])
    arguments = [torch.from_numpy(encoded.ids.astype(np.int64)).unsqueeze(0)]
    arguments.append(torch.ones_like(arguments[0]))

    outputs = build_module(combined)(*arguments)
    assert len(outputs) == len(TASKS)
    for output, artifact in zip(outputs, alone.values(), strict=True):
        expected = build_module(artifact)(*arguments)
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)


def test_encoder_computes_once_and_is_stored_once(tmp_path: Path) -> None:
    alone = heads_of(tiny_config(), TASKS, tmp_path)
    combined = combine({name: one.path for name, one in alone.items()}, tmp_path / "combined")
    module = build_module(combined)
    calls: list[object] = []
    layer = next(part for name, part in module.named_modules() if name.endswith("layer.0"))
    layer.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.ones((1, 4), dtype=torch.int64)
    module(ids, torch.ones_like(ids))

    assert len(calls) == 1
    heads = sum(file.stat().st_size for file in (combined.path / HEADS_DIR).rglob("*.safetensors"))
    assert heads < (combined.path / "model.safetensors").stat().st_size / 100


def test_threads_do_not_mix_their_texts(tmp_path: Path) -> None:
    alone = heads_of(tiny_config(), TASKS[:2], tmp_path)
    module = build_module(
        combine({name: one.path for name, one in alone.items()}, tmp_path / "combined")
    )
    batches = [torch.randint(1, 1_000, (1 + n % 3, 3 + n)) for n in range(40)]
    expected = [module(ids, torch.ones_like(ids)) for ids in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda ids: module(ids, torch.ones_like(ids)), batches))

    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)
