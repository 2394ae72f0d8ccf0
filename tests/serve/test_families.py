from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.engine.choice import open_engine
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
from serve.errors import ArtifactError
from serve.families import REFUSED
from serve.importing import import_model
from serve.module import build_module
from serve.settings import EngineSettings
from serve.sources import locate
from serve.tokenize import TextTokenizer
from tests.serve.families import CLASSIFIERS, OTHERS, REPRESENTATIVE, USUAL_CLASSIFIERS

pytestmark = pytest.mark.model

ROWS = 30_522
# One size has another name in each family.
SIZES = {
    ROWS: ("vocab_size",),
    32: ("hidden_size", "n_embd", "emb_dim", "embedding_size", "input_embedding_size"),
    4: ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads"),
    # More than one layer with a local window, so that what one makes of padding is read by another.
    5: ("num_hidden_layers", "n_layer", "n_layers"),
    64: ("intermediate_size",),
    130: ("max_position_embeddings", "n_positions"),
    8: ("head_dim", "attention_window"),
}
EXTRA: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "funnel": {"block_sizes": [2, 2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "modernbert": {"local_attention": 8},
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
}
TEXTS = ["fine day", "the battery is good and the screen is bad " * 11]


def tiny_source(family: str, directory: Path, auto: Any = AutoModel, **more: Any) -> Path:
    """A Hugging Face directory of a tiny model with random, spread-out weights."""
    config_class = CONFIG_MAPPING[family]
    default = config_class()
    sizes = {
        name: size
        for size, names in SIZES.items()
        for name in names
        if hasattr(default, name)
        and name not in config_class.attribute_map
        and not isinstance(getattr(config_class, name, None), property)
    }
    config = config_class(**{**sizes, "pad_token_id": 0, **EXTRA.get(family, {}), **more})
    torch.manual_seed(3)
    model = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    # Some heirs tie or round weights while saving, and log it.
    transformers_logging.set_verbosity_error()
    model.save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    # Otherwise transformers takes the class of the family, with words that the file does not have.
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return directory


def items_of(artifact: Artifact) -> list[Item]:
    encoded = TextTokenizer.of(artifact).encode(TEXTS)
    return [Item(one.ids, one.types) for one in encoded]


def require_answers(
    artifact: Artifact,
    kind: Literal["auto", "torch"],
    items: list[Item],
    expected: NDArray[np.float32],
    *,
    engine_name: str,
    tolerance: float,
) -> None:
    """Compare an engine's outputs for the items in one batch, and alone."""
    engine = open_engine(
        lambda: build_module(artifact),
        EngineSettings(kind=kind, precision="f32"),
        on_gpu=False,
        cache_dir=None,
        digest="d",
        batches=BatchSettings(pad_id=TextTokenizer.of(artifact).pad_id),
        token_types=artifact.card.tokenizer.token_types,
    )
    together = engine.infer(items)
    alone = [engine.infer([item]).outputs[0] for item in items]
    engine.close()
    assert engine.name == engine_name
    assert together.padded_tokens == len(items) * max(len(item.ids) for item in items)
    for outputs in (together.outputs, alone):
        found = np.stack([output for (output,) in outputs])
        np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(
    ("family", "engine_name"),
    [
        *REPRESENTATIVE.items(),
        *(pytest.param(*pair, marks=pytest.mark.architectures) for pair in OTHERS.items()),
    ],
)
def test_family_answers_as_transformers_does(family: str, engine_name: str, tmp_path: Path) -> None:
    source = tiny_source(family, tmp_path / "source")
    artifact = import_model(
        str(source),
        tmp_path / "out",
        task="feature-extraction",
        head={"pooling": {"mode": "mean"}},
        max_length=128,
    )
    items = items_of(artifact)
    plain = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    with torch.no_grad():
        means = [
            plain(torch.tensor([item.ids.tolist()])).last_hidden_state.mean(dim=1) for item in items
        ]
    expected = torch.nn.functional.normalize(torch.cat(means), dim=-1).numpy()

    require_answers(artifact, "auto", items, expected, engine_name=engine_name, tolerance=1e-5)


CASES = [(family, "auto", engine) for family, engine in CLASSIFIERS.items()]
# The other engine has to answer the same where OpenVINO is what auto takes.
CASES += [(family, "torch", "torch") for family, kind, engine in CASES if engine == "openvino"]


@pytest.mark.parametrize(
    ("family", "kind", "engine_name"),
    [
        pytest.param(*case, marks=[] if case[0] in USUAL_CLASSIFIERS else pytest.mark.architectures)
        for case in CASES
    ],
)
def test_classifier_answers_as_transformers_does(
    family: str, kind: Literal["auto", "torch"], engine_name: str, tmp_path: Path
) -> None:
    auto = AutoModelForSequenceClassification
    source = tiny_source(family, tmp_path / "source", auto, num_labels=3)
    artifact = import_model(
        str(source), tmp_path / "out", task="text-classification", max_length=128
    )
    items = items_of(artifact)
    plain = auto.from_pretrained(source, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = [plain(torch.tensor([item.ids.tolist()])).logits for item in items]
    expected = torch.cat(logits).numpy()

    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    require_answers(artifact, kind, items, expected, engine_name=engine_name, tolerance=tolerance)


@pytest.mark.parametrize("family", ["layoutlm", "fnet"])
def test_refused_family_is_named_with_the_reason(family: str, tmp_path: Path) -> None:
    source = tiny_source(family, tmp_path / "source")
    with pytest.raises(ArtifactError, match=f"{family} is not served: {REFUSED[family]}"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")
