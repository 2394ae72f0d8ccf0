from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serve.scores import sigmoid, softmax

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(hnp.arrays(np.float64, (3, 4), elements=FINITE))
def test_any_finite_logits_give_scores_from_0_to_1(logits: NDArray[np.float64]) -> None:
    for scores in (softmax(logits), sigmoid(logits)):
        assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1.0)


def test_softmax_is_over_the_last_axis() -> None:
    logits = np.random.default_rng(1).normal(size=(2, 3, 4))

    np.testing.assert_allclose(softmax(logits).sum(axis=-1), np.ones((2, 3)))
    np.testing.assert_allclose(softmax(logits)[1, 2], softmax(logits[1, 2]))


@pytest.mark.model
def test_softmax_and_sigmoid_are_those_of_torch() -> None:
    import torch

    logits = np.random.default_rng(5).normal(scale=10, size=(20, 5))
    tensor = torch.from_numpy(logits)

    np.testing.assert_allclose(softmax(logits), torch.softmax(tensor, 1), atol=1e-12)
    np.testing.assert_allclose(sigmoid(logits), torch.sigmoid(tensor), atol=1e-12)
