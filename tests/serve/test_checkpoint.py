from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5Model

from serve.artifact import TOKENIZER_FILE, WEIGHTS_FILE, load
from serve.checkpoint import INDEX_FILE, library
from serve.errors import ArtifactError
from serve.importing import import_model
from serve.sources import locate
from tests.serve.tiny import MakeSource

pytestmark = pytest.mark.model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

Change = Callable[[Path], object]


def configure(**changes: object) -> Change:
    def change(source: Path) -> None:
        file = source / "config.json"
        config = orjson.loads(file.read_bytes()) | changes
        kept = {key: value for key, value in config.items() if value is not ...}
        file.write_bytes(orjson.dumps(kept, default=str))

    return change


def write(name: str, content: str) -> Change:
    return lambda source: (source / name).write_text(content)


def cut_weights(source: Path) -> None:
    file = source / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:5000])


def lose_a_shard(source: Path) -> None:
    (source / WEIGHTS_FILE).rename(source / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (source / INDEX_FILE).write_bytes(orjson.dumps({"weight_map": shards}))


def only(name: str) -> Change:
    return lambda source: (source / WEIGHTS_FILE).rename(source / name)


def without(name: str) -> Change:
    return lambda source: (source / name).unlink()


def spoil_weights(source: Path) -> None:
    weights = load_file(source / WEIGHTS_FILE)
    weights["bert.embeddings.LayerNorm.weight"].fill_(torch.nan)
    save_file(weights, source / WEIGHTS_FILE, {"format": "pt"})


def labelled(*labels: str, **numbers: int) -> Change:
    names = {str(index): label for index, label in enumerate(labels)}
    return configure(id2label=names, label2id=numbers)


CASES: list[tuple[Change, str]] = [
    (configure(id2label={"1": "a", "2": "b"}), r"config\.json: id2label .* has 1, 2; .*labels"),
    (configure(id2label={"0": "a", "2": "b"}), r"without gaps, but has 0, 2"),
    (configure(id2label=["a", "b"]), r"id2label must number"),
    (configure(id2label={"a": 0, "b": 1}), r"id2label must number .* has a, b"),
    (configure(id2label={"0": None, "1": "b"}), r"class 0 in id2label is None"),
    (labelled("a", "a", a=0), r"label 'a' is used for several classes"),
    (labelled("a", "b", a=1, b=0), r"'a' is class 0 in id2label but 1 in label2id"),
    (labelled("a", "b", "c"), r"classifier\.bias has the shape \(2,\) .* \(3,\) in config\.json"),
    (write(WEIGHTS_FILE, POINTER), r"model\.safetensors: is a git-lfs pointer.*git lfs pull"),
    (write(TOKENIZER_FILE, POINTER), r"tokenizer\.json: is a git-lfs pointer"),
    (write("spiece.model", POINTER), r"spiece\.model: is a git-lfs pointer"),
    (cut_weights, r"model\.safetensors: is truncated.*download it again"),
    (write(WEIGHTS_FILE, "<html>404</html>"), r"truncated or not a safetensors file"),
    (write(WEIGHTS_FILE, ""), r"truncated or not a safetensors file"),
    (lose_a_shard, r"model-00002-of-00002\.safetensors is missing"),
    (write("config.json", '{"model_type": '), r"config\.json: is not JSON"),
    (write("config.json", "[]"), r"config\.json: must be a JSON object"),
    (write(TOKENIZER_FILE, "{"), r"tokenizer\.json: is not JSON"),
    (write(TOKENIZER_FILE, "{}"), r"cannot build its tokeniser"),
    (write("special_tokens_map.json", "[1]"), r"special_tokens_map\.json: must be a JSON object"),
    (write("added_tokens.json", ""), r"added_tokens\.json: is not JSON"),
    (configure(model_type=...), r"config\.json: has no model_type"),
    (configure(model_type="own"), r"model_type 'own' is not known to transformers"),
    (configure(model_type="vit_mae"), r"transformers has no ModelForSequenceClassification for"),
    (configure(model_type="roberta"), r"do not match config\.json: download both again"),
    (configure(num_attention_heads=7), r"multiple of the number of attention heads \(7\)"),
    (
        configure(hidden_size="32"),
        r"config\.json: transformers cannot read it: .*'hidden_size'.*int",
    ),
    (configure(hidden_act="zelu"), r"'zelu' is unknown"),
    (configure(hidden_size=64, num_labels=2), r"has the shape .* correct config\.json"),
    (configure(quantization_config={"quant_method": "gptq"}), r"quantization_config"),
    (
        write("adapter_config.json", '{"base_model_name_or_path": "some/base"}'),
        r"adapter for some/base.*merge_and_unload",
    ),
    (only("model.Q4.gguf"), r"has no model\.safetensors, only model\.Q4\.gguf"),
    (only("pytorch_model.bin"), r"only pytorch_model\.bin.*save_pretrained"),
    (without(WEIGHTS_FILE), r"no weights at all"),
    (without("config.json"), r"config\.json is missing"),
    (spoil_weights, r"answer is not a finite number"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    make_source: MakeSource, tmp_path: Path, change: Change, message: str
) -> None:
    source, out = make_source(), tmp_path / "models" / "out"
    change(source)

    with pytest.raises(ArtifactError, match=message) as caught:
        import_model(str(source), out, task="text-classification")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_import_can_be_repeated_once_the_cause_is_mended(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source()
    numbered = configure(id2label={"1": "a", "2": "b"})
    numbered(source)
    with pytest.raises(ArtifactError, match="give the labels yourself"):
        import_model(str(source), tmp_path, task="text-classification")

    head = {"labels": ("x", "y")}
    given = import_model(str(source), tmp_path, task="text-classification", head=head)
    assert given.card.labels == ("x", "y")
    assert load(tmp_path) == given


def test_names_of_labels_that_only_label2id_has_do_not_matter(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source()
    labelled("a", "b", LABEL_0=0, LABEL_1=1)(source)

    artifact = import_model(str(source), tmp_path, task="text-classification")
    assert artifact.card.labels == ("a", "b")


def test_network_that_needs_more_than_tokens_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    T5Model(T5Config(vocab_size=30_522, **sizes)).save_pretrained(source)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, source / TOKENIZER_FILE)
    kind = orjson.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64})
    (source / "tokenizer_config.json").write_bytes(kind)

    with pytest.raises(ArtifactError, match=r"cannot compute from token ids and a mask alone"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Exception("odd"), "f: broken: odd"),
        (ValueError("Heading:\n  what it is\nmore"), "f: broken: Heading: what it is"),
        (KeyError("x"), "f: broken: 'x' is unknown or missing"),
        (AttributeError("no y"), "f: broken: a value .* has an unexpected type .* (no y)"),
        (
            ImportError("\nneeds the package fugashi\nmore"),
            "f: broken: needs the package fugashi; it is not part .* choose another model",
        ),
        (MemoryError(), "f: broken: MemoryError"),
    ],
)
def test_errors_of_libraries_become_one_sentence(error: Exception, message: str) -> None:
    with pytest.raises(ArtifactError) as caught, library(Path("f"), "broken"):
        raise error
    beginning, _, end = message.partition(" .* ")
    assert str(caught.value).startswith(beginning)
    assert str(caught.value).endswith(end.rpartition(" .* ")[2])
