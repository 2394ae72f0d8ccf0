from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from serve.artifact import GOLDEN_FILE, Artifact, load, seal
from serve.contract import Answer, Failure, FailureKind, Outcome
from serve.errors import ArtifactError
from serve.golden import GOLDEN_TEXTS, OutcomesOf, check_golden
from tests.ops.directories import make_directory

SCORES = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]


def sealed_with(path: Path, *results: Any) -> Artifact:
    embeds = not isinstance(results[0], list) or isinstance(results[0][0], float)
    make_directory(path, golden={"x": [1.0]} if embeds else None)
    lines = [
        orjson.dumps({"record": {"text": f"text {n}"}, "result": item})
        for n, item in enumerate(results)
    ]
    (path / GOLDEN_FILE).write_bytes(b"\n".join(lines))
    seal(path)
    return load(path)


def answer_of(result: object) -> Answer:
    return Answer(orjson.dumps(result), None, None, None, tokens=3, truncated=False)


def answering(*results: object) -> OutcomesOf:
    def outcomes_of(values: list[bytes]) -> list[Outcome]:
        assert values[0] == b'{"text":"text 0"}'
        return [
            item if isinstance(item, Failure) else answer_of(item)
            for item in results[: len(values)]
        ]

    return outcomes_of


@pytest.mark.parametrize(
    ("precision", "score", "passes"),
    [("f32", 0.905, True), ("f32", 0.88, False), ("bf16", 0.88, True), ("bf16", 0.8, False)],
)
def test_score_may_differ_as_much_as_the_precision_explains(
    tmp_path: Path, precision: str, score: float, passes: bool
) -> None:
    artifact = sealed_with(tmp_path / "model", SCORES)
    found = answering([{"label": "good", "score": score}, {"label": "bad", "score": 0.1}])

    if passes:
        check_golden(artifact, found, precision=precision)
    else:
        with pytest.raises(ArtifactError, match=rf"line 1 .*'good' scores {score}, expected 0.9"):
            check_golden(artifact, found, precision=precision)


def of_tokens(*vectors: list[float]) -> dict[str, Any]:
    return {"tokens": ["a"] * len(vectors), "vectors": list(vectors)}


@pytest.mark.parametrize(
    ("expected", "embedding", "fault"),
    [
        ([0.6, 0.8], [0.6, 0.8001], None),
        ([0.6, 0.8], [0.8, 0.6], "cosine to the reference is 0.96"),
        ([0.6, 0.8], [0.6, 0.8, 0.0], "3 numbers, expected 2"),
        (of_tokens([0.6, 0.8], [1.0, 0.0]), of_tokens([0.6, 0.8001], [1.0, 0.0]), None),
        (of_tokens([0.6, 0.8], [1.0, 0.0]), of_tokens([1.0, 0.0], [0.6, 0.8]), "is 0.6"),
        (of_tokens([0.6, 0.8]), of_tokens([0.6, 0.8], [1.0, 0.0]), "4 numbers, expected 2"),
    ],
)
def test_embedding_must_point_the_same_way(
    tmp_path: Path, expected: object, embedding: object, fault: str | None
) -> None:
    artifact = sealed_with(tmp_path / "model", expected)

    if fault is None:
        check_golden(artifact, answering(embedding), precision="f32")
    else:
        with pytest.raises(ArtifactError, match=fault):
            check_golden(artifact, answering(embedding), precision="f32")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ([{"label": "other", "score": 0.9}], "the label 'good' is missing"),
        (Failure(FailureKind.POISON, "not finite"), "not finite"),
    ],
)
def test_other_answer_is_a_fault(tmp_path: Path, answer: object, fault: str) -> None:
    artifact = sealed_with(tmp_path / "model", SCORES, SCORES)

    with pytest.raises(ArtifactError, match=f"line 2 .*{fault}"):
        check_golden(artifact, answering(SCORES, answer), precision="f32")


def test_long_list_does_not_delay_the_start(tmp_path: Path) -> None:
    artifact = sealed_with(tmp_path / "model", *[SCORES] * 500)
    asked: list[int] = []

    def outcomes_of(values: list[bytes]) -> list[Outcome]:
        asked.append(len(values))
        return [answer_of(SCORES)] * len(values)

    check_golden(artifact, outcomes_of, precision="f32")
    assert asked == [GOLDEN_TEXTS]
