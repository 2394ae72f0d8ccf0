"""Entailment models with random weights, beside the pipeline of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pytest
import torch
from transformers import BertForSequenceClassification, BertModel, pipeline

from serve.agreement import TOLERANCES
from serve.artifact import TOKENIZER_FILE, Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind
from serve.errors import ArtifactError, ParametersRefused
from serve.golden_texts import GoldenText
from serve.importing import import_model
from serve.parameters import checked_parameters, require_options
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.task import Division, Passage
from serve.tasks.zero_shot_classification import RankedLabels, ZeroShotClassification, ZeroShotHead
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = pytest.mark.model

NAMES = ("contradiction", "neutral", "entailment")
LABELS = ["travel", "the price", "Küche", "politics", "a broken hinge", "sports, {all} of them"]
LIMIT = 64
LONG = " ".join(TEXTS)
TEMPLATE = "It is about {}, obviously."


def entailment_source(directory: Path, names: tuple[str, ...] = NAMES) -> Path:
    torch.manual_seed(11)
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    model = BertForSequenceClassification(tiny_config(initializer_range=0.3, **labels))
    model.save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LIMIT}))
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return entailment_source(tmp_path_factory.mktemp("entailment"))


@pytest.fixture(scope="module")
def artifact(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return imported(source, tmp_path_factory.mktemp("models") / "model")


def imported(source: Path, out: Path, **more: Any) -> Artifact:
    return import_model(str(source), out, task="zero-shot-classification", **more)


def opened(artifact: Artifact, kind: Literal["openvino", "torch"] = "torch") -> Replica:
    engine = EngineSettings(kind=kind, precision="f32", threads=1)
    return Replica(ModelSettings(name="topics", path=artifact.path, engine=engine))


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


def value(text: str, labels: list[str] | None = None) -> bytes:
    return orjson.dumps({"text": text} | ({} if labels is None else {"candidate_labels": labels}))


def results(replica: Replica, values: list[bytes], **options: Any) -> list[Any]:
    outcomes = replica.predict(values, CallOptions(**options)).outcomes
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(outcome.result) for outcome in outcomes if isinstance(outcome, Answer)]


def tensor(row: Any) -> torch.Tensor:
    return torch.from_numpy(row).long()[None]


def failure(replica: Replica, record: bytes, **parameters: Any) -> Failure:
    (outcome,) = replica.predict([record], CallOptions(parameters=parameters)).outcomes
    assert isinstance(outcome, Failure)
    return outcome


def require_same(found: Any, expected: Any) -> None:
    """Compare with a result of the pipeline, which has a score for every label."""
    assert found["sequence"] == expected["sequence"]
    theirs = dict(zip(expected["labels"], expected["scores"], strict=True))
    assert found["scores"] == pytest.approx([theirs[label] for label in found["labels"]], abs=1e-4)
    assert found["labels"] == sorted(theirs, key=lambda label: -theirs[label])


@pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_results_are_those_of_the_pipeline(
    replica: Replica, source: Path, labels: list[str], multi_label: bool, template: str | None
) -> None:
    more = {"multi_label": multi_label} | ({"hypothesis_template": template} if template else {})
    classify = pipeline("zero-shot-classification", model=str(source))
    texts = [*TEXTS, LONG]
    expected = [classify(text, candidate_labels=labels, **more) for text in texts]

    own = results(replica, [value(text, labels) for text in texts], parameters=more)
    from_parameters = results(
        replica,
        [value(text) for text in texts],
        parameters={"candidate_labels": labels, **more},
    )
    for found, theirs in zip(own, expected, strict=True):
        require_same(found, theirs)
    assert from_parameters == own


@pytest.mark.parametrize(
    "names",
    [("entailment", "neutral", "contradiction"), ("Entailment", "not"), ("no", "ENTAILED", "x")],
)
def test_entailment_may_be_any_class(names: tuple[str, ...], tmp_path: Path) -> None:
    source = entailment_source(tmp_path / "source", names)
    artifact = imported(source, tmp_path / "out")
    classify = pipeline("zero-shot-classification", model=str(source))
    expected = classify(TEXTS[1], candidate_labels=LABELS, multi_label=True)

    own = opened(artifact)
    (found,) = results(own, [value(TEXTS[1], LABELS)], parameters={"multi_label": True})
    own.close()
    require_same(found, expected)


def test_alone_and_in_a_batch_the_bytes_are_the_same(replica: Replica) -> None:
    values = [value(text, LABELS[: 1 + n % 5]) for n, text in enumerate([*TEXTS, LONG])]
    together = replica.predict(values, CallOptions()).outcomes

    for one, outcome in zip(values, together, strict=True):
        assert replica.predict([one], CallOptions()).outcomes == [outcome]


def test_label_and_confidence_are_those_of_the_best(torch_replica: Replica) -> None:
    (answer,) = torch_replica.predict([value(TEXTS[1], LABELS)], CallOptions()).outcomes
    assert isinstance(answer, Answer)

    result = orjson.loads(answer.result)
    assert (answer.label, answer.confidence) == (result["labels"][0], result["scores"][0])


def test_labels_of_the_record_come_before_those_of_the_pipeline(torch_replica: Replica) -> None:
    (result,) = results(
        torch_replica, [value("fine", LABELS[:2])], parameters={"candidate_labels": LABELS[2:]}
    )
    assert sorted(result["labels"]) == sorted(LABELS[:2])


def test_a_repeated_label_counts_once(torch_replica: Replica) -> None:
    once, twice = results(
        torch_replica, [value("fine", ["a", "b"]), value("fine", ["a", "b", "a", "b"])]
    )
    assert once == twice


def test_labels_may_be_one_text_with_commas(torch_replica: Replica) -> None:
    (result,) = results(
        torch_replica, [value("fine")], parameters={"candidate_labels": "sports, the price , ,news"}
    )
    assert sorted(result["labels"]) == ["news", "sports", "the price"]


def test_top_k_are_the_best(torch_replica: Replica) -> None:
    (everything,) = results(torch_replica, [value(TEXTS[1], LABELS)])
    (best,) = results(torch_replica, [value(TEXTS[1], LABELS)], parameters={"top_k": 2})

    assert best["labels"] == everything["labels"][:2]
    assert best["scores"] == everything["scores"][:2]


def test_a_record_without_labels_fails_and_names_both_ways(torch_replica: Replica) -> None:
    found = failure(torch_replica, value("fine"))

    assert found.kind == FailureKind.NO_TEXT
    assert found.message == (
        "no labels: send them as the field 'candidate_labels', or set the parameter "
        "candidate_labels"
    )


def test_too_many_labels_are_refused(torch_replica: Replica) -> None:
    many = [f"label {n}" for n in range(10_000)]
    found = failure(torch_replica, value("fine", many))

    assert found.kind == FailureKind.TOO_MANY
    assert "'candidate_labels' has 10,000 elements, but max_labels allows 1,000" in found.message
    assert failure(torch_replica, value("fine", many[:4]), max_labels=3).kind == "too-many"
    with pytest.raises(ParametersRefused, match="candidate_labels has 10,000 labels, but max_"):
        checked_parameters(torch_replica._task, {"candidate_labels": many})


def test_one_record_that_fails_leaves_the_others(torch_replica: Replica) -> None:
    long_label = "word " * (LIMIT + 1)
    values = [value("fine", ["a", "b"]), value("fine"), value("fine", [long_label, "a"])]
    first, *others = torch_replica.predict(values, CallOptions()).outcomes

    assert isinstance(first, Answer)
    kinds = [one.kind for one in others if isinstance(one, Failure)]
    assert kinds == [FailureKind.NO_TEXT, FailureKind.TOO_LONG]


def test_only_the_text_is_cut(torch_replica: Replica, source: Path) -> None:
    label = "a label " * 15
    expected = pipeline("zero-shot-classification", model=str(source))(
        LONG, candidate_labels=[label, "b"]
    )
    (answer,) = torch_replica.predict([value(LONG, [label, "b"])], CallOptions()).outcomes
    assert isinstance(answer, Answer)

    assert answer.truncated
    require_same(orjson.loads(answer.result), expected)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_windows_of_a_long_text_become_one_result(
    torch_replica: Replica, artifact: Artifact, source: Path, how: Literal["mean", "max"]
) -> None:
    model = BertForSequenceClassification.from_pretrained(source).eval()
    tokenizer = TextTokenizer.of(artifact)
    rows = []
    for label in LABELS[:3]:
        passage = Passage(LONG, f"This example is {label}.")
        (windows,) = tokenizer.divide([passage], Division(True, 8, "only_first"))
        assert not isinstance(windows, Failure)
        assert len(windows) > 1
        with torch.no_grad():
            logits = np.stack(
                [
                    model(*map(tensor, (w.ids, np.ones_like(w.ids), w.types))).logits[0]
                    for w in windows
                ]
            )
        sizes = [len(w.ids) for w in windows]
        rows.append(logits.max(0) if how == "max" else np.average(logits, 0, weights=sizes))
    scores = torch.tensor(np.stack(rows))[:, 2].softmax(0).tolist()

    (found,) = results(
        torch_replica,
        [value(LONG, LABELS[:3])],
        long_text="window",
        window_stride=8,
        parameters={"window_merge": how},
    )
    theirs = dict(zip(LABELS, scores, strict=False))
    assert found["scores"] == pytest.approx([theirs[label] for label in found["labels"]], abs=1e-4)


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"hypothesis_template": "no place"}, "hypothesis_template must contain {} once"),
        ({"hypothesis_template": "{} or {}"}, "hypothesis_template must contain {} once"),
        ({"hypothesis_template": "{0}"}, "hypothesis_template must contain {} once"),
        ({"candidate_labels": []}, "candidate_labels"),
        ({"candidate_labels": ["a", " "]}, "candidate_labels"),
        ({"candidate_labels": " , "}, "candidate_labels"),
        ({"max_labels": 0}, "max_labels"),
        ({"top_k": 0}, "top_k"),
        ({"multilabel": True}, "did you mean multi_label"),
    ],
)
def test_wrong_parameters_are_refused(
    artifact: Artifact, parameters: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ParametersRefused) as refused:
        require_options(artifact.card, CallOptions(parameters=parameters))
    assert fault in str(refused.value)


def test_plain_text_is_enough_where_the_pipeline_has_the_labels(torch_replica: Replica) -> None:
    (plain,) = results(
        torch_replica, [b"fine"], format="text", parameters={"candidate_labels": ["a", "b"]}
    )
    assert plain == results(torch_replica, [value("fine", ["a", "b"])])[0]


def test_a_model_without_entailment_is_refused_until_it_is_named(tmp_path: Path) -> None:
    source = entailment_source(tmp_path / "source", ("LABEL_0", "LABEL_1", "LABEL_2"))
    with pytest.raises(ArtifactError, match="set the class with entailment=INDEX") as refused:
        imported(source, tmp_path / "refused")
    assert "0 is 'LABEL_0', 1 is 'LABEL_1'" in str(refused.value)

    named = imported(source, tmp_path / "named", head={"entailment": 1})
    assert isinstance(named.card.head, ZeroShotHead)
    assert (named.card.head.entailment, named.card.head.contradiction) == (1, 0)
    renamed = imported(source, tmp_path / "renamed", head={"labels": ["entail", "x", "y"]})
    assert renamed.card.head.entailment == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ({"entailment": 3}, "entailment must be below 3"),
        ({"entailment": -1}, "entailment"),
        ({"labels": ["entailment", "b"]}, "2 labels were given, but the model has 3 classes"),
        ({"entailmen": 1}, "did you mean entailment"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    source: Path, tmp_path: Path, head: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ArtifactError, match=fault):
        imported(source, tmp_path / "out", head=head)


def test_a_model_of_one_class_is_refused(tmp_path: Path) -> None:
    source = entailment_source(tmp_path / "source", ("entailment",))
    with pytest.raises(ArtifactError, match="labels must be at least two"):
        imported(source, tmp_path / "out")


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    BertModel(tiny_config()).save_pretrained(tmp_path / "source")
    shutil.copyfile(locate(None) / TOKENIZER_FILE, tmp_path / "source" / TOKENIZER_FILE)
    with pytest.raises(ArtifactError, match="made for another task"):
        imported(tmp_path / "source", tmp_path / "out")


def test_golden_texts_are_answered_in_every_engine(source: Path, tmp_path: Path) -> None:
    golden = [GoldenText({"text": text, "candidate_labels": LABELS}) for text in TEXTS[:3]]
    artifact = imported(source, tmp_path / "out", golden=golden)

    for kind in ("openvino", "torch"):
        opened(artifact, kind).close()  # type: ignore[arg-type]


def test_a_task_needs_only_its_head() -> None:
    task = ZeroShotClassification(ZeroShotHead(labels=NAMES, entailment=2), precision="bf16")
    parameters = checked_parameters(task, {"candidate_labels": ["a", "a", "b"]})

    assert task.passages(("text", None), parameters) == [
        Passage("text", "This example is a."),
        Passage("text", "This example is b."),
    ]


def ranked(**scores: float) -> dict[str, Any]:
    return {"sequence": "s", "labels": list(scores), "scores": list(scores.values())}


def test_results_agree_within_the_tolerance() -> None:
    agreement, tolerance = RankedLabels(), TOLERANCES["f32"]
    before, near, far = ranked(a=0.52, b=0.48), ranked(b=0.51, a=0.49), ranked(b=0.9, a=0.1)

    assert agreement.difference(ranked(a=0.525, b=0.475), before, tolerance) is None
    assert agreement.difference(far, before, tolerance) == "'a' scores 0.1, expected 0.52"
    assert agreement.difference(ranked(a=0.52), before, tolerance) == "the label 'b' is missing"
    assert agreement.same_best(near, before, TOLERANCES["f16"])
    assert not agreement.same_best(far, ranked(a=0.9, b=0.1), TOLERANCES["f16"])
    assert agreement.same_for_people(before, ranked(a=0.55, b=0.45))
    assert not agreement.same_for_people(before, near)
    assert agreement.answer(before) == "a"
    assert agreement.cosine(before, near) is None
