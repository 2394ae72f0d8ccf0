from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from serve.artifact import MAX_GOLDEN_TEXTS, WEIGHTS_FILE, Artifact, load, seal
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText, add_golden, read_golden_texts
from serve.importing import import_model
from serve.replica import Replica
from serve.settings import ModelSettings
from tests.serve.tiny import TEXTS, MakeSource

pytestmark = pytest.mark.model


def copy_of(artifact: Artifact, path: Path) -> Artifact:
    shutil.copytree(artifact.path, path, ignore=shutil.ignore_patterns(".cache"))
    return load(path)


def test_plain_lines_and_objects(tmp_path: Path) -> None:
    file = tmp_path / "golden.txt"
    file.write_bytes('  Größe 7\n\n{"text": "it broke", "exact": true}\n{"text": "fine"}'.encode())
    assert read_golden_texts(file) == [
        GoldenText({"text": "Größe 7"}),
        GoldenText({"text": "it broke"}, exact=True),
        GoldenText({"text": "fine"}),
    ]


def test_objects_have_the_inputs_of_any_task(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(
        b'{"text": "a", "text_pair": "b", "exact": true}\n{"query": "a", "texts": ["b", "c"]}'
    )
    assert read_golden_texts(file) == [
        GoldenText({"text": "a", "text_pair": "b"}, exact=True),
        GoldenText({"query": "a", "texts": ["b", "c"]}),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\n \n", "contains no text"),
        (b"fine\n\xff\xfe\n", "line 2: is not UTF-8"),
        (b'fine\n\n{"text": 7, "exact": 1}', "line 3: exact is 1, but must be true or false"),
        (b'{"exact": true}', "line 1: has no input such as text"),
        (b'{"text": ', "line 1: is not JSON"),
        (b"fine\n" * (MAX_GOLDEN_TEXTS + 1), f"more than {MAX_GOLDEN_TEXTS} texts"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    file = tmp_path / "golden.txt"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=fault):
        read_golden_texts(file)


def test_a_mark_of_utf8_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "x", "exact": true}\ny\n')
    assert read_golden_texts(file) == [
        GoldenText({"text": "x"}, exact=True),
        GoldenText({"text": "y"}),
    ]
    file.write_bytes(b"a\n")  # shorter than the mark
    assert read_golden_texts(file) == [GoldenText({"text": "a"})]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere: cannot be read: No such file"):
        read_golden_texts(tmp_path / "nowhere")


def test_embedding_model_is_imported_with_its_golden_texts(
    make_source: MakeSource, tmp_path: Path
) -> None:
    golden = [GoldenText({"text": text}, exact=text == TEXTS[0]) for text in TEXTS]
    source = str(make_source(classifies=False))
    artifact = import_model(source, tmp_path / "m", task="feature-extraction", golden=golden)

    found = load(artifact.path).golden()
    assert [GoldenText(one.record, exact=one.exact) for one in found] == golden
    assert {len(one.result) for one in found} == {32}
    # Whatever engine serves it compares itself with them when it loads.
    served = Replica(ModelSettings(name="m", path=artifact.path))
    served.close()
    first, *others = (artifact.path / "golden.jsonl").read_bytes().splitlines()
    turned = orjson.loads(first)
    turned["result"] = [-number for number in turned["result"]]
    (artifact.path / "golden.jsonl").write_bytes(b"\n".join([orjson.dumps(turned), *others]))
    seal(artifact.path)
    with pytest.raises(ArtifactError, match="line 1 is answered differently"):
        Replica(ModelSettings(name="m", path=artifact.path))


def test_named_texts_stand_before_those_that_are_there(sentiment: Artifact, tmp_path: Path) -> None:
    artifact = copy_of(sentiment, tmp_path / "m")
    once = add_golden(artifact, [GoldenText({"text": "first"})])
    (first,) = once.golden()
    twice = add_golden(once, [GoldenText({"text": "second"}, exact=True)])

    assert [(one.text, one.exact) for one in twice.golden()] == [("second", True), ("first", False)]
    assert twice.golden()[1] == first
    assert len({artifact.digest, once.digest, twice.digest}) == 3


def test_text_that_the_model_has_no_answer_to_is_named(sentiment: Artifact, tmp_path: Path) -> None:
    artifact = copy_of(sentiment, tmp_path / "m")
    weights = load_file(artifact.path / WEIGHTS_FILE)
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, artifact.path / WEIGHTS_FILE, metadata={"format": "pt"})
    seal(artifact.path)

    with pytest.raises(ArtifactError, match=r"golden text 1 has no answer: .*not finite"):
        add_golden(load(artifact.path), [GoldenText({"text": "fine"})])


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"text": 7}, "golden text 2 has no answer: the field 'text' is a JSON number"),
        ({"txt": "fine"}, "golden text 2 has no answer: the object has no field 'text'"),
        ({"text": "fine", "text_pair": " "}, "golden text 2 has no answer: the field 'text_pair'"),
    ],
)
def test_record_that_does_not_fit_the_task_is_named(
    sentiment: Artifact, tmp_path: Path, record: dict[str, Any], fault: str
) -> None:
    artifact = copy_of(sentiment, tmp_path / "m")
    with pytest.raises(ArtifactError, match=fault):
        add_golden(artifact, [GoldenText({"text": "fine"}), GoldenText(record)])
    assert load(artifact.path).golden() == []
