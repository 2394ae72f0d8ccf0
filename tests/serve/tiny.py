"""Tiny models with random weights, as fixtures, and texts for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.sources import locate

if TYPE_CHECKING:
    from transformers import BertConfig

# Lengths from one word to more than a tiny model takes, two alphabets, blanks, punctuation.
TEXTS = [
    "fine",
    "Great phone, the battery lasts two days!",
    "The parcel came late and the box was open; nobody answered my mail.",
    "Слишком дорого, но работает.",
    "not   good\tnot\nbad",
    "?!...",
    "an even longer review that goes on about the hinge, the screen, the speakers, the keyboard "
    "and the price, and then returns to the hinge, because the hinge is what broke first",
]


MakeSource = Callable[..., Path]


def tiny_config(**changes: object) -> BertConfig:
    """A BERT that computes in microseconds and reads the packaged vocabulary."""
    from transformers import BertConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    return BertConfig(
        **{"intermediate_size": 64, "max_position_embeddings": 64, **sizes, **changes}
    )


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory) -> MakeSource:
    """Writes a Hugging Face directory of a tiny model with random, spread-out weights."""
    import torch
    from transformers import BertForSequenceClassification, BertModel

    def make(*, classifies: bool = True, **config: object) -> Path:
        directory = tmp_path_factory.mktemp("source")
        torch.manual_seed(7)
        architecture = BertForSequenceClassification if classifies else BertModel
        model = architecture(tiny_config(initializer_range=0.3, **config))
        model.save_pretrained(directory)
        shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
        return directory

    return make


@pytest.fixture(scope="session")
def sentiment(make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A tiny classifier of three labels with random weights, sealed."""
    from serve.importing import import_model

    out = tmp_path_factory.mktemp("models") / "sentiment"
    source = make_source(num_labels=3)
    labels = ("negative", "neutral", "positive")
    return import_model(str(source), out, task="text-classification", head={"labels": labels})
