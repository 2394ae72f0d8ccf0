"""Directories without tokenizer.json: what is served beside what transformers computes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ops.demo.stream import REVIEWS
from serve.errors import ArtifactError
from serve.importing import import_model
from serve.sources import locate
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS

pytestmark = pytest.mark.model

ODD = [
    "Hello World ÀÉÎ [SEP] <mask> </s> great GREAT [ENT]",
    "  two  blanks ",
    "日本語のテキスト 😀",
    "ﬁne ½ ①\u00ad\u200b\u3000x",
    "<ent>tok<ent> end",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of words, as older directories have them, trained on a few texts."""
    home = tmp_path_factory.mktemp("words")
    reviews = [orjson.loads(line)["text"] for line in REVIEWS.read_bytes().splitlines()]
    (home / "texts").write_text("\n".join([*reviews, *TEXTS, *ODD]))
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "bert": {
            "pad_id": 0,
            "unk_id": 1,
            "bos_id": -1,
            "eos_id": -1,
            "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
        },
    }
    for name, options in kinds.items():
        sentencepiece.SentencePieceTrainer.train(
            input=str(home / "texts"),
            model_prefix=str(home / name),
            vocab_size=400,
            minloglevel=2,
            **options,
        )
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train([str(home / "texts")], vocab_size=600, special_tokens=special, show_progress=False)
    pairs.save_model(str(home))
    shutil.copyfile(locate(None) / "vocab.txt", home / "vocab.txt")
    return {file.name: file for file in home.iterdir()}


def make(directory: Path, family: str, *names: Path | tuple[Path, str], **documents: Any) -> Path:
    sizes: dict[str, Any] = {
        "vocab_size": 30_600,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 130,
        "pad_token_id": 1 if "roberta" in family else 0,
    }
    AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(directory)
    for entry in names:
        source, name = entry if isinstance(entry, tuple) else (entry, entry.name)
        shutil.copyfile(source, directory / name)
    for stem, document in documents.items():
        (directory / f"{stem}.json").write_bytes(orjson.dumps(document))
    return directory


ENT = {"content": "<ent>", "single_word": False, "lstrip": True, "rstrip": True}
CASES: dict[str, tuple[str, tuple[tuple[str, str] | str, ...], dict[str, Any]]] = {
    "xlm-roberta": ("xlm-roberta", (("plain.model", "sentencepiece.bpe.model"),), {}),
    "camembert": (
        "camembert",
        (("plain.model", "sentencepiece.bpe.model"),),
        {"tokenizer_config": {"model_max_length": 20}},
    ),
    "albert": ("albert", (("bert.model", "spiece.model"),), {}),
    "albert that keeps case and accents": (
        "albert",
        (("bert.model", "spiece.model"),),
        {"tokenizer_config": {"do_lower_case": False, "keep_accents": True}},
    ),
    "deberta-v2": (
        "deberta-v2",
        (("bert.model", "spm.model"),),
        {"tokenizer_config": {"do_lower_case": True, "split_by_punct": True}},
    ),
    "word list": ("bert", ("vocab.txt",), {}),
    "word list that keeps case": (
        "bert",
        ("vocab.txt",),
        {"tokenizer_config": {"do_lower_case": False}},
    ),
    "word list that strips accents alone": (
        "bert",
        ("vocab.txt",),
        {"tokenizer_config": {"do_lower_case": False, "strip_accents": True}},
    ),
    "word list that keeps accents alone": (
        "electra",
        ("vocab.txt",),
        {"tokenizer_config": {"do_lower_case": True, "strip_accents": False}},
    ),
    "word list that leaves Chinese together": (
        "distilbert",
        ("vocab.txt",),
        {"tokenizer_config": {"tokenize_chinese_chars": False}},
    ),
    "pairs": ("roberta", ("vocab.json", "merges.txt"), {}),
    "pairs with a blank in front": (
        "roberta",
        ("vocab.json", "merges.txt"),
        {"tokenizer_config": {"add_prefix_space": True, "truncation_side": "left"}},
    ),
    "added tokens": (
        "bert",
        ("vocab.txt",),
        {"added_tokens": {"<ent>": 30_522, "[ENT]": 30_523}},
    ),
    "added tokens of the configuration": (
        "bert",
        ("vocab.txt",),
        {"tokenizer_config": {"added_tokens_decoder": {"30522": ENT}}},
    ),
    "special tokens of a file of their own": (
        "bert",
        ("vocab.txt",),
        {
            "special_tokens_map": {
                "additional_special_tokens": ["great"],
                "cls_token": "the",
                "sep_token": {**ENT, "content": "and"},
            }
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_transformers(
    files: dict[str, Path], tmp_path: Path, case: str
) -> None:
    family, names, documents = CASES[case]
    here = [files[n] if isinstance(n, str) else (files[n[0]], n[1]) for n in names]
    source = make(tmp_path / "source", family, *here, **documents)

    artifact = import_model(str(source), tmp_path / "out", task="feature-extraction", max_length=24)
    peer = AutoTokenizer.from_pretrained(source)
    texts = [*TEXTS, *ODD]
    wanted = peer(texts, truncation=True, max_length=24).input_ids
    found = [item.ids.tolist() for item in TextTokenizer.of(artifact).encode(texts)]
    assert found == wanted
    unknown = sum(ids.count(peer.unk_token_id) for ids in wanted)
    assert unknown < sum(map(len, wanted)) / 3


def test_pieces_are_those_of_sentencepiece(files: dict[str, Path], tmp_path: Path) -> None:
    model = files["plain.model"]
    source = make(tmp_path / "source", "xlm-roberta", (model, "sentencepiece.bpe.model"))

    artifact = import_model(str(source), tmp_path / "out", task="feature-extraction")
    peer = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for text, encoded in zip(TEXTS, TextTokenizer.of(artifact).encode(TEXTS), strict=True):
        # XLM-RoBERTa numbers the pieces one higher, and has <s> and </s> around them.
        wanted = [number + 1 if number else 3 for number in peer.encode(text)]
        assert encoded.ids.tolist() == [0, *wanted, 2]


@pytest.mark.parametrize(
    ("here", "missing"), [("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")]
)
def test_half_of_a_pair_of_files_is_named(
    files: dict[str, Path], tmp_path: Path, here: str, missing: str
) -> None:
    source = make(tmp_path / "source", "roberta", files[here])

    with pytest.raises(ArtifactError, match=f"{missing} is missing and {here} is not"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")


def test_package_that_a_tokeniser_lacks_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    source = make(tmp_path / "source", "roformer", files["vocab.txt"])

    with pytest.raises(ArtifactError, match=r"rjieba.*choose another model"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")


def test_word_list_of_another_model_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    more = {f"<e{number}>": 30_522 + number for number in range(100)}
    source = make(tmp_path / "source", "bert", files["vocab.txt"], added_tokens=more)

    with pytest.raises(ArtifactError, match=r"'<e99>' has the id 30621, .* 30600 tokens"):
        import_model(str(source), tmp_path / "out", task="feature-extraction")
