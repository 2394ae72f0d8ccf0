"""Masked language models with random weights, beside the pipeline of transformers."""

from __future__ import annotations

import json
import operator
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import CONFIG_MAPPING, AutoModelForMaskedLM, BertForMaskedLM, pipeline
from transformers.utils import logging as transformers_logging

from serve.agreement import TOLERANCES
from serve.artifact import TOKENIZER_FILE, Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind
from serve.errors import ArtifactError, ParametersRefused
from serve.golden_texts import GoldenText
from serve.importing import import_model
from serve.module import build_module
from serve.parameters import require_options
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.task import Division, Passage
from serve.tasks.fill_mask import FilledMasks, FillMask, FillMaskHead, best, rounded
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = [
    pytest.mark.model,
    # Of the pipeline, for a target that is several tokens.
    pytest.mark.filterwarnings("ignore:The specified target token"),
]

LIMIT = 64
ROWS = 30_522
MASK = 103  # its id in the packaged vocabulary
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "model_max_length": LIMIT,
}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": LIMIT + 2,
    "vocab_size": ROWS,
    "pad_token_id": 0,
}
# What a family needs in addition, or names in another way.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "roberta": {},
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
    "mpnet": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {"local_attention": 8, "decoder_bias": True},
    "xlm-roberta": {},
    "camembert": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "ernie": {},
    "megatron-bert": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 48},
    "roformer": {},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
    "ultrabert": {},
    "xlm-roberta-xl": {},
}
USUAL = ("bert", "distilbert", "albert")
# OpenVINO does not convert the relative positions of these.
ONLY_TORCH = ("deberta",)
ONE = [
    "The [MASK] is good.",
    "[MASK]",
    "It's [MASK]'s phone, isn't it ?  No , it was n't .",
    "Слишком [MASK], но работает.",
    "[CLS] a typed [SEP] and [UNK] and [PAD] beside [MASK]",
]
SEVERAL = ["The [MASK] is [MASK].", "[MASK][MASK] [MASK], and a [UNK] or [SEP]!"]


def spread(model: Any) -> Any:
    """Give a model random weights that differ clearly, with which some tokens are likely."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.6 if "embeddings" in name else 0.3)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.3)
    return model


def source_of(family: str, directory: Path, **more: Any) -> Path:
    """A directory of a tiny model with the packaged vocabulary: word pieces, lower case."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    kind = CONFIG_MAPPING[family]
    taken = {n: size for n, size in SIZES.items() if n not in kind.attribute_map}
    config = kind(**{**taken, **FAMILIES.get(family, {}), **more})
    spread(AutoModelForMaskedLM.from_config(config)).save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return directory


def bytes_source(directory: Path) -> Path:
    """RoBERTa with pairs of bytes, whose mask takes the blank before it."""
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train_from_iterator(TEXTS, vocab_size=500, special_tokens=special, show_progress=False)
    sizes = {**SIZES, "vocab_size": 500, "pad_token_id": 1}
    model = AutoModelForMaskedLM.from_config(CONFIG_MAPPING["roberta"](**sizes))
    spread(model).save_pretrained(directory)
    pairs.save_model(str(directory))
    settings = {"model_max_length": LIMIT, "clean_up_tokenization_spaces": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def imported(source: Path, out: Path, **more: Any) -> Artifact:
    return import_model(str(source), out, task="fill-mask", max_length=LIMIT, **more)


def opened(artifact: Artifact, kind: Any = "torch") -> Replica:
    engine = EngineSettings(kind=kind, precision="f32", threads=1)
    return Replica(ModelSettings(name="masks", path=artifact.path, engine=engine))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_of("bert", tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def artifact(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return imported(source, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module", params=["openvino", "torch"])
def replica(request: pytest.FixtureRequest, artifact: Artifact) -> Iterator[Replica]:
    found = opened(artifact, request.param)
    yield found
    found.close()


@pytest.fixture(scope="module")
def torch_replica(artifact: Artifact) -> Iterator[Replica]:
    found = opened(artifact)
    yield found
    found.close()


def results(replica: Replica, texts: list[str], **options: Any) -> list[Any]:
    values = [orjson.dumps({"text": text}) for text in texts]
    outcomes = replica.predict(values, CallOptions(**options)).outcomes
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(outcome.result) for outcome in outcomes if isinstance(outcome, Answer)]


def failure(replica: Replica, text: str, **parameters: Any) -> Failure:
    value = orjson.dumps({"text": text})
    (outcome,) = replica.predict([value], CallOptions(parameters=parameters)).outcomes
    assert isinstance(outcome, Failure)
    return outcome


def filler(source: Path) -> Any:
    return pipeline("fill-mask", model=str(source))


def require_same(found: list[Any], expected: list[Any]) -> None:
    """Compare with results of the pipeline, text by text."""
    for ours, theirs in zip(found, expected, strict=True):
        if theirs and isinstance(theirs[0], list):
            require_same(ours, theirs)
            continue
        # Equal ones after rounding are in the order of their ids.
        scores = rounded(np.array([item["score"] for item in theirs]), digits=4).tolist()
        order = sorted(range(len(theirs)), key=lambda n: (-scores[n], theirs[n]["token"]))
        assert [item.pop("score") for item in ours] == pytest.approx(
            [theirs[n].pop("score") for n in order], abs=1e-4
        )
        assert ours == [theirs[n] for n in order]


def test_results_are_those_of_the_pipeline(replica: Replica, source: Path) -> None:
    texts = [*ONE, *SEVERAL, *(f"{text} [MASK]." for text in TEXTS[:6])]
    fill = filler(source)

    require_same(results(replica, texts), [fill(text) for text in texts])


@pytest.mark.parametrize(
    "family",
    [f if f in USUAL else pytest.param(f, marks=pytest.mark.architectures) for f in FAMILIES],
)
@pytest.mark.parametrize("tied", [True, False])
def test_family_fills_as_transformers_does(family: str, tied: bool, tmp_path: Path) -> None:
    source = source_of(family, tmp_path / "source", tie_word_embeddings=tied)
    artifact = imported(source, tmp_path / "out")
    texts = [*ONE, *SEVERAL]
    expected = [filler(source)(text) for text in texts]

    for kind in ("torch",) if family in ONLY_TORCH else ("openvino", "torch"):
        replica = opened(artifact, kind)
        found = results(replica, texts)
        replica.close()
        require_same(found, json.loads(json.dumps(expected)))


def test_pairs_of_bytes_are_decoded_as_in_the_pipeline(tmp_path: Path) -> None:
    source = bytes_source(tmp_path / "source")
    texts = ["the <mask> is good .", "<mask>", "it was <mask> , wasn't it ? <mask>"]
    replica = opened(imported(source, tmp_path / "out"))
    found = results(replica, texts, parameters={"top_k": 50})
    replica.close()

    require_same(found, [filler(source)(text, top_k=50) for text in texts])


def test_blanks_before_punctuation_go_where_the_source_says_so(tmp_path: Path) -> None:
    source = source_of("bert", tmp_path / "source")
    settings = {**TOKENIZER_CONFIG, "clean_up_tokenization_spaces": True}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    document = json.loads((source / TOKENIZER_FILE).read_text())
    document["decoder"]["cleanup"] = False
    (source / TOKENIZER_FILE).write_text(json.dumps(document))
    artifact = imported(source, tmp_path / "out")
    replica = opened(artifact)
    found = results(replica, ONE)
    replica.close()

    assert artifact.card.head.clean_up  # type: ignore[attr-defined]
    require_same(found, [filler(source)(text) for text in ONE])


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 1},
        {"top_k": 100},
        {"targets": ["day", "night", "phone"]},
        {"targets": "day"},
        {"targets": ["day", "day", "night"], "top_k": 2},
        {"targets": ["unbelievably", "##s", "[SEP]", "Day"]},
        {"targets": ["\u200b", "day"]},
    ],
)
def test_parameters_are_those_of_the_pipeline(
    torch_replica: Replica, source: Path, parameters: dict[str, Any]
) -> None:
    texts = [ONE[0], SEVERAL[0]]
    expected = [filler(source)(text, **parameters) for text in texts]

    require_same(results(torch_replica, texts, parameters=parameters), expected)


def test_alone_and_in_a_batch_the_answers_are_the_same(replica: Replica) -> None:
    texts = [*ONE, *SEVERAL, *(f"[MASK] {text} [MASK]" for text in TEXTS[:6])]
    values = [orjson.dumps({"text": text}) for text in texts]
    together = replica.predict(values, CallOptions()).outcomes
    alone = [replica.predict([value], CallOptions()).outcomes[0] for value in values]

    # Another batch has another order of sums: a score of a hundred may be rounded to its neighbour.
    assert sum(map(operator.eq, alone, together)) >= len(texts) - 2
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Answer)
        assert isinstance(other, Answer)
        assert one._replace(result=b"") == other._replace(result=b"")
        require_near(orjson.loads(one.result), orjson.loads(other.result))


def require_near(ours: Any, theirs: Any) -> None:
    """Compare results whose scores may differ by one in the last digit."""
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            require_near(one, other)
        return
    assert ours.pop("score") == pytest.approx(theirs.pop("score"), abs=1.01e-4)
    assert ours == theirs


def test_many_masks_of_a_call_are_each_filled(torch_replica: Replica) -> None:
    texts = [f"{'[MASK] ' * (1 + n % 5)} {n}" for n in range(12)]
    together = results(torch_replica, texts)

    assert [len(found) for found in together[1:5]] == [2, 3, 4, 5]
    assert together == [results(torch_replica, [text])[0] for text in texts]


def test_a_text_without_mask_fails_and_names_it(torch_replica: Replica) -> None:
    found = failure(torch_replica, "no mask, but a mask and a [ MASK ]")

    assert found.kind == FailureKind.WRONG_INPUT
    assert found.message == "the text has no mask; write [MASK] for the missing word"


def test_a_mask_that_is_cut_off_counts_as_none(torch_replica: Replica, source: Path) -> None:
    words = "word " * LIMIT
    found = failure(torch_replica, f"{words} [MASK]")
    (cut,) = results(torch_replica, [f"[MASK] {words} [MASK]"])

    assert found.kind == FailureKind.WRONG_INPUT
    assert "no mask in the part that is not cut off" in found.message
    expected = filler(source)(f"[MASK] {words} [MASK]", tokenizer_kwargs={"truncation": True})
    require_same([cut], [expected])


def test_failures_leave_the_other_records(torch_replica: Replica) -> None:
    texts = ["none", ONE[0], "[MASK] " * 33, SEVERAL[0]]
    values = [orjson.dumps({"text": text}) for text in texts]
    outcomes = torch_replica.predict(values, CallOptions()).outcomes

    assert [isinstance(outcome, Failure) for outcome in outcomes] == [True, False, True, False]
    assert isinstance(outcomes[2], Failure)
    assert outcomes[2].kind == FailureKind.TOO_MANY
    assert "33 masks, but max_masks allows 32" in outcomes[2].message
    alone = [results(torch_replica, [text])[0] for text in (ONE[0], SEVERAL[0])]
    kept = [orjson.loads(one.result) for one in outcomes if isinstance(one, Answer)]
    assert kept == alone
    assert len(results(torch_replica, texts[2:3], parameters={"max_masks": 33})[0]) == 33


def test_a_mask_is_filled_in_the_window_with_most_context(
    torch_replica: Replica, artifact: Artifact, source: Path
) -> None:
    text = "the battery [MASK] and is good " * 30
    division = Division(windows=True, stride=30, offsets=True)
    (windows,) = TextTokenizer.of(artifact).divide([Passage(text)], division)
    assert not isinstance(windows, Failure)
    model = BertForMaskedLM.from_pretrained(source).eval()
    scores: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for window in windows:
        assert window.encoding is not None
        ids = window.ids.tolist()
        with torch.no_grad():
            highest = model(torch.tensor([ids])).logits[0].softmax(-1).max(-1).values.tolist()
        for place in [place for place, token in enumerate(ids) if token == MASK]:
            context = min(place, len(ids) - 1 - place)
            scores.setdefault(window.encoding.offsets[place], []).append((context, highest[place]))
    in_order = [found for _, found in sorted(scores.items())]
    expected = [max(found, key=lambda pair: pair[0])[1] for found in in_order]
    for other in (0, -1):  # neither always the first window nor always the last
        assert [found[other][1] for found in in_order] != pytest.approx(expected, abs=1e-3)

    (found,) = results(torch_replica, [text], long_text="window", window_stride=30)
    assert [tokens[0]["score"] for tokens in found] == pytest.approx(expected, abs=1e-4)
    assert len(found) == 30
    assert found[0][0]["sequence"].count("[MASK]") < 15  # the text of a window


def test_a_text_that_fits_is_the_same_with_windows(torch_replica: Replica) -> None:
    texts = [*ONE, *SEVERAL]
    whole = results(torch_replica, texts)
    assert results(torch_replica, texts, long_text="window") == whole


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1001}, "top_k"),
        ({"targets": []}, "targets"),
        ({"targets": ["day", ""]}, "targets"),
        ({"max_masks": 0}, "max_masks"),
        ({"target": ["day"]}, "did you mean targets"),
    ],
)
def test_wrong_parameters_are_refused(
    artifact: Artifact, parameters: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ParametersRefused, match=fault):
        require_options(artifact.card, CallOptions(parameters=parameters))


def test_targets_without_any_token_are_refused(torch_replica: Replica) -> None:
    with pytest.raises(ParametersRefused, match="the tokeniser has no token for any"):
        results(torch_replica, ONE[:1], parameters={"targets": ["\u200b"]})


def test_the_engine_returns_vectors_and_no_logits(artifact: Artifact) -> None:
    ids = torch.tensor([[101, MASK, 102]])
    assert build_module(artifact)(ids, torch.ones_like(ids)).shape == (1, 3, 32)


def test_golden_texts_are_answered_in_every_engine(source: Path, tmp_path: Path) -> None:
    golden = [GoldenText({"text": text}) for text in (*ONE[:3], *SEVERAL)]
    artifact = imported(source, tmp_path / "out", golden=golden)

    for kind in ("openvino", "torch"):
        opened(artifact, kind).close()


def test_a_decoder_that_is_not_the_model_s_is_refused(artifact: Artifact) -> None:
    head = artifact.card.head.model_copy(
        update={"decoder_weight": "cls.predictions.transform.dense.weight"}
    )
    wrong = Artifact(
        artifact.path, artifact.digest, artifact.card.model_copy(update={"head": head})
    )
    with pytest.raises(ArtifactError, match="are not those of the model's last layer"):
        build_module(wrong)
    missing = head.model_copy(update={"decoder_weight": "nothing"})
    with pytest.raises(ArtifactError, match="the decoder that the card names cannot be read"):
        FillMask.open(
            Artifact(
                artifact.path, artifact.digest, artifact.card.model_copy(update={"head": missing})
            ),
            TextTokenizer.of(artifact),
            precision="f32",
        )


@pytest.mark.parametrize(
    ("family", "more", "fault"),
    [
        ("esm", {"position_embedding_type": "absolute"}, "lm_head.decoder is not its last step"),
        ("mobilebert", {"embedding_size": 16}, "cls.predictions.decoder is not its last step"),
        ("deberta-v2", {"legacy": False}, "but those of lm_predictions.lm_head.dense have"),
    ],
)
def test_a_model_with_another_last_step_is_refused(
    family: str, more: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    source = source_of(family, tmp_path / "source", **more)
    with pytest.raises(ArtifactError, match="whose logits are one linear layer's") as refused:
        imported(source, tmp_path / "out")
    assert fault in str(refused.value)
    assert family in str(refused.value)


def test_a_change_after_the_last_layer_is_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    forward = BertLMPredictionHead.forward
    monkeypatch.setattr(
        BertLMPredictionHead, "forward", lambda self, states: torch.tanh(forward(self, states))
    )
    with pytest.raises(ArtifactError, match=r"something after cls.predictions.decoder changes"):
        imported(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mask_token": None}, "its tokeniser has no mask token"),
        ({"split_special_tokens": True}, r"does not read \[MASK\] in a text as the mask token"),
    ],
)
def test_a_tokeniser_without_masks_is_refused(
    changes: dict[str, Any], fault: str, source: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "source"
    shutil.copytree(source, changed)
    settings = {**TOKENIZER_CONFIG, **changes}
    kept = {name: found for name, found in settings.items() if found is not None}
    (changed / "tokenizer_config.json").write_text(json.dumps(kept))
    with pytest.raises(ArtifactError, match=fault):
        imported(changed, tmp_path / "out")


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    from transformers import BertModel

    source = source_of("bert", tmp_path / "source")
    BertModel(tiny_config()).save_pretrained(source)
    with pytest.raises(ArtifactError, match="made for another task"):
        imported(source, tmp_path / "out")


def test_a_task_needs_only_its_head() -> None:
    head = FillMaskHead(mask_token="[MASK]", mask_token_id=MASK, decoder_weight="w")
    task = FillMask(head, precision="bf16")

    task.check(task.parameters_type(targets=("day",)))
    assert task.passages(("a [MASK]",), task.parameters_type()) == [Passage("a [MASK]")]


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40), st.integers(1, 45))
def test_the_best_are_those_of_a_full_sort(scores: list[float], top_k: int) -> None:
    ranked = rounded(np.array(scores), digits=2)
    order = sorted(range(len(scores)), key=lambda n: (-ranked[n], n))[:top_k]

    found = best(np.array(scores), None, top_k, decimals=2)
    assert found.tokens == order
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.scores == pytest.approx([scores[n] for n in order], rel=0.06, abs=1e-18)


@pytest.mark.parametrize(
    ("score", "decimals", "expected"),
    [
        (0.123456, 4, 0.1235),
        (0.059974, 4, 0.06),
        (0.00123456, 4, 0.0012),
        (0.000123456, 4, 0.00012),
        (1.23456e-12, 4, 1.2e-12),
        (0.0567, 2, 0.057),
        (0.0, 4, 0.0),
        (1.0, 4, 1.0),
    ],
)
def test_scores_keep_two_digits_after_leading_zeros(
    score: float, decimals: int, expected: float
) -> None:
    assert best(np.array([score]), None, 1, decimals=decimals).scores == [expected]


def test_scores_that_differ_too_little_are_in_the_order_of_the_ids() -> None:
    scores = np.array([0.200001, 0.2, 0.2000012, 0.21])
    assert best(scores, None, 3, decimals=4).tokens == [3, 0, 1]
    assert best(scores, np.array([7, 8, 9, 12]), 2, decimals=4).tokens == [12, 7]


def tokens(**scores: float) -> list[dict[str, Any]]:
    return [
        {"score": score, "token": ord(word[0]), "token_str": word, "sequence": f"a {word}"}
        for word, score in scores.items()
    ]


def test_results_agree_within_the_tolerance() -> None:
    agreement, tolerance = FilledMasks(), TOLERANCES["f32"]
    before, last = tokens(day=0.5, night=0.02), tokens(day=0.5, morning=0.015)
    far = tokens(night=0.6, day=0.1)

    assert agreement.difference(last, before, tolerance) is None
    assert agreement.difference([last, last], [before, before], tolerance) is None
    assert agreement.difference(far, before, tolerance) == "'day (100)' scores 0.1, expected 0.5"
    assert agreement.difference([last], [before, before], tolerance) == "it has 1 masks, expected 2"
    missing = agreement.difference(tokens(night=0.02), before, tolerance)
    assert missing == "the label 'day (100)' is missing"
    assert agreement.same_best(last, before, tolerance)
    assert not agreement.same_best([before, far], [before, before], tolerance)
    assert agreement.same_for_people([before, last], [last, before])
    assert not agreement.same_for_people([before, far], [before, before])
    assert agreement.answer(before) == "day"
    assert agreement.answer([before, far]) == "day, night"
    assert agreement.cosine(before, last) is None
