from __future__ import annotations

import numpy as np
import orjson

from serve.tasks.features import Features


def test_embedding_is_a_list_of_rounded_numbers() -> None:
    outputs = np.array([[0.123456, -0.5, -1e-9]], dtype=np.float32)
    prediction = Features().predictions(outputs)[0]

    assert prediction.result == b"[0.1235,-0.5,0.0]"
    assert prediction.label is None
    assert prediction.confidence is None


def test_each_item_has_its_embedding() -> None:
    outputs = np.random.default_rng(0).normal(size=(5, 384)).astype(np.float32)
    found = [orjson.loads(item.result) for item in Features().predictions(outputs)]

    np.testing.assert_allclose(found, outputs, atol=5.1e-5)
