from __future__ import annotations

from typing import Any

import pytest

from serve.artifact import ModelCard
from serve.contract import CallOptions
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ParametersRefused
from serve.parameters import checked_parameters, require_options, suggestion
from serve.tasks.feature_extraction import FeatureExtraction, FeatureParameters
from serve.tasks.text_classification import (
    ClassificationHead,
    ClassificationParameters,
    TextClassification,
)

LABELS = ("good", "bad")
SINGLE = ClassificationHead(labels=LABELS, problem_type="single_label")
MULTI = ClassificationHead(labels=LABELS, problem_type="multi_label")
EMBEDDING = EmbeddingHead(pooling=Pooling(), prompts={"query": "Q: "})


def test_parameters_have_defaults() -> None:
    classification = TextClassification(SINGLE, precision="f32")
    assert checked_parameters(classification, {}) == ClassificationParameters()
    found = checked_parameters(classification, {"top_k": None, "window_merge": "max"})
    assert found == ClassificationParameters(top_k=None, window_merge="max")
    features = FeatureExtraction(EMBEDDING, precision="f32")
    found = checked_parameters(features, {"prompt_name": "query"})
    assert found == FeatureParameters(prompt_name="query")


@pytest.mark.parametrize(
    ("head", "parameters", "message"),
    [
        (SINGLE, {"topk": 3}, "text-classification: there is no topk; did you mean top_k?"),
        (
            SINGLE,
            {"temperature": 1},
            "text-classification: there is no temperature; there are top_k, function_to_apply, "
            "window_merge, thresholds",
        ),
        (SINGLE, {"top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        (SINGLE, {"function_to_apply": "tanh"}, "function_to_apply: Input should be 'softmax'"),
        (SINGLE, {"thresholds": {"good": 0.5}}, "thresholds need a multi_label model"),
        (MULTI, {"thresholds": {"best": 0.5}}, "the label 'best', which the model lacks"),
        (MULTI, {"thresholds": {"good": 1.5}}, "thresholds.good: Input should be less than"),
        (EMBEDDING, {"prompt_name": "passage"}, "no prompt 'passage'; the model has query"),
        (EMBEDDING, {"dimension": 8}, "there is no dimension; did you mean dimensions?"),
        (EMBEDDING, {"precision": "uint8"}, "feature-extraction: precision uint8 needs ranges"),
        (EMBEDDING, {"ranges": [[0.0], [1.0, 2.0]]}, "as many lowest as highest values"),
    ],
)
def test_refused_parameter_is_named_with_the_task(
    head: Any, parameters: dict[str, Any], message: str
) -> None:
    kind = FeatureExtraction if head is EMBEDDING else TextClassification
    with pytest.raises(ParametersRefused) as caught:
        checked_parameters(kind(head, precision="f32"), parameters)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{kind.name}: ")
    assert "\n" not in str(caught.value)


CLASSIFIER = ModelCard(task="text-classification", head=SINGLE, max_length=64)
RANKER: dict[str, Any] = {"task": "question-answering", "max_length": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CallOptions(fields={"txt": "body"}), "no input 'txt'; did you mean text?"),
        (CallOptions(fields={"body": "x"}), "no input 'body'; there are text, text_pair"),
        (
            CallOptions(format="text", fields={"text_pair": "reply"}),
            "set format to json",
        ),
        (CallOptions(parameters={"topk": 1}), "did you mean top_k?"),
        (CallOptions(parameters={"thresholds": {"good": 0.5}}), "need a multi_label model"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(options: CallOptions, message: str) -> None:
    with pytest.raises(ParametersRefused) as caught:
        require_options(CLASSIFIER, options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        CallOptions(),
        CallOptions(format="text"),
        CallOptions(fields={"text": "body", "text_pair": "reply"}, parameters={"top_k": 1}),
        CallOptions(format="text", long_text="window", window_stride=0),
    ],
)
def test_options_that_fit_the_model_are_accepted(options: CallOptions) -> None:
    require_options(CLASSIFIER, options)


def test_plain_text_is_not_enough_for_two_required_inputs() -> None:
    card = ModelCard.model_validate(RANKER)
    require_options(card, CallOptions())
    with pytest.raises(
        ParametersRefused,
        match="question-answering needs question and context in a record: set format to json",
    ):
        require_options(card, CallOptions(format="text"))


def test_suggestion_is_the_nearest_name_or_all() -> None:
    assert suggestion("lable", ["label", "score"]) == "did you mean label?"
    assert suggestion("zzz", ["label", "score"]) == "there are label, score"
    assert suggestion("zzz", []) == "there are none"


def test_wrong_shape_is_explained_without_words_of_python() -> None:
    classification = TextClassification(MULTI, precision="f32")
    with pytest.raises(ParametersRefused, match=r"thresholds: must be an object, .*, not 'good'"):
        checked_parameters(classification, {"thresholds": "good"})
