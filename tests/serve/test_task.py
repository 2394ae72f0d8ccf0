from __future__ import annotations

import numpy as np
import pytest

from serve.contract import Failure, FailureKind
from serve.task import Division, Encoded, Passage, Window, merged, too_many
from serve.tasks.text_classification import (
    ClassificationHead,
    ClassificationParameters,
    TextClassification,
)

TASK = TextClassification(
    ClassificationHead(labels=("a", "b"), problem_type="single_label"), precision="bf16"
)
DEFAULTS = ClassificationParameters()


def window(tokens: int, *outputs: list[float]) -> Window:
    ids = np.zeros(tokens, dtype=np.int32)
    return Window(Encoded(ids), tuple(np.array(output, dtype=np.float32) for output in outputs))


def test_inputs_of_a_record_are_one_passage() -> None:
    assert TASK.passages(("a", None), DEFAULTS) == [Passage("a")]
    assert TASK.passages(("a", "b"), DEFAULTS) == [Passage("a", "b")]


def test_long_passages_are_handled_as_the_pipeline_wants() -> None:
    assert TASK.division(windows=True, stride=7, parameters=DEFAULTS) == Division(
        windows=True, stride=7, truncation="longest_first", offsets=False
    )
    assert not TASK.division(windows=False, stride=7, parameters=DEFAULTS).windows


def test_digits_depend_on_the_precision() -> None:
    assert TASK.decimals == 2
    assert TextClassification(TASK.head, precision="f32").decimals == 4


def test_one_window_is_not_changed() -> None:
    only = window(3, [1.0, 2.0])
    assert merged([only]) is only.outputs[0]
    assert merged([only], "max") is only.outputs[0]


def test_several_windows_count_by_their_tokens() -> None:
    windows = [window(30, [1.0, 0.0], [5.0]), window(10, [5.0, 4.0], [1.0])]

    assert merged(windows).tolist() == [2.0, 1.0]
    assert merged(windows).dtype == np.float32
    assert merged(windows, output=1).tolist() == [4.0]


def test_highest_of_several_windows_is_taken_for_each_number() -> None:
    windows = [window(30, [1.0, 0.5]), window(10, [-5.0, 4.0])]

    assert merged(windows, "max").tolist() == [1.0, 4.0]


def test_too_many_elements_are_counted() -> None:
    assert too_many("texts", 1_200, 1_000, "max_texts") == Failure(
        FailureKind.TOO_MANY,
        "the field 'texts' has 1,200 elements, but max_texts allows 1,000; send fewer, or raise "
        "max_texts",
    )


def test_unknown_precision_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError):
        TextClassification(TASK.head, precision="f8")
