"""Token classifiers with random weights, beside the pipeline of transformers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaForTokenClassification,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
    pipeline,
)

from serve.artifact import CONFIG_FILE, TOKENIZER_FILE, Artifact, load
from serve.contract import Answer, CallOptions
from serve.errors import ArtifactError, ParametersRefused
from serve.golden_texts import GoldenText
from serve.importing import import_model
from serve.probe_texts import WRITTEN
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.tasks.token_classification import TokenHead
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = [
    pytest.mark.model,
    # Of the pipeline, for tokenisers without marks on the parts of a word.
    pytest.mark.filterwarnings("ignore:Tokenizer does not support real words"),
]

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
IO = ("O", "PER", "I-LOC", "LOC", "part-PER")
STRATEGIES = ("none", "simple", "first", "average", "max")
LIMIT = 64
ODD = [
    "  Two leading blanks, and Hugo in Genève ",
    "Angela Merkel visited New York, Zürich and e\u0301 Sa\u0303o Paulo.",
    "😀😀 Łódź 👩\u200d💻 and 北京 and שלום עולם in one",
    "unbelievably internationalisation antidisestablishmentarianism",
    "[SEP] within <s> special </s> [UNK] <unk> tokens [MASK]<mask> stay",
]
SAMPLES = [text for text in [*WRITTEN, *TEXTS, *ODD] if text.strip()]


def spread(model: Any) -> Any:
    """Give a model random weights with which every label is the best of some tokens."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                deviation = 1.0 if "word_embeddings" in name else 0.1
                weight.normal_(0.0, 0.5 if "classifier" in name else deviation)
    return model


def bert_source(directory: Path, *, labels: Sequence[str] = BIO, **config: Any) -> Path:
    """BERT with the packaged vocabulary: word pieces, without case and accents."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    spread(BertForTokenClassification(tiny_config(**names, **config))).save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LIMIT}))
    return directory


def sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": LIMIT + 2,
        "id2label": dict(enumerate(BIO)),
        "label2id": {name: index for index, name in enumerate(BIO)},
    }


def roberta_source(directory: Path) -> Path:
    """RoBERTa with pairs of bytes, of which several may share a character."""
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train_from_iterator(
        [*TEXTS, *ODD], vocab_size=500, special_tokens=special, show_progress=False
    )
    config = RobertaConfig(**sizes(500))
    spread(RobertaForTokenClassification(config)).save_pretrained(directory)
    pairs.save_model(str(directory))
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LIMIT}))
    return directory


def unigram_source(directory: Path) -> Path:
    """XLM-RoBERTa with the pieces of a unigram model, where unknown characters remain."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, *ODD[:3]], trainer)
    ends = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    config = XLMRobertaConfig(**sizes(tokenizer.get_vocab_size()))
    spread(XLMRobertaForTokenClassification(config)).save_pretrained(directory)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    document = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LIMIT, **named}
    (directory / "tokenizer_config.json").write_text(json.dumps(document))
    return directory


SOURCES: dict[str, Callable[[Path], Path]] = {
    "bert": bert_source,
    "bert io": lambda directory: bert_source(directory, labels=IO),
    "roberta": roberta_source,
    "unigram": unigram_source,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("sources")
    return {name: make(home / name) for name, make in SOURCES.items()}


@pytest.fixture(scope="module")
def artifacts(
    sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    home = tmp_path_factory.mktemp("models")
    golden = [GoldenText({"text": text}) for text in ODD]
    return {name: imported(source, home / name, golden=golden) for name, source in sources.items()}


def imported(source: Path, out: Path, **options: Any) -> Artifact:
    return import_model(str(source), out, task="token-classification", **options)


def opened(path: Path, kind: str = "openvino") -> Replica:
    engine = EngineSettings(kind=kind, precision="f32", threads=1)
    return Replica(ModelSettings(name="model", path=path, engine=engine))


@pytest.fixture(scope="module")
def bert(artifacts: dict[str, Artifact]) -> Iterator[Replica]:
    replica = opened(artifacts["bert"].path)
    yield replica
    replica.close()


def answers(replica: Replica, texts: Sequence[str], **options: Any) -> list[Answer]:
    reply = replica.predict([text.encode() for text in texts], CallOptions("text", **options))
    assert all(isinstance(outcome, Answer) for outcome in reply.outcomes)
    return [outcome for outcome in reply.outcomes if isinstance(outcome, Answer)]


def results(replica: Replica, texts: Sequence[str], **options: Any) -> list[Any]:
    return [orjson.loads(answer.result) for answer in answers(replica, texts, **options)]


class Peer:
    """The pipeline of transformers; computes each text once for all parameters."""

    def __init__(self, source: Path, texts: Sequence[str]) -> None:
        model = AutoModelForTokenClassification.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        self._pipe = pipeline("token-classification", model=model, tokenizer=tokenizer)
        before, _, _ = self._pipe._sanitize_parameters()
        parts = [list(self._pipe.preprocess(text, **before)) for text in texts]
        self._computed = [[self._pipe.forward(part) for part in of_text] for of_text in parts]

    def results(self, **parameters: Any) -> list[list[dict[str, Any]]]:
        _, _, after = self._pipe._sanitize_parameters(**parameters)
        return [self._pipe.postprocess(outputs, **after) for outputs in self._computed]


def without_scores(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: part for key, part in one.items() if key != "score"} for one in result]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert without_scores(found) == without_scores(expected)
    scores = [float(one["score"]) for one in expected]
    assert [one["score"] for one in found] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert", "openvino"),
        ("bert", "torch"),
        ("bert io", "torch"),
        ("roberta", "openvino"),
        ("unigram", "torch"),
    ],
)
def test_entities_are_those_of_the_pipeline(
    name: str, kind: str, sources: dict[str, Path], artifacts: dict[str, Artifact]
) -> None:
    replica, theirs = opened(artifacts[name].path, kind), Peer(sources[name], SAMPLES)
    choices = [{"aggregation_strategy": strategy} for strategy in STRATEGIES]
    ignoring = [{**choice, "ignore_labels": ["PER", "B-LOC"]} for choice in choices]
    for parameters in [*choices, *ignoring]:
        found = results(replica, SAMPLES, parameters=parameters)
        assert sum(map(len, found)) > len(SAMPLES)
        for ours, other in zip(found, theirs.results(**parameters), strict=True):
            assert_same(ours, other)
    replica.close()


def test_entities_need_no_parameter(bert: Replica) -> None:
    found = [entity for result in results(bert, SAMPLES) for entity in result]

    assert {entity["entity_group"] for entity in found} == {"PER", "LOC"}
    assert list(found[0]) == ["entity_group", "score", "word", "start", "end"]
    assert any(" " in entity["word"] for entity in found)
    (answer,) = answers(bert, ["fine"])
    assert (answer.label, answer.confidence) == (None, None)


def test_text_without_an_entity_has_an_empty_result(bert: Replica) -> None:
    (found,) = answers(bert, SAMPLES[:1], parameters={"ignore_labels": ["O", "PER", "LOC"]})
    (of_no_token,) = answers(bert, ["\u200b"], parameters={"ignore_labels": []})

    assert found.result == of_no_token.result == b"[]"


@pytest.mark.parametrize("name", ["bert", "roberta", "unigram"])
def test_places_are_characters_of_the_text(name: str, artifacts: dict[str, Artifact]) -> None:
    replica = opened(artifacts[name].path, "torch")
    parameters = {"aggregation_strategy": "none", "ignore_labels": []}
    text = "  Zürich 😀 北京 שלום e\u0301nd"
    (found,) = results(replica, [text], parameters=parameters)
    replica.close()

    assert {text[one["start"] : one["end"]].strip() for one in found} >= {"😀", "שלום"[0]}
    covered = {place for one in found for place in range(one["start"], one["end"])}
    assert {text[place] for place in set(range(len(text))) - covered} <= {" ", "\u0301"}
    assert [one["index"] for one in found] == list(range(1, len(found) + 1))


def test_alone_and_in_any_batch_a_text_has_the_same_bytes(bert: Replica) -> None:
    for strategy in STRATEGIES:
        parameters = {"aggregation_strategy": strategy}
        together = answers(bert, SAMPLES, parameters=parameters)
        order = random.Random(strategy).sample(range(len(SAMPLES)), len(SAMPLES))
        mixed = answers(bert, [SAMPLES[place] for place in order], parameters=parameters)
        for place, answer in zip(order, mixed, strict=True):
            assert answer == together[place]
        for text, answer in zip(SAMPLES[::7], together[::7], strict=True):
            (alone,) = answers(bert, [text], parameters=parameters)
            assert alone == answer


def blind(model: Any) -> Any:
    """Make each token's logits depend on the token alone, not on its place or its neighbours."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position_embeddings" in name or "attention.output.dense" in name:
                weight.zero_()
    return model


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_leave_no_seam(side: str, tmp_path: Path) -> None:
    source = bert_source(tmp_path / "source")
    blind(AutoModelForTokenClassification.from_pretrained(source)).save_pretrained(source)
    document = {"model_max_length": LIMIT, "truncation_side": side}
    (source / "tokenizer_config.json").write_text(json.dumps(document))
    whole = opened(imported(source, tmp_path / "whole").path, "torch")
    short = opened(imported(source, tmp_path / "short", max_length=12).path, "torch")
    texts = [" ".join(TEXTS[:3]), TEXTS[-1], ODD[2], ODD[3], "fine"]
    for strategy in STRATEGIES:
        parameters = {"aggregation_strategy": strategy}
        expected = results(whole, texts, parameters=parameters)
        for stride in (0, 1, 5):
            options = {"long_text": "window", "window_stride": stride}
            found = results(short, texts, parameters=parameters, **options)
            for ours, other in zip(found, expected, strict=True):
                assert_same(ours, other)
    whole.close()
    short.close()


def test_end_and_single_prefixes_bound_entities(tmp_path: Path) -> None:
    labels = ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    source = bert_source(tmp_path / "source", labels=labels)
    artifact = imported(source, tmp_path / "out")
    assert artifact.card.head == TokenHead(labels=labels, scheme="bioes", unk_token_id=100)
    replica = opened(artifact.path, "torch")
    for tokens, entities in zip(
        results(replica, SAMPLES, parameters={"aggregation_strategy": "none"}),
        results(replica, SAMPLES),
        strict=True,
    ):
        ends = [one["end"] for one in tokens if one["entity"] in ("E-PER", "S-PER")]
        begins = [one["start"] for one in tokens if one["entity"] in ("B-PER", "S-PER")]
        assert set(ends) <= {one["end"] for one in entities}
        assert set(begins) <= {one["start"] for one in entities}
    replica.close()


def test_scheme_and_labels_may_be_given(sources: dict[str, Path], tmp_path: Path) -> None:
    labels = ["O", "B-ORG", "I-ORG", "B-DATE", "I-DATE"]
    head = {"labels": labels, "scheme": "io"}
    artifact = imported(sources["bert"], tmp_path / "out", head=head)
    assert artifact.card.head == TokenHead(labels=tuple(labels), scheme="io", unk_token_id=100)
    replica = opened(artifact.path, "torch")
    found = results(replica, SAMPLES)
    replica.close()

    assert {one["entity_group"] for result in found for one in result} == {"ORG", "DATE"}
    with pytest.raises(ArtifactError, match="scheme"):
        imported(sources["bert"], tmp_path / "other", head={"scheme": "iob"})


def test_unknown_strategy_is_refused(bert: Replica) -> None:
    options = CallOptions("text", parameters={"aggregation_strategy": "longest"})
    with pytest.raises(ParametersRefused, match="aggregation_strategy"):
        bert.predict([b"fine"], options)


def test_model_without_the_head_is_refused(tmp_path: Path) -> None:
    source = bert_source(tmp_path / "source")
    BertModel(tiny_config()).save_pretrained(source)
    with pytest.raises(ArtifactError, match=r"no classifier\.bias, classifier\.weight"):
        imported(source, tmp_path / "out")


def test_tokeniser_that_exists_only_in_python_is_refused(tmp_path: Path) -> None:
    source = bert_source(tmp_path / "source")
    document = {"tokenizer_class": "BertweetTokenizer", "model_max_length": LIMIT}
    (source / "tokenizer_config.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="BertweetTokenizer exists only in Python"):
        imported(source, tmp_path / "out")


@pytest.mark.parametrize("given", [list(BIO[:3]), [*BIO, "B-ORG"], ["O", "O", "A", "B", "C"]])
def test_labels_that_do_not_fit_are_refused(
    given: list[str], sources: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"one label per class|one per class"):
        imported(sources["bert"], tmp_path / "out", head={"labels": given})


def test_labels_without_clear_numbers_are_refused(tmp_path: Path) -> None:
    source = bert_source(tmp_path / "source")
    config = orjson.loads((source / CONFIG_FILE).read_bytes())
    config["id2label"] = {"0": "O", "2": "B-PER"}
    (source / CONFIG_FILE).write_bytes(orjson.dumps(config))
    with pytest.raises(ArtifactError, match="id2label must number the labels"):
        imported(source, tmp_path / "out")


def test_card_without_labels_is_refused(artifacts: dict[str, Artifact]) -> None:
    for labels, fault in (((), "must not be empty"), (("O", "O"), "must differ")):
        with pytest.raises(ValueError, match=fault):
            TokenHead(labels=labels, scheme="bio")
    head = load(artifacts["roberta"].path).card.head
    assert head == TokenHead(labels=BIO, scheme="bio", unk_token_id=3)


def test_golden_texts_are_answered_by_the_other_engine(artifacts: dict[str, Artifact]) -> None:
    found = load(artifacts["bert io"].path).golden()
    replica = opened(artifacts["bert io"].path, "openvino")  # compares them
    replica.close()

    assert [record.text for record in found] == ODD
    assert all(record.result for record in found)
