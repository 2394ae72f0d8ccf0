from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serve.artifact import GOLDEN_FILE, Artifact, seal, write_card
from serve.contract import Answer, CallOptions
from serve.errors import ArtifactError, ParametersRefused
from serve.settings import EngineSettings, ModelSettings
from serve.task import SCORE_DECIMALS, Computed, Encoded, Passage, Prediction, Window
from serve.tasks.text_classification import (
    ClassificationHead,
    ClassificationParameters,
    ProblemType,
    TextClassification,
)
from tests.serve.tiny import TEXTS, MakeSource

LABELS = ("negative", "neutral", "positive")
LOGITS = np.array([[0.5, -1.0, 2.0], [3.0, 3.0, -4.0]], dtype=np.float32)
PAIRS = [
    {"text": "Is the battery good?", "text_pair": "It lasts two days."},
    {"text": "It lasts two days.", "text_pair": "Is the battery good?"},
    {"text": "fine"},
    {"text": TEXTS[6], "text_pair": TEXTS[2]},
    {"text": "a " * 200, "text_pair": "fine"},
]


def task(
    problem_type: ProblemType,
    precision: str = "f32",
    *,
    labels: Sequence[str] = LABELS,
    thresholds: dict[str, float] | None = None,
) -> TextClassification:
    head = ClassificationHead(
        labels=tuple(labels), problem_type=problem_type, thresholds=thresholds or {}
    )
    return TextClassification(head, precision=precision)


def window(logits: NDArray[np.float32], tokens: int = 3) -> Window:
    return Window(Encoded(np.zeros(tokens, dtype=np.int32)), (logits,))


def computed(logits: NDArray[np.float32]) -> list[Computed]:
    return [Computed(("a", None), [Passage("a")], [[window(row)]]) for row in logits]


def predictions(
    of: TextClassification, logits: NDArray[np.float32], **parameters: Any
) -> list[Prediction]:
    checked = ClassificationParameters.model_validate(parameters)
    found = of.predictions(computed(logits), checked)
    return [one for one in found if isinstance(one, Prediction)]


def scores(prediction: Prediction) -> dict[str, float]:
    return {item["label"]: item["score"] for item in orjson.loads(prediction.result)}


def test_single_label_scores_are_a_softmax_best_first() -> None:
    prediction = predictions(task("single_label"), LOGITS)[0]
    expected = (np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()).tolist()

    result = orjson.loads(prediction.result)
    assert [item["label"] for item in result] == ["positive", "negative", "neutral"]
    assert [item["score"] for item in result] == pytest.approx(sorted(expected)[::-1], abs=5e-5)
    assert (prediction.label, prediction.confidence) == ("positive", result[0]["score"])


def test_multi_label_scores_are_each_their_own() -> None:
    found = scores(predictions(task("multi_label"), LOGITS)[0])
    expected = (1 / (1 + np.exp(-LOGITS[0]))).tolist()

    assert [found[label] for label in LABELS] == pytest.approx(expected, abs=5e-5)


def test_numbers_of_a_regression_are_unbounded_and_no_confidence() -> None:
    prediction = predictions(task("regression"), LOGITS * 100)[0]

    assert prediction.result == (
        b'[{"label":"positive","score":200.0},{"label":"negative","score":50.0},'
        b'{"label":"neutral","score":-100.0}]'
    )
    assert (prediction.label, prediction.confidence) == (None, None)


@pytest.mark.parametrize("problem_type", ["single_label", "multi_label"])
def test_numbers_as_they_are_have_a_label_and_no_confidence(problem_type: ProblemType) -> None:
    prediction = predictions(task(problem_type), LOGITS * 100, function_to_apply="none")[0]

    assert scores(prediction) == {"positive": 200.0, "negative": 50.0, "neutral": -100.0}
    assert (prediction.label, prediction.confidence) == ("positive", None)


def test_top_k_are_the_best() -> None:
    many = task("single_label", labels=[f"label {n}" for n in range(12_000)])
    logits = np.zeros((2, 12_000), dtype=np.float32)
    logits[0, [7, 11_999]] = (20.0, 19.0)
    best, other = predictions(many, logits, top_k=100)

    result = orjson.loads(best.result)
    assert [item["label"] for item in result[:3]] == ["label 7", "label 11999", "label 0"]
    assert len(result) == len(orjson.loads(other.result)) == 100
    assert best.label == "label 7"
    # A hundred by default, as a message of the output topic has a limit; all are given on request.
    assert len(scores(predictions(many, logits)[0])) == 100
    assert len(scores(predictions(many, logits, top_k=None)[0])) == 12_000
    assert len(scores(predictions(task("single_label"), LOGITS, top_k=5)[0])) == 3


def test_equal_scores_stand_in_the_order_of_the_classes() -> None:
    result = orjson.loads(predictions(task("single_label"), LOGITS)[1].result)

    assert [item["label"] for item in result] == ["negative", "neutral", "positive"]


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_scores_have_the_digits_that_the_precision_supports(precision: str) -> None:
    logits = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)

    most = 0
    for prediction in predictions(task("single_label", precision), logits):
        for score in scores(prediction).values():
            most = max(most, len(str(score).partition(".")[2]))
    assert most == SCORE_DECIMALS[precision]


@given(
    hnp.arrays(
        np.float32, (3, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
)
def test_any_finite_logits_give_scores_from_0_to_1(logits: NDArray[np.float32]) -> None:
    kinds: list[ProblemType] = ["single_label", "multi_label"]
    for problem_type in kinds:
        for prediction in predictions(task(problem_type), logits):
            found = list(scores(prediction).values())
            assert found == sorted(found, reverse=True)
            assert all(0.0 <= score <= 1.0 for score in found)


def test_no_score_is_a_negative_zero() -> None:
    logits = np.array([[-1e-9, 0.0, -0.0]], dtype=np.float32)
    assert b"-0.0" not in predictions(task("regression"), logits)[0].result


def test_label_below_its_threshold_is_left_out() -> None:
    # The scores are 0.62, 0.27 and 0.88.
    of_card = task("multi_label", thresholds={"negative": 0.7, "neutral": 0.2})

    assert list(scores(predictions(of_card, LOGITS)[0])) == ["positive", "neutral"]
    # Those of a pipeline replace all of the card's; a label without one is always in the result.
    strict = predictions(of_card, LOGITS, thresholds={"positive": 0.9})[0]
    assert list(scores(strict)) == ["negative", "neutral"]
    assert (strict.label, strict.confidence) == ("negative", 0.6225)
    assert len(scores(predictions(of_card, LOGITS, thresholds={})[0])) == 3
    numbers = predictions(of_card, LOGITS, thresholds={"negative": 0.9}, function_to_apply="none")
    assert list(scores(numbers[0])) == ["positive", "neutral"]


def test_threshold_that_is_reached_exactly_is_enough() -> None:
    found = predictions(task("multi_label"), LOGITS, thresholds={"negative": 0.6225})[0]
    assert "negative" in scores(found)


def test_top_k_counts_only_labels_that_reach_their_thresholds() -> None:
    of = task("multi_label")
    found = predictions(of, LOGITS, top_k=1, thresholds={"positive": 0.9})[0]
    assert list(scores(found)) == ["negative"]


def test_result_without_any_label_is_empty() -> None:
    thresholds = dict.fromkeys(LABELS, 0.99)
    nothing = predictions(task("multi_label"), LOGITS, thresholds=thresholds)[0]
    assert nothing == Prediction(b"[]", None, None)


@pytest.mark.parametrize("problem_type", ["single_label", "regression"])
def test_thresholds_are_only_for_models_whose_labels_are_independent(
    problem_type: ProblemType,
) -> None:
    with pytest.raises(ValueError, match=f"multi_label model, but this one is {problem_type}"):
        task(problem_type, thresholds={"neutral": 0.5})
    parameters = ClassificationParameters(thresholds={"neutral": 0.5})
    with pytest.raises(ValueError, match="need a multi_label model"):
        task(problem_type).check(parameters)
    task(problem_type).check(ClassificationParameters(thresholds={}))


def test_threshold_of_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="the label 'good', which the model lacks"):
        task("multi_label").check(ClassificationParameters(thresholds={"good": 0.5}))


@pytest.mark.parametrize("merge", ["mean", "max"])
def test_windows_are_merged_before_the_softmax(merge: Literal["mean", "max"]) -> None:
    windows = [window(LOGITS[0], tokens=30), window(LOGITS[1], tokens=10)]
    of = task("single_label")
    record = Computed(("a", None), [Passage("a")], [windows])
    (found,) = of.predictions([record], ClassificationParameters(window_merge=merge))

    both = {"mean": LOGITS[0] * 0.75 + LOGITS[1] * 0.25, "max": np.max(LOGITS, axis=0)}[merge]
    assert [found] == predictions(of, both[None])


def settings(path: Path, kind: Any = "torch") -> ModelSettings:
    engine = EngineSettings(kind=kind, precision="f32")
    return ModelSettings(name="model", path=path, engine=engine)


def answers(
    path: Path, records: Sequence[dict[str, str]], kind: str = "torch", **options: Any
) -> list[Answer]:
    from serve.replica import Replica

    replica = Replica(settings(path, kind))
    reply = replica.predict([orjson.dumps(record) for record in records], CallOptions(**options))
    replica.close()
    found = [outcome for outcome in reply.outcomes if isinstance(outcome, Answer)]
    assert len(found) == len(records)
    return found


def imported(source: Path, out: Path, **head: Any) -> Artifact:
    from serve.importing import import_model

    return import_model(str(source), out, task="text-classification", head=head)


def pipeline_of(source: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(source), device="cpu")


def require_same(found: Sequence[Answer], expected: Sequence[list[dict[str, Any]]]) -> None:
    for answer, wanted in zip(found, expected, strict=True):
        ours = {one["label"]: one["score"] for one in orjson.loads(answer.result)}
        theirs = {one["label"]: one["score"] for one in wanted}
        assert ours == pytest.approx(theirs, abs=1e-4)
        best = orjson.loads(answer.result)[0]["label"]
        assert theirs[best] >= max(theirs.values()) - 1e-4


@pytest.mark.model
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_texts_and_pairs_are_answered_as_by_the_pipeline(
    make_source: MakeSource, tmp_path: Path, kind: str
) -> None:
    source = make_source(num_labels=3)
    artifact = imported(source, tmp_path / "out")
    assert artifact.card.tokenizer.token_types

    found = answers(artifact.path, PAIRS, kind)
    peer = pipeline_of(source)
    cut = {"truncation": True, "max_length": 64}
    require_same(found, [peer(record, top_k=None, **cut) for record in PAIRS])
    # The order of the texts, and the second text, matter.
    assert len({answer.result for answer in found}) == len(PAIRS)
    assert [answer.truncated for answer in found] == [False, False, False, False, True]


@pytest.mark.model
@pytest.mark.parametrize(
    ("config", "problem_type"),
    [
        ({"num_labels": 3}, "single_label"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "single_label"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi_label"),
        ({"num_labels": 3, "problem_type": "regression"}, "regression"),
        ({"num_labels": 1}, "multi_label"),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, "multi_label"),
        ({"num_labels": 1, "problem_type": "regression"}, "regression"),
    ],
)
def test_scores_of_every_kind_of_head_are_those_of_the_pipeline(
    make_source: MakeSource, tmp_path: Path, config: dict[str, Any], problem_type: str
) -> None:
    source = make_source(**config)
    artifact = imported(source, tmp_path / "out")
    assert isinstance(artifact.card.head, ClassificationHead)
    assert artifact.card.head.problem_type == problem_type

    peer = pipeline_of(source)
    require_same(
        answers(artifact.path, PAIRS[:3]), [peer(record, top_k=None) for record in PAIRS[:3]]
    )
    for function in ("softmax", "sigmoid", "none"):
        found = answers(artifact.path, PAIRS[:1], parameters={"function_to_apply": function})
        require_same(found, [peer(PAIRS[0], top_k=None, function_to_apply=function)])


@pytest.mark.model
def test_top_k_is_that_of_the_pipeline(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(num_labels=5)
    artifact = imported(source, tmp_path / "out")

    found = answers(artifact.path, PAIRS[:3], parameters={"top_k": 2})
    peer = pipeline_of(source)
    require_same(found, [peer(record, top_k=2) for record in PAIRS[:3]])


@pytest.mark.model
def test_short_texts_have_the_same_bytes_in_windows(sentiment: Artifact) -> None:
    records = [{"text": text} for text in TEXTS]
    cut = answers(sentiment.path, records)
    windowed = answers(sentiment.path, records, long_text="window", window_stride=8)
    assert windowed == cut


@pytest.mark.model
def test_windows_of_a_long_text_count_by_their_tokens(sentiment: Artifact) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    text = f"{TEXTS[2]} {TEXTS[1]} " * 5
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(sentiment.path / "tokenizer.json"))
    windows = tokenizer(
        text, truncation=True, max_length=64, stride=8, return_overflowing_tokens=True
    )
    model = AutoModelForSequenceClassification.from_pretrained(sentiment.path)
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0].numpy() for ids in windows.input_ids]
    lengths = [len(ids) for ids in windows.input_ids]
    assert lengths[:-1] == [64] * (len(lengths) - 1)
    assert lengths[-1] < 64

    (found,) = answers(sentiment.path, [{"text": text}], long_text="window", window_stride=8)
    assert (found.tokens, found.truncated) == (sum(lengths), False)
    mean = np.average(logits, axis=0, weights=lengths)
    of_mean = predictions(task("single_label"), mean[None])[0]
    assert scores(Prediction(found.result)) == pytest.approx(scores(of_mean), abs=1e-4)
    (cut,) = answers(sentiment.path, [{"text": text}])
    assert (cut.tokens, cut.truncated) == (64, True)
    assert cut.result != found.result


@pytest.mark.model
def test_thresholds_of_the_card_apply_until_a_pipeline_sets_its_own(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source(num_labels=3, problem_type="multi_label_classification")
    plain = imported(source, tmp_path / "plain")
    all_labels = answers(plain.path, PAIRS[:1])[0]
    by_score = orjson.loads(all_labels.result)
    middle = by_score[1]
    thresholds = {middle["label"]: min(1.0, middle["score"] + 0.001)}

    artifact = imported(source, tmp_path / "out", thresholds=thresholds)
    without = orjson.dumps([by_score[0], by_score[2]])
    assert answers(artifact.path, PAIRS[:1])[0].result == without
    (by_pipeline,) = answers(plain.path, PAIRS[:1], parameters={"thresholds": thresholds})
    assert by_pipeline.result == without
    (overruled,) = answers(artifact.path, PAIRS[:1], parameters={"thresholds": {}})
    assert overruled.result == all_labels.result


@pytest.mark.model
def test_thresholds_of_a_single_label_model_are_refused(
    sentiment: Artifact, make_source: MakeSource, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="thresholds need a multi_label model"):
        imported(make_source(), tmp_path / "out", thresholds={"LABEL_0": 0.5})
    with pytest.raises(ParametersRefused, match="thresholds need a multi_label model"):
        answers(sentiment.path, PAIRS[:1], parameters={"thresholds": {"neutral": 0.5}})


@pytest.mark.model
def test_golden_pairs_are_sealed_and_asked_at_the_start(
    make_source: MakeSource, tmp_path: Path
) -> None:
    from serve.golden_texts import GoldenText
    from serve.importing import import_model
    from serve.replica import Replica

    golden = [GoldenText(PAIRS[0], exact=True), GoldenText(PAIRS[2])]
    artifact = import_model(
        str(make_source(num_labels=3)), tmp_path / "m", task="text-classification", golden=golden
    )
    assert [record.record for record in artifact.golden()] == [PAIRS[0], PAIRS[2]]
    Replica(settings(artifact.path, "openvino")).close()

    turned = artifact.card.model_copy(
        update={"head": artifact.card.head.model_copy(update={"labels": LABELS})}
    )
    write_card(artifact.path, turned)
    seal(artifact.path)
    with pytest.raises(ArtifactError, match=f"{GOLDEN_FILE}: line 1 is answered differently"):
        Replica(settings(artifact.path))
