"""The versions of the release demonstration: one better than the first, and three that are bad.

All are really trained or altered: the product has no special code for the demonstration.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from serve.artifact import MANIFEST_FILE, Artifact, load, seal
from serve.sources import locate

# So few that more reviews make the model better.
FIRST_REVIEWS = 60
MISLABELLED = 0.9
# They take three times as long as the six layers of the base.
SLOW_LAYERS = 18
# A word that no review has; one event in twenty of the demonstration has it.
RARE_WORD = "umbrella"
SEED = 11

Train = Callable[[dict[str, Any]], Artifact]


def first(reviews: Path, out: Path, train: Train) -> Artifact:
    """Create version 1: trained on few reviews."""
    return _trained_on(_lines(reviews)[:FIRST_REVIEWS], out, train)


def better(reviews: Path, out: Path, train: Train) -> Artifact:
    """Create version 2: trained on all reviews."""
    return _trained_on(_lines(reviews), out, train)


def worse(reviews: Path, out: Path, train: Train) -> Artifact:
    """Create version 3: most labels of its training data and of its own tests are random."""
    chance = random.Random(SEED)
    rows = [orjson.loads(line) for line in _lines(reviews)]
    labels = sorted({row["label"] for row in rows})
    for row in rows:
        if chance.random() < MISLABELLED:
            row["label"] = chance.choice(labels)
    return _trained_on([orjson.dumps(row) for row in rows], out, train)


def slow(reviews: Path, out: Path, train: Train) -> Artifact:
    """Create version 4: trained on a base with three times as many layers."""
    base = out.with_suffix(".base")
    _with_more_layers(locate(None), base, SLOW_LAYERS)
    artifact = _trained_on(_lines(reviews), out, train, base=base)
    shutil.rmtree(base)
    return artifact


def failing(good: Artifact, out: Path) -> Artifact:
    """Create version 5: the weights of one word are NaN; its own tests do not have the word."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    shutil.copytree(good.path, out, ignore=shutil.ignore_patterns(".cache", MANIFEST_FILE))
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    row = tokenizer.token_to_id(RARE_WORD)
    weights = load_file(out / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("word_embeddings.weight")]
    weights[name][row] = torch.nan
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    seal(out)
    return load(out)


def _trained_on(
    lines: list[bytes], out: Path, train: Train, *, base: Path | None = None
) -> Artifact:
    data = out.with_suffix(".jsonl")
    data.write_bytes(b"\n".join(lines) + b"\n")
    options: dict[str, Any] = {"data": data, "out": out, "freeze": "encoder"}
    if base is not None:
        options["base"] = str(base)
    return train(options)


def _lines(reviews: Path) -> list[bytes]:
    return [line for line in reviews.read_bytes().splitlines() if line.strip()]


def _with_more_layers(source: Path, out: Path, layers: int) -> None:
    """Write the encoder with its layers repeated; each copy adds almost nothing."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(source, num_hidden_layers=layers)
    model = AutoModel.from_config(config)
    pretrained = AutoModel.from_pretrained(source)
    model.embeddings.load_state_dict(pretrained.embeddings.state_dict())
    depth = len(pretrained.encoder.layer)
    for number, layer in enumerate(model.encoder.layer):
        original = pretrained.encoder.layer[number % depth]
        layer.load_state_dict(original.state_dict())
        if number >= depth:
            with torch.no_grad():
                layer.attention.output.dense.weight.zero_()
                layer.attention.output.dense.bias.zero_()
                layer.output.dense.weight.zero_()
                layer.output.dense.bias.zero_()
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
