from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from serve.artifact import TOKENIZER_FILE, Artifact, ModelCard
from serve.embedding import EmbeddingHead, Pooling, PoolingMode
from serve.engine.padding import Batch, pad
from serve.engine.protocol import Item
from serve.errors import ArtifactError
from serve.module import build_module
from serve.sources import locate
from serve.task import Passage
from serve.tasks.text_classification import ClassificationHead
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS

pytestmark = pytest.mark.model

MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


def batch_of(artifact: Artifact) -> Batch:
    tokenizer = TextTokenizer.of(artifact)
    items = [Item(encoded.ids, encoded.types) for encoded in tokenizer.encode(TEXTS)]
    return pad(items, tokenizer.pad_id)


def run(module: torch.nn.Module, batch: Batch) -> NDArray[np.float32]:
    return np.asarray(module(*map(torch.from_numpy, batch.inputs)))


def with_pooling(artifact: Artifact, pooling: Pooling) -> Artifact:
    card = artifact.card.model_copy(update={"head": EmbeddingHead(pooling=pooling)})
    return Artifact(artifact.path, artifact.digest, card)


def reference(artifact: Artifact, batch: Batch, pooling: Pooling) -> NDArray[np.float64]:
    """Each item alone and unpadded through plain transformers, pooled by numpy."""
    encoder = BertModel.from_pretrained(artifact.path, add_pooling_layer=False)
    embeddings = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        tokens: Any = torch.from_numpy(ids[mask == 1][None])
        with torch.no_grad():
            layers = encoder(tokens, output_hidden_states=True).hidden_states
        states = np.stack([layer[0].double().numpy() for layer in layers])  # (layers, T, H)
        embeddings.append(
            {
                "mean": states[-1].mean(axis=0),
                "cls": states[-1][0],
                "max": states[-1].max(axis=0),
                "mean-max": np.concatenate([states[-1].mean(axis=0), states[-1].max(axis=0)]),
                "mean-sqrt-len": states[-1].sum(axis=0) / len(states[-1]) ** 0.5,
                "weighted-mean": np.average(
                    states[-1], axis=0, weights=np.arange(1, states.shape[1] + 1)
                ),
                "last-token": states[-1][-1],
                "last-k": states[-pooling.last_k :].mean(axis=(0, 1)),
            }[pooling.mode]
        )
    found = np.stack(embeddings)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return found / norms if pooling.normalize else found


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_pooling_is_that_of_a_plain_reference(
    features: Artifact, mode: PoolingMode, normalize: bool
) -> None:
    pooling = Pooling(mode=mode, normalize=normalize, last_k=2)
    batch = batch_of(features)

    found = run(build_module(with_pooling(features, pooling)), batch)
    np.testing.assert_allclose(found, reference(features, batch, pooling), atol=2e-5)


def test_half_precision_points_the_same_way(minilm: Artifact) -> None:
    batch = batch_of(minilm)
    half = run(build_module(minilm).to(torch.bfloat16), batch)

    cosines = (half * run(build_module(minilm), batch)).sum(axis=1)
    assert half.dtype == np.float32
    assert cosines.min() > 0.999


def test_classifier_gives_the_logits_of_transformers(sentiment: Artifact) -> None:
    batch = batch_of(sentiment)
    plain = AutoModelForSequenceClassification.from_pretrained(sentiment.path)
    with torch.no_grad():
        expected = plain(*map(torch.from_numpy, batch.inputs[:2])).logits.numpy()

    assert len(batch.inputs) == 3
    np.testing.assert_allclose(run(build_module(sentiment), batch), expected, atol=1e-5)
    assert expected.std() > 0.1  # random, and yet not all the same


def test_classifier_gives_the_logits_of_transformers_for_pairs(sentiment: Artifact) -> None:
    tokenizer = TextTokenizer.of(sentiment)
    pairs = [Passage(one, other) for one, other in itertools.pairwise(TEXTS)]
    items = [
        Item(windows[0].ids, windows[0].types)
        for windows in tokenizer.divide(pairs)
        if isinstance(windows, list)
    ]
    found = run(build_module(sentiment), pad(items, tokenizer.pad_id))
    plain = AutoModelForSequenceClassification.from_pretrained(sentiment.path)
    peer = PreTrainedTokenizerFast(
        tokenizer_file=str(sentiment.path / TOKENIZER_FILE),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    for logits, (one, other) in zip(found, pairs, strict=True):
        encoded = peer(one, other, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            expected = plain(**encoded).logits[0].numpy()
            without = plain(encoded["input_ids"]).logits[0].numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert np.abs(logits - without).max() > 1e-4


def test_vectors_of_tokens_are_those_of_a_plain_reference(features: Artifact) -> None:
    head = EmbeddingHead(pooling=Pooling(), tokens=True)
    card = features.card.model_copy(update={"head": head})
    batch = batch_of(features)
    found = run(build_module(Artifact(features.path, features.digest, card)), batch)

    encoder = BertModel.from_pretrained(features.path, add_pooling_layer=False)
    assert found.shape == (*batch.input_ids.shape, 32)
    for states, ids, mask in zip(found, batch.input_ids, batch.attention_mask, strict=True):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(ids[mask == 1][None])).last_hidden_state[0]
        np.testing.assert_allclose(states[mask == 1], expected.numpy(), atol=1e-5)


def test_embeddings_agree_with_sentence_transformers(minilm: Artifact) -> None:
    peer = SentenceTransformer(str(locate(None)), device="cpu").encode(TEXTS)
    found = run(build_module(minilm), batch_of(minilm))

    assert (found * peer).sum(axis=1).min() > 0.9999


def test_more_layers_than_there_are_is_refused(features: Artifact) -> None:
    with pytest.raises(ArtifactError, match="last 7 layers, but the encoder has only 3"):
        build_module(with_pooling(features, Pooling(mode="last-k", last_k=7)))


def test_labels_must_match_the_classes(sentiment: Artifact) -> None:
    card = ModelCard(
        task="text-classification",
        head=ClassificationHead(labels=("a", "b"), problem_type="single_label"),
        max_length=64,
    )
    with pytest.raises(ArtifactError, match="3 classes, but the card has 2;"):
        build_module(Artifact(sentiment.path, sentiment.digest, card))
