from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, BertModel

from serve.artifact import Artifact, ModelCard, Pooling, PoolingMode
from serve.engine.protocol import Batch
from serve.errors import ArtifactError
from serve.module import build_module
from serve.sources import locate
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS

pytestmark = pytest.mark.model

MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


def batch_of(artifact: Artifact) -> Batch:
    tokenizer = TextTokenizer.of(artifact)
    return tokenizer.pad([item.ids for item in tokenizer.encode(TEXTS)])


def run(module: torch.nn.Module, batch: Batch) -> NDArray[np.float32]:
    tensors = (torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask))
    return np.asarray(module(*tensors))


def with_pooling(artifact: Artifact, pooling: Pooling) -> Artifact:
    card = artifact.card.model_copy(update={"pooling": pooling})
    return Artifact(artifact.path, artifact.digest, card)


def reference(artifact: Artifact, batch: Batch, pooling: Pooling) -> NDArray[np.float64]:
    """Each item alone and unpadded through plain transformers, pooled by numpy."""
    encoder = BertModel.from_pretrained(artifact.path, add_pooling_layer=False)
    embeddings = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        tokens = torch.from_numpy(ids[mask == 1][None])
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
        expected = plain(*map(torch.from_numpy, batch)).logits.numpy()

    np.testing.assert_allclose(run(build_module(sentiment), batch), expected, atol=1e-5)
    assert expected.std() > 0.1  # random, and yet not all the same


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
        labels=("a", "b"),
        problem_type="single_label",
        max_length=64,
    )
    with pytest.raises(ArtifactError, match="3 classes, but the card has 2 labels"):
        build_module(Artifact(sentiment.path, sentiment.digest, card))
