from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, RobertaConfig, RobertaModel

from serve.artifact import TOKENIZER_FILE, WEIGHTS_FILE, Artifact, load
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ArtifactError
from serve.importing import import_model
from serve.sources import locate
from serve.task import Passage
from serve.tasks.text_classification import ClassificationHead, ProblemType
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS, MakeSource

pytestmark = pytest.mark.model


def classifies(*labels: str, problem_type: ProblemType = "single_label") -> ClassificationHead:
    return ClassificationHead(labels=labels, problem_type=problem_type)


def test_packaged_base_is_imported_without_a_network(minilm: Artifact) -> None:
    assert minilm.card.base == "all-MiniLM-L6-v2"
    assert minilm.card.max_length == 256
    assert minilm.card.head == EmbeddingHead(pooling=Pooling(mode="mean", normalize=True))
    assert load(minilm.path, task="feature-extraction") == minilm


def test_import_of_the_same_source_gives_the_same_digest(minilm: Artifact, tmp_path: Path) -> None:
    assert import_model(None, tmp_path, task="feature-extraction").digest == minilm.digest


def test_labels_come_from_the_source_unless_given(make_source: MakeSource, tmp_path: Path) -> None:
    source = str(make_source(id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}))

    own = import_model(source, tmp_path / "own", task="text-classification")
    head: dict[str, Any] = {"labels": ("n", "p")}
    given = import_model(source, tmp_path / "given", task="text-classification", head=head)

    assert own.card.head == classifies("bad", "good")
    assert given.card.head == classifies("n", "p")
    head = {"labels": ("a", "b", "c")}
    with pytest.raises(ArtifactError, match="3 labels were given, but the model has 2 classes"):
        import_model(source, tmp_path / "bad", task="text-classification", head=head)


def test_problem_type_comes_from_the_source(make_source: MakeSource, tmp_path: Path) -> None:
    multi = make_source(num_labels=3, problem_type="multi_label_classification")
    regression = make_source(num_labels=1, problem_type="regression")
    single = make_source(num_labels=1)
    labels = ("LABEL_0", "LABEL_1", "LABEL_2")

    artifact = import_model(str(multi), tmp_path / "multi", task="text-classification")
    assert artifact.card.head == classifies(*labels, problem_type="multi_label")
    artifact = import_model(str(regression), tmp_path / "regression", task="text-classification")
    assert artifact.card.head == classifies("LABEL_0", problem_type="regression")
    artifact = import_model(str(single), tmp_path / "single", task="text-classification")
    assert artifact.card.head == classifies("LABEL_0", problem_type="multi_label")


def test_fields_of_the_head_replace_those_of_the_source(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = str(make_source(num_labels=2))
    head = {"problem_type": "multi_label", "thresholds": {"LABEL_1": 0.25}}

    artifact = import_model(source, tmp_path / "out", task="text-classification", head=head)
    found = artifact.card.head
    assert isinstance(found, ClassificationHead)
    assert (found.problem_type, found.thresholds) == ("multi_label", {"LABEL_1": 0.25})
    assert load(artifact.path) == artifact
    for wrong, message in (
        ({"label": ["a", "b"]}, "text-classification: there is no label; did you mean labels?"),
        ({"problem_type": "ordinal"}, "problem_type: Input should be 'single_label'"),
        ({"labels": 2}, 'text-classification: labels: must be a list, such as ["a", "b"], not 2'),
        ({"pooling": {}}, "text-classification: there is no pooling; there are labels"),
    ):
        with pytest.raises(ArtifactError) as caught:
            import_model(source, tmp_path / "bad", task="text-classification", head=wrong)
        assert message in str(caught.value)
        assert not (tmp_path / "bad").exists()


def test_unknown_task_is_refused(make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such task: ranking"):
        import_model(str(make_source()), tmp_path / "out", task="ranking")


@pytest.mark.parametrize(
    ("config", "documents", "expected"),
    [
        ({}, {}, True),
        # Its table of token types has one row.
        ({"type_vocab_size": 1}, {}, False),
        # transformers does not give this model the types that its tokeniser makes.
        (
            {},
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_input_names": ["input_ids", "attention_mask"],
            },
            False,
        ),
    ],
)
def test_types_of_pairs_are_those_that_transformers_gives(
    make_source: MakeSource,
    tmp_path: Path,
    config: dict[str, object],
    documents: dict[str, object],
    expected: bool,
) -> None:
    source = make_source(num_labels=3, **config)
    if documents:
        (source / "tokenizer_config.json").write_bytes(orjson.dumps(documents))

    artifact = import_model(str(source), tmp_path / "out", task="text-classification")
    assert artifact.card.tokenizer.token_types is expected
    tokenizer, peer = TextTokenizer.of(artifact), AutoTokenizer.from_pretrained(source)
    for one, other in itertools.pairwise(TEXTS):
        (windows,) = tokenizer.divide([Passage(one, other)])
        assert isinstance(windows, list)
        wanted = peer(one, other, truncation=True, max_length=64)
        assert windows[0].ids.tolist() == wanted.input_ids
        if expected:
            assert windows[0].types is not None
            assert windows[0].types.tolist() == wanted["token_type_ids"]
        else:
            assert windows[0].types is None


def test_task_without_pairs_has_no_types(features: Artifact) -> None:
    assert not features.card.tokenizer.token_types


def test_source_without_the_head_is_refused(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(classifies=False)

    with pytest.raises(ArtifactError, match=r"classifier.* train it for this one first"):
        import_model(str(source), tmp_path / "out", task="text-classification")


def test_encoder_of_a_classifier_gives_features(make_source: MakeSource, tmp_path: Path) -> None:
    artifact = import_model(str(make_source()), tmp_path, task="feature-extraction")

    weights = load_file(artifact.path / WEIGHTS_FILE)
    assert not [name for name in weights if "classifier" in name or "pooler" in name]


def test_pickled_weights_are_refused(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    torch.save(load_file(source / WEIGHTS_FILE), source / "pytorch_model.bin")
    (source / WEIGHTS_FILE).unlink()

    with pytest.raises(ArtifactError, match="safetensors"):
        import_model(str(source), tmp_path / "out", task="text-classification")


def test_code_of_the_source_is_not_run(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    config = orjson.loads((source / "config.json").read_bytes())
    config |= {"model_type": "own", "auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Cfg"}}
    (source / "config.json").write_bytes(orjson.dumps(config))
    (source / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(
        ArtifactError, match=r"not known to transformers.*code from the source is not run"
    ):
        import_model(str(source), tmp_path / "out", task="feature-extraction")
    assert not (tmp_path / "ran").exists()


def test_missing_weight_is_named(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(classifies=False)
    weights = load_file(source / WEIGHTS_FILE)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, source / WEIGHTS_FILE, {"format": "pt"})

    with pytest.raises(ArtifactError, match=r"no encoder\.layer\.1\.output\.dense\.weight"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")


def test_max_length_is_bounded_by_the_positions(make_source: MakeSource, tmp_path: Path) -> None:
    source = str(make_source())

    assert import_model(source, tmp_path / "a", task="text-classification").card.max_length == 64
    shorter = import_model(source, tmp_path / "b", task="text-classification", max_length=16)
    assert shorter.card.max_length == 16
    with pytest.raises(ArtifactError, match="max_length 65: the model has 64 positions"):
        import_model(source, tmp_path / "c", task="text-classification", max_length=65)


@pytest.mark.parametrize("padding", [0, 1])
def test_positions_of_roberta_start_behind_the_padding(tmp_path: Path, padding: int) -> None:
    config = RobertaConfig(
        vocab_size=30_522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=padding,
    )
    RobertaModel(config).save_pretrained(tmp_path / "source")
    shutil.copyfile(locate(None) / TOKENIZER_FILE, tmp_path / "source" / TOKENIZER_FILE)
    # Otherwise transformers takes it for one of RoBERTa, and adds tokens.
    kind = orjson.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    (tmp_path / "source" / "tokenizer_config.json").write_bytes(kind)

    artifact = import_model(str(tmp_path / "source"), tmp_path / "out", task="feature-extraction")
    assert artifact.card.max_length == 65 - padding


def test_word_list_becomes_a_tokeniser(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    (source / TOKENIZER_FILE).unlink()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(locate(None) / name, source / name)

    artifact = import_model(str(source), tmp_path / "out", task="text-classification")
    own = orjson.loads((artifact.path / TOKENIZER_FILE).read_bytes())
    packaged = orjson.loads((locate(None) / TOKENIZER_FILE).read_bytes())
    assert own["model"]["vocab"] == packaged["model"]["vocab"]


def test_source_without_a_tokeniser_is_refused(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    (source / TOKENIZER_FILE).unlink()

    with pytest.raises(ArtifactError, match="has no words"):
        import_model(str(source), tmp_path / "out", task="text-classification")


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["great"]},
        {"truncation_side": "left", "model_max_length": 8},
        {"split_special_tokens": True},
    ],
)
def test_tokens_are_those_of_transformers(
    make_source: MakeSource, tmp_path: Path, config: dict[str, object]
) -> None:
    source = make_source()
    (source / "tokenizer_config.json").write_bytes(orjson.dumps(config))

    artifact = import_model(str(source), tmp_path / "out", task="text-classification")
    peer = AutoTokenizer.from_pretrained(source)
    texts = [*TEXTS, "Hello WORLD [SEP] great", "greatly [MASK]ed é"]
    wanted = peer(texts, truncation=True, max_length=artifact.card.max_length).input_ids
    found = [item.ids.tolist() for item in TextTokenizer.of(artifact).encode(texts)]
    assert found == wanted


def test_post_processor_that_is_missing_is_that_of_the_class(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source()
    document = orjson.loads((source / TOKENIZER_FILE).read_bytes())
    (source / TOKENIZER_FILE).write_bytes(orjson.dumps(document | {"post_processor": None}))

    artifact = import_model(str(source), tmp_path / "out", task="text-classification")
    wanted = AutoTokenizer.from_pretrained(source)(["fine day"]).input_ids
    assert TextTokenizer.of(artifact).encode(["fine day"])[0].ids.tolist() == wanted[0]


def test_tokeniser_in_python_alone_is_refused_by_name(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source()
    config = orjson.dumps({"tokenizer_class": "BertJapaneseTokenizer"})
    (source / "tokenizer_config.json").write_bytes(config)

    with pytest.raises(ArtifactError, match="BertJapaneseTokenizer exists only in Python"):
        import_model(str(source), tmp_path / "out", task="text-classification")


def test_length_that_is_no_number_is_named(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    (source / "tokenizer_config.json").write_bytes(orjson.dumps({"model_max_length": "512"}))

    with pytest.raises(ArtifactError, match="model_max_length is '512'"):
        import_model(str(source), tmp_path / "out", task="text-classification")


def test_directory_in_use_is_not_overwritten(minilm: Artifact) -> None:
    with pytest.raises(ArtifactError, match="not an empty directory"):
        import_model(None, minilm.path, task="feature-extraction")
