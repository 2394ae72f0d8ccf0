from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from serve.artifact import (
    CARD_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    REFERENCE_FILE,
    WEIGHTS_FILE,
    Artifact,
    GoldenRecord,
    Histogram,
    Metric,
    ModelCard,
    load,
    seal,
    write_card,
)
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ArtifactAltered, ArtifactError, ArtifactMissing, TaskMismatch
from serve.task import Head
from serve.tasks.text_classification import ClassificationHead
from tests.ops.directories import make_directory


@pytest.fixture
def sealed(tmp_path: Path) -> Artifact:
    """A sealed model directory."""
    labels = ("negative", "neutral", "positive")
    return load(make_directory(tmp_path / "sealed", labels=labels))


@pytest.fixture
def copy(sealed: Artifact, tmp_path: Path) -> Path:
    """The same once more, for a test to spoil."""
    return Path(shutil.copytree(sealed.path, tmp_path / "model"))


def test_sealed_directory_loads_with_its_digest_and_card(sealed: Artifact, copy: Path) -> None:
    artifact = load(copy, task="text-classification")

    assert artifact.digest == sealed.digest == seal(copy)
    assert artifact.card.labels == ("negative", "neutral", "positive")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS_FILE, CARD_FILE])
def test_altered_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(ArtifactAltered, match=rf"{name} has sha256 .* restore the file"):
        load(copy)


def test_digest_names_the_bytes(sealed: Artifact, copy: Path) -> None:
    write_card(copy, sealed.card.model_copy(update={"max_length": 32}))

    assert seal(copy) != sealed.digest
    assert load(copy).card.max_length == 32


@pytest.mark.parametrize("name", ["notes.txt", "adapter.safetensors", "1_Pooling/config.json"])
def test_file_outside_the_manifest_is_refused(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")

    with pytest.raises(ArtifactAltered, match=f"{name} is not in the manifest; remove it"):
        load(copy)


def test_linked_directory_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "more").symlink_to(tmp_path)

    with pytest.raises(ArtifactAltered, match="more is not in the manifest"):
        load(copy)


def test_cache_beside_the_model_is_no_part_of_it(sealed: Artifact, copy: Path) -> None:
    (copy / ".cache").mkdir()
    (copy / ".cache" / "graph.xml").write_text("<net/>")

    assert load(copy).digest == seal(copy) == sealed.digest


@pytest.mark.parametrize("name", ["model.bin", "model.PT", "head.pkl", "modeling_own.py"])
def test_file_that_can_run_code_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")

    with pytest.raises(ArtifactError, match=f"{name}: loading it can run code"):
        load(copy)
    with pytest.raises(ArtifactError, match="must be safetensors"):
        seal(copy)


def test_missing_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="nowhere: no such model directory; train or import"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [WEIGHTS_FILE, MANIFEST_FILE, "tokenizer.json"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()

    with pytest.raises(ArtifactMissing, match=rf"{name} is (missing|in the manifest but missing)"):
        load(copy)


def test_seal_wants_the_required_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=r"config\.json is missing"):
        seal(tmp_path)


def test_model_of_another_task_is_refused(copy: Path) -> None:
    with pytest.raises(TaskMismatch, match="made for text-classification, not for feature-extr"):
        load(copy, task="feature-extraction")


@pytest.mark.parametrize("name", [CARD_FILE, MANIFEST_FILE])
def test_unreadable_document_is_named(copy: Path, name: str) -> None:
    (copy / name).write_text('{"files": 1}')
    if name == CARD_FILE:
        seal(copy)

    with pytest.raises(ArtifactError, match=f"{name}: "):
        load(copy)


def test_manifest_cannot_vouch_for_files_elsewhere(copy: Path) -> None:
    manifest = orjson.loads((copy / MANIFEST_FILE).read_bytes())
    manifest["files"]["../secret"] = {"sha256": "0" * 64, "bytes": 1}
    (copy / MANIFEST_FILE).write_bytes(orjson.dumps(manifest))

    with pytest.raises(ArtifactMissing, match="in the manifest but missing"):
        load(copy)


def test_golden_records_are_read(copy: Path) -> None:
    assert load(copy).golden() == []
    result = [{"label": "a", "score": 1.0}]
    line = orjson.dumps({"record": {"text": "fine"}, "result": result})
    (copy / GOLDEN_FILE).write_bytes(line + b"\n")
    seal(copy)
    assert load(copy).golden() == [GoldenRecord(record={"text": "fine"}, result=result)]

    (copy / GOLDEN_FILE).write_text('{"record": {"text": "fine"}}\n')
    seal(copy)
    with pytest.raises(ArtifactError, match=r"golden\.jsonl: result: Field required"):
        load(copy).golden()


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "Größe"}, "Größe"),
        ({"text": "a", "text_pair": "b"}, '{"text":"a","text_pair":"b"}'),
        ({"query": "a", "texts": ["b"]}, '{"query":"a","texts":["b"]}'),
        ({"question": "a"}, '{"question":"a"}'),
    ],
)
def test_golden_record_is_a_value_for_a_topic_and_a_text_for_people(
    record: dict[str, Any], text: str
) -> None:
    golden = GoldenRecord(record=record, result=[])

    assert orjson.loads(golden.value) == record
    assert golden.text == text


def test_golden_record_has_an_input() -> None:
    with pytest.raises(ValidationError, match="record"):
        GoldenRecord(record={}, result=[])


def test_reference_is_read(copy: Path) -> None:
    assert load(copy).reference() is None
    tokens = {"edges": [0, 8, 16], "counts": [3, 4]}
    document = {"texts": 7, "tokens": tokens, "labels": {"positive": 7}}
    (copy / REFERENCE_FILE).write_bytes(orjson.dumps(document))
    seal(copy)
    reference = load(copy).reference()

    assert reference is not None
    assert reference.tokens.counts == (3, 4)


CLASSIFIER = {"task": "text-classification"}


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (CLASSIFIER | {"head": {"labels": ("a",)}}, "problem_type"),
        (CLASSIFIER | {"head": {"problem_type": "single_label"}}, "labels must not be empty"),
        (CLASSIFIER, "problem_type"),
        (
            CLASSIFIER | {"head": {"labels": ("a", "a"), "problem_type": "multi_label"}},
            "must differ",
        ),
        (
            CLASSIFIER
            | {
                "head": {
                    "labels": ("a",),
                    "problem_type": "multi_label",
                    "thresholds": {"b": 0.5},
                }
            },
            "thresholds has the label 'b', which the model lacks",
        ),
        (
            CLASSIFIER
            | {
                "head": {
                    "labels": ("a", "b"),
                    "problem_type": "single_label",
                    "thresholds": {"a": 0.5},
                }
            },
            "thresholds need a multi_label model, but this one is single_label",
        ),
        (CLASSIFIER | {"head": {"pooling": {}}}, "pooling"),
        ({"task": "feature-extraction"}, "pooling"),
        ({"task": "feature-extraction", "head": {"pooling": {}}, "extra": 1}, "Extra inputs"),
        (
            {"task": "feature-extraction", "head": {"pooling": {}, "labels": ("a",), "x": 1}},
            "Extra inputs",
        ),
        ({"task": "ranking", "head": {}}, "no such task: ranking"),
        ({"head": {"pooling": {}}}, "task"),
    ],
)
def test_card_must_fit_its_task(card: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelCard.model_validate({"max_length": 64, **card})


@pytest.mark.parametrize(
    ("task", "head"),
    [
        (
            "text-classification",
            ClassificationHead(
                labels=("a", "b"), problem_type="multi_label", thresholds={"b": 0.25}
            ),
        ),
        (
            "feature-extraction",
            EmbeddingHead(
                pooling=Pooling(mode="cls", also=("max",), dimensions=8),
                prompts={"query": "Q: "},
                default_prompt_name="query",
            ),
        ),
    ],
)
def test_card_comes_back_with_the_head_of_its_task(tmp_path: Path, task: str, head: Head) -> None:
    card = ModelCard(task=task, head=head, max_length=64)
    write_card(tmp_path, card)

    again = ModelCard.model_validate_json((tmp_path / CARD_FILE).read_bytes())
    assert again == card
    assert type(again.head) is type(head)
    assert again.labels == head.labels


def test_card_keeps_metrics_with_their_direction(sealed: Artifact, copy: Path) -> None:
    metric = Metric(name="accuracy", value=0.91, direction="higher")
    write_card(copy, sealed.card.model_copy(update={"metrics": (metric,)}))
    seal(copy)

    assert load(copy).card.metrics == (metric,)


def test_histogram_has_one_edge_more_than_counts() -> None:
    with pytest.raises(ValidationError, match="one more edge"):
        Histogram(edges=(0, 1), counts=(1, 2))
