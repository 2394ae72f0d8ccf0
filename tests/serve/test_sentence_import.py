"""Embeddings of imported directories beside those of the library on the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from serve.artifact import Artifact
from serve.embedding import EmbeddingHead, Pooling
from serve.engine.padding import pad
from serve.engine.protocol import Item
from serve.errors import ArtifactError
from serve.importing import import_model
from serve.module import build_module
from serve.task import Passage
from serve.tasks.feature_extraction import FeatureExtraction, FeatureParameters
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS, MakeSource

pytestmark = pytest.mark.model

PLACES = {
    "Transformer": "sentence_transformers.models.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.models.Dense",
}
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
SWITCHES = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens"]
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
PROMPTS = {"prompts": {"query": "Query: ", "cased": "FIND "}}


def write(file: Path, document: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(orjson.dumps(document))


def make(source: Path, *modules: tuple[str, dict[str, Any]], **files: dict[str, Any]) -> Path:
    """Write modules, each with its configuration, and files by their names."""
    rows = [{"idx": 0, "name": "0", "path": "", "type": PLACES["Transformer"]}]
    for index, (kind, config) in enumerate(modules, start=1):
        folder = f"{index}_{kind}"
        place = PLACES.get(kind, f"sentence_transformers.models.{kind}")
        rows.append({"idx": index, "name": str(index), "path": folder, "type": place})
        write(source / folder / "config.json", config)
        if kind in ("Dense", "LayerNorm"):
            save_file(weights_of(kind, config), source / folder / "model.safetensors")
    write(source / "modules.json", rows)
    for name, content in files.items():
        write(source / f"{name}.json", content)
    return source


def weights_of(kind: str, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    if kind == "LayerNorm":
        width = (config["dimension"],)
        sizes: dict[str, tuple[int, ...]] = {"norm.weight": width, "norm.bias": width}
    else:
        out = config["out_features"]
        sizes = {"linear.weight": (out, config["in_features"]), "linear.bias": (out,)}
        if config.get("bias") is False:
            del sizes["linear.bias"]
    return {name: torch.randn(size) for name, size in sizes.items()}


def embed(artifact: Artifact, texts: list[str]) -> NDArray[np.float32]:
    """Each text after the default prompt, as a replica computes it."""
    tokenizer = TextTokenizer.of(artifact)
    task = FeatureExtraction.open(artifact, tokenizer, precision="f32")
    passages: list[Passage] = []
    for text in texts:
        found = task.passages((text,), FeatureParameters())
        assert isinstance(found, list)
        passages += found
    items: list[Item] = []
    for windows in tokenizer.divide(passages):
        assert isinstance(windows, list)
        items.append(Item(windows[0].ids))
    batch = pad(items, tokenizer.pad_id)
    return np.asarray(build_module(artifact)(*map(torch.from_numpy, batch.inputs)))


def dense(inputs: int, outputs: int, **config: Any) -> tuple[str, dict[str, Any]]:
    return "Dense", {"in_features": inputs, "out_features": outputs, "bias": True, **config}


def pooled(*modes: str, **config: Any) -> tuple[str, dict[str, Any]]:
    mode: Any = modes[0] if len(modes) == 1 else list(modes)
    return "Pooling", {"embedding_dimension": 32, "pooling_mode": mode, **config}


CASES: dict[str, tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    **{mode: ([pooled(mode)], {}) for mode in MODES},
    **{
        switch: (
            [("Pooling", {"word_embedding_dimension": 32, f"pooling_mode_{switch}": True})],
            {},
        )
        for switch in SWITCHES
    },
    "all modes, in their own order": ([pooled(*reversed(MODES))], {}),
    "all switches, in the library's order": (
        [("Pooling", MEAN | {f"pooling_mode_{switch}": True for switch in reversed(SWITCHES)})],
        {},
    ),
    "no switch": ([("Pooling", {"word_embedding_dimension": 32})], {}),
    "mode and switch": ([pooled("cls", pooling_mode_max_tokens=True)], {}),
    "normalised": ([("Pooling", MEAN), ("Normalize", {})], {}),
    "dropout": ([("Pooling", MEAN), ("Dropout", {"dropout": 0.9}), ("Normalize", {})], {}),
    "dense": ([("Pooling", MEAN), dense(32, 8, activation_function=TANH)], {}),
    "dense without activation": ([("Pooling", MEAN), dense(32, 8)], {}),
    "two dense": (
        [
            pooled("cls", "mean"),
            dense(64, 48, bias=False, activation_function=IDENTITY),
            ("Normalize", {}),
            dense(48, 8, activation_function="torch.nn.modules.activation.GELU"),
            ("Normalize", {}),
        ],
        {},
    ),
    "layer norm": ([("Pooling", MEAN), ("LayerNorm", {"dimension": 32})], {}),
    "cut": (
        [("Pooling", MEAN), ("Normalize", {})],
        {"config_sentence_transformers": {"truncate_dim": 12}},
    ),
    "lower case": ([("Pooling", MEAN)], {"sentence_bert_config": {"do_lower_case": True}}),
    "length": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {}, "sentence_xlm-roberta_config": {"max_seq_length": 9}},
    ),
    "length beside the tokeniser's": (
        [("Pooling", MEAN)],
        {
            "sentence_bert_config": {"max_seq_length": 20},
            "tokenizer_config": {"model_max_length": 12},
        },
    ),
    "options of the tokeniser": (
        [("Pooling", MEAN)],
        {
            "sentence_bert_config": {
                "max_seq_length": 20,
                "tokenizer_args": {"model_max_length": 10, "truncation_side": "left"},
                "model_args": {"torch_dtype": "float32"},
            }
        },
    ),
    "prompt": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": {**PROMPTS, "default_prompt_name": "query"}},
    ),
    "prompt in capitals": (
        [("Pooling", MEAN)],
        {
            "config_sentence_transformers": {**PROMPTS, "default_prompt_name": "cased"},
            "sentence_bert_config": {"do_lower_case": True},
        },
    ),
    "prompt that is empty": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": {"default_prompt_name": "document"}},
    ),
    "prompts without a default": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": PROMPTS},
    ),
    **{
        f"{mode} without its prompt": (
            [pooled(mode, include_prompt=False)],
            {"config_sentence_transformers": {**PROMPTS, "default_prompt_name": "query"}},
        )
        for mode in MODES
    },
}


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_the_library(
    make_source: MakeSource, tmp_path: Path, case: str
) -> None:
    modules, files = CASES[case]
    source = make(make_source(classifies=False), *modules, **files)
    texts = [*TEXTS, "Hello World", "FIND this [SEP] Query: that"]

    artifact = import_model(str(source), tmp_path, task="feature-extraction")
    found = embed(artifact, texts).astype(np.float64)
    peer = SentenceTransformer(str(source), device="cpu")
    wanted = peer.encode(texts, batch_size=2).astype(np.float64)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    assert ((found * wanted).sum(axis=1) / norms).min() > 0.99999


def test_cased_tokeniser_is_lowered(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(classifies=False)
    write(source / "tokenizer_config.json", {"do_lower_case": False})
    make(source, ("Pooling", MEAN), sentence_bert_config={"do_lower_case": True})

    artifact = import_model(str(source), tmp_path, task="feature-extraction")
    same = embed(artifact, ["Hello World", "hello world"])
    np.testing.assert_array_equal(same[0], same[1])
    wanted = SentenceTransformer(str(source), device="cpu").encode(["Hello World"])
    np.testing.assert_allclose(same[:1], wanted, atol=1e-5)


REFUSALS: dict[str, tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    "it has the module CNN": ([("Pooling", MEAN), ("CNN", {})], {}),
    "has the modules Transformer, WordWeights": ([("WordWeights", {})], {}),
    "has the modules Transformer, but only": ([], {}),
    "pooling 'median'": ([pooled("median")], {}),
    "pooling 'weights_from'": ([pooled("mean", weights_from="x")], {}),
    "use_residual is set": ([("Pooling", MEAN), dense(32, 32, use_residual=True)], {}),
    "activation_function is torch.nn.modules.activation.Hardtanh": (
        [
            ("Pooling", MEAN),
            dense(32, 8, activation_function="torch.nn.modules.activation.Hardtanh"),
        ],
        {},
    ),
    "activation_function is own.Act": (
        [("Pooling", MEAN), dense(32, 8, activation_function="own.Act")],
        {},
    ),
    "module_input_name is 'token_embeddings'": (
        [("Pooling", MEAN), ("Normalize", {"module_input_name": "token_embeddings"})],
        {},
    ),
    "cannot compute from": ([("Pooling", MEAN), dense(33, 8)], {}),
    "default_prompt_name is 'passage', but the prompts are 'query', 'document'": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": {"default_prompt_name": "passage"}},
    ),
    "the prompt 'query' is 5": (
        [("Pooling", MEAN)],
        {
            "config_sentence_transformers": {
                "prompts": {"query": 5},
                "default_prompt_name": "query",
            }
        },
    ),
    "the model is a SparseEncoder": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": {"model_type": "SparseEncoder"}},
    ),
    "truncate_dim is 0": (
        [("Pooling", MEAN)],
        {"config_sentence_transformers": {"truncate_dim": 0}},
    ),
    "max_seq_length is '256'": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"max_seq_length": "256"}},
    ),
    "do_lower_case is 'yes'": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"do_lower_case": "yes"}},
    ),
    "transformer_task is 'fill-mask'": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"transformer_task": "fill-mask"}},
    ),
    "model_kwargs is": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"model_args": {"hidden_act": "relu"}}},
    ),
    "config_kwargs is": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"config_args": {"num_hidden_layers": 1}}},
    ),
    "processing_kwargs is": (
        [("Pooling", MEAN)],
        {"sentence_bert_config": {"processing_kwargs": {"text": {"max_length": 3}}}},
    ),
    "pad_to is 8": ([("Pooling", MEAN)], {"sentence_bert_config": {"pad_to": 8}}),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_is_not_computed_is_refused_by_name(
    make_source: MakeSource, tmp_path: Path, message: str
) -> None:
    modules, files = REFUSALS[message]
    source = make(make_source(classifies=False), *modules, **files)

    with pytest.raises(ArtifactError) as caught:
        import_model(str(source), tmp_path / "out", task="feature-extraction")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_broken_and_foreign_modules_are_named(make_source: MakeSource, tmp_path: Path) -> None:
    source = make(make_source(classifies=False), ("Pooling", MEAN), dense(32, 8))
    for name, content, message in (
        ("2_Dense/model.safetensors", "x", "cannot be read"),
        ("2_Dense/model.safetensors", None, "is missing"),
        ("1_Pooling/config.json", "{", "config.json: is not JSON"),
        ("1_Pooling/config.json", None, "config.json is missing"),
        ("sentence_bert_config.json", "?", "is not JSON"),
        ("modules.json", '[{"path": "", "type": "own.Net"}]', "own.Net is custom code"),
        ("modules.json", '[{"idx": 0}]', "must list modules"),
    ):
        if content is None:
            (source / name).unlink()
        else:
            (source / name).write_text(content)
        with pytest.raises(ArtifactError, match=message):
            import_model(str(source), tmp_path / "out", task="feature-extraction")


def test_pooling_of_ones_own_replaces_what_is_refused(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make(make_source(classifies=False), ("Pooling", MEAN), ("CNN", {}))

    pooling = Pooling(mode="cls")
    head = {"pooling": pooling}
    artifact = import_model(str(source), tmp_path, task="feature-extraction", head=head)
    assert artifact.card.head == EmbeddingHead(pooling=pooling)


def test_prompts_are_kept_by_name_and_may_be_replaced(
    make_source: MakeSource, tmp_path: Path
) -> None:
    files = {"config_sentence_transformers": {**PROMPTS, "default_prompt_name": "query"}}
    source = str(make(make_source(classifies=False), ("Pooling", MEAN), **files))

    artifact = import_model(source, tmp_path / "own", task="feature-extraction")
    # sentence-transformers also defines an empty one for documents.
    prompts = {"query": "Query: ", "document": "", "cased": "FIND "}
    assert artifact.card.head == EmbeddingHead(
        pooling=Pooling(normalize=False), prompts=prompts, default_prompt_name="query"
    )
    head: dict[str, Any] = {"default_prompt_name": None}
    artifact = import_model(source, tmp_path / "none", task="feature-extraction", head=head)
    assert artifact.card.head == EmbeddingHead(pooling=Pooling(normalize=False), prompts=prompts)
    head = {"prompts": {"x": "X: "}, "default_prompt_name": "x"}
    artifact = import_model(source, tmp_path / "other", task="feature-extraction", head=head)
    assert artifact.card.head == EmbeddingHead(pooling=Pooling(normalize=False), **head)
    head = {"default_prompt_name": "y"}
    with pytest.raises(ArtifactError, match="feature-extraction: there is no prompt 'y'"):
        import_model(source, tmp_path / "bad", task="feature-extraction", head=head)


def test_transformer_in_a_folder_is_found(make_source: MakeSource, tmp_path: Path) -> None:
    network = make_source(classifies=False)
    source = tmp_path / "source"
    source.mkdir()
    network.rename(source / "0_Transformer")
    make(source, pooled("cls"))
    rows = orjson.loads((source / "modules.json").read_bytes())
    rows[0]["path"] = "0_Transformer"
    write(source / "modules.json", rows)
    write(source / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 17})

    artifact = import_model(str(source), tmp_path / "out", task="feature-extraction")
    assert artifact.card.max_length == 17
    wanted = SentenceTransformer(str(source), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embed(artifact, TEXTS), wanted, atol=1e-5)


def test_without_modules_the_other_files_do_not_count(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source(classifies=False)
    write(source / "sentence_bert_config.json", {"max_seq_length": 9})

    artifact = import_model(str(source), tmp_path, task="feature-extraction")
    assert artifact.card.head == EmbeddingHead(pooling=Pooling(mode="mean", normalize=True))
    wanted = SentenceTransformer(str(source), device="cpu").encode(TEXTS)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(artifact, TEXTS), wanted, atol=1e-5)
