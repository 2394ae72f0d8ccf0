from __future__ import annotations

from pathlib import Path

import pytest

from serve.artifact import Artifact, load
from serve.combining import combine
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText
from serve.importing import import_model
from tests.serve.heads import heads_of
from tests.serve.tiny import MakeSource, tiny_config

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    place = tmp_path_factory.mktemp("models")
    return heads_of(tiny_config(), ("text-classification", "token-classification"), place)


def test_card_has_every_head_and_the_directory_is_sealed(
    models: dict[str, Artifact], tmp_path: Path
) -> None:
    names, topic = models.values()
    golden = [GoldenText({"text": "a fine day"}, exact=True)]
    made = combine({"topic": names.path, "names": topic.path}, tmp_path / "out", golden=golden)

    assert load(tmp_path / "out").digest == made.digest
    assert made.card.task == "multi-task"
    heads = made.card.head.model_dump()["heads"]
    assert [(name, head["task"]) for name, head in heads.items()] == [
        ("topic", "text-classification"),
        ("names", "token-classification"),
    ]
    assert heads["topic"]["head"]["labels"] == names.card.labels
    (record,) = made.golden()
    assert list(record.result) == ["topic", "names"]


def test_models_with_different_encoders_are_refused(
    models: dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = heads_of(tiny_config(), ("text-classification",), tmp_path / "other", seed=4)
    first = next(iter(models.values()))
    (second,) = other.values()
    with pytest.raises(
        ArtifactError, match=r"bert\..* differs from the encoder .*--freeze encoder"
    ):
        combine({"a": first.path, "b": second.path}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_with_different_architectures_are_refused(
    models: dict[str, Artifact], make_source: MakeSource, tmp_path: Path
) -> None:
    config = tiny_config(num_hidden_layers=5)
    (tmp_path / "other").mkdir()
    (second,) = heads_of(config, ("text-classification",), tmp_path / "other").values()
    first = next(iter(models.values()))
    with pytest.raises(ArtifactError, match="has another architecture"):
        combine({"a": second.path, "b": first.path}, tmp_path / "out")


def test_one_model_is_not_enough(models: dict[str, Artifact], tmp_path: Path) -> None:
    first = next(iter(models.values()))
    with pytest.raises(ArtifactError, match=r"heads: .*at least 2 items"):
        combine({"a": first.path}, tmp_path / "out")


def test_name_of_a_head_is_plain(models: dict[str, Artifact], tmp_path: Path) -> None:
    first, second = models.values()
    with pytest.raises(ArtifactError, match=r"'\.\./a' must have only lower case"):
        combine({"../a": first.path, "b": second.path}, tmp_path / "out")


def test_external_model_cannot_be_imported_as_multi_task(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="use `bertstream combine`"):
        import_model(None, tmp_path / "out", task="multi-task")
