"""Every head of the usual families, through both engines, against transformers' own outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoTokenizer

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.contract import Failure
from serve.engine.choice import open_engine
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
from serve.importing import import_model
from serve.module import build_module
from serve.registry import task_type
from serve.settings import EngineSettings
from serve.sources import locate
from serve.task import Passage
from serve.tokenize import TextTokenizer
from tests.serve.heads import TOKENIZER_CONFIG

pytestmark = pytest.mark.model

SIZES = {
    "vocab_size": 30_522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "mpnet": {},
    "xlm-roberta": {},
    "deberta-v2": {"type_vocab_size": 0, **RELATIVE},
    "modernbert": {"local_attention": 8},
}
TASKS = (
    "text-classification",
    "token-classification",
    "question-answering",
    "sentence-similarity",
)
USUAL = {("bert", "question-answering"), ("deberta-v2", "token-classification")}
SINGLE = [("fine day", None), ("the battery is good and the screen is bad " * 8, None)]
PAIRS = [("Is it fine?", "It is a fine day."), ("Who?", "the battery is good " * 20)]


def make_source(family: str, model_class: str, directory: Path) -> Path:
    labels = 3 if model_class.endswith("Classification") else 2
    config = CONFIG_MAPPING[family](**{**SIZES, **FAMILIES[family], "num_labels": labels})
    torch.manual_seed(3)
    auto = getattr(transformers, model_class)
    model = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    model.save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return directory


def expected_outputs(
    source: Path, model_class: str, passages: list[tuple[str, str | None]]
) -> list[np.ndarray[Any, Any]]:
    """Outputs of transformers, one passage at a time, as its pipelines compute them."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    auto = getattr(transformers, model_class)
    model = auto.from_pretrained(source, attn_implementation="eager").eval()
    found = []
    for text, pair in passages:
        # The tokeniser of the packaged model gives token types, which not every family takes.
        inputs = tokenizer(text, pair, return_tensors="pt")
        if not getattr(model.config, "type_vocab_size", 0):
            inputs.pop("token_type_ids", None)
        if getattr(model.config, "type_vocab_size", 0) == 1:
            inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
        with torch.no_grad():
            output = model(**inputs)
        if "start_logits" in output:
            found.append(torch.stack([output.start_logits, output.end_logits], dim=-1)[0].numpy())
        elif "logits" in output:
            found.append(output.logits[0].numpy())
        else:
            mean = output.last_hidden_state.mean(dim=1)
            found.append(torch.nn.functional.normalize(mean, dim=-1)[0].numpy())
    return found


def engine_outputs(
    artifact: Artifact,
    passages: list[tuple[str, str | None]],
    kind: Literal["openvino", "torch"],
) -> list[np.ndarray[Any, Any]]:
    tokenizer = TextTokenizer.of(artifact)
    items = []
    for windows in tokenizer.divide([Passage(*passage) for passage in passages]):
        assert not isinstance(windows, Failure)
        items.append(Item(windows[0].ids, windows[0].types))
    engine = open_engine(
        lambda: build_module(artifact),
        EngineSettings(kind=kind, precision="f32"),
        on_gpu=False,
        cache_dir=None,
        digest="d",
        batches=BatchSettings(),
        token_types=artifact.card.tokenizer.token_types,
    )
    together = engine.infer(items).outputs
    alone = [engine.infer([item]).outputs[0] for item in items]
    engine.close()
    for (one,), (other,) in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    return [output for (output,) in together]


@pytest.mark.parametrize("kind", ["openvino", "torch"])
@pytest.mark.parametrize(
    ("family", "task"),
    [
        (family, task)
        if (family, task) in USUAL
        else pytest.param(family, task, marks=pytest.mark.architectures)
        for family in FAMILIES
        for task in TASKS
    ],
)
def test_head_answers_as_transformers_does(
    family: str, task: str, kind: Literal["openvino", "torch"], tmp_path: Path
) -> None:
    chosen = task_type(task)
    source = make_source(family, chosen.model_class, tmp_path / "source")
    artifact = import_model(str(source), tmp_path / "out", task=task, max_length=128)
    passages = [*SINGLE, *(PAIRS if chosen.reads_pairs else ())]

    found = engine_outputs(artifact, passages, kind)
    expected = expected_outputs(source, chosen.model_class, passages)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1.0, float(abs(theirs).max())))
