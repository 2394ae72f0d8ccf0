"""Training files: what is read, what is refused with its line, how it is divided."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.data import TESTED_FROM, Example, Splits, alike, classes, read_examples, scarce, split
from train.errors import DataError
from train.settings import TextClassificationSettings


def examples_of(folder: Path, name: str, text: str, **options: object) -> list[Example]:
    (folder / name).write_text(text)
    settings = {"data": folder / name, "out": folder / "out"} | options
    return read_examples(TextClassificationSettings.model_validate(settings))


def test_json_lines_and_tables_say_the_same(tmp_path: Path) -> None:
    wanted = [Example("good", ("pos",)), Example("bad, really", ("neg",))]
    lines = '{"text": "good", "label": "pos"}\n{"text": "bad, really", "label": "neg"}\n'
    assert examples_of(tmp_path, "a.jsonl", lines) == wanted
    assert examples_of(tmp_path, "a.csv", 'text,label\ngood,pos\n"bad, really",neg\n') == wanted
    headless = "good\tpos\nbad, really\tneg\n"
    assert examples_of(tmp_path, "a.tsv", headless, columns=("text", "label")) == wanted


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_separates_the_columns_is_found(tmp_path: Path, delimiter: str) -> None:
    others = "a;b" if delimiter != ";" else "a,b"
    text = delimiter.join(("label", "text")) + "\n" + delimiter.join(("pos", others)) + "\n"
    wanted = [Example(others, ("pos",))]
    assert examples_of(tmp_path, "a.csv", "\ufeff" + text) == wanted
    headless = text.split("\n", 1)[1] + delimiter.join(("neg", "c")) + "\n"
    found = examples_of(tmp_path, "h.csv", headless, columns=("label", "text"))
    assert found == [*wanted, Example("c", ("neg",))]


def test_a_mark_of_utf8_is_passed_over(tmp_path: Path) -> None:
    lines = '\ufeff{"text": "x", "label": "a"}\n'
    assert examples_of(tmp_path, "a.jsonl", lines) == [Example("x", ("a",))]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1252", r"line 3: byte 0xfc is not UTF-8; .*iconv -f WINDOWS-1252 -t UTF-8 a\."),
        ("utf-16", r"is UTF-16, not UTF-8; .*iconv -f UTF-16"),
        ("utf-16-le", r"is UTF-16, not UTF-8; .*iconv -f UTF-16"),
    ],
)
def test_another_encoding_is_named_with_the_remedy(
    tmp_path: Path, name: str, encoding: str, said: str
) -> None:
    (tmp_path / name).write_bytes("text,label\nx,a\nfür,b\n".encode(encoding))
    settings = TextClassificationSettings(data=tmp_path / name, out=tmp_path / "out")
    with pytest.raises(DataError, match=said):
        read_examples(settings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\x00", "a ZIP archive or a workbook"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PAR1\x15\x04\x15", "a Parquet file"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    settings = TextClassificationSettings(data=tmp_path / "a.csv", out=tmp_path / "out")
    with pytest.raises(DataError, match=f"a.csv is {said}; save it as CSV in UTF-8"):
        read_examples(settings)


def test_what_spreadsheets_put_in_front_is_passed_over(tmp_path: Path) -> None:
    wanted = [Example("a, b", ("pos",))]
    assert examples_of(tmp_path, "e.csv", "\ufeffsep=;\r\ntext;label\r\na, b;pos\r\n") == wanted
    assert examples_of(tmp_path, "b.csv", "\n;\n text ; label \na, b;pos\n") == wanted
    headless = examples_of(tmp_path, "h.csv", "sep=^\na, b^pos\n", columns=("text", "label"))
    assert headless == wanted


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("null", "not null$"),
        ("false", "not false$"),
        ('["a"]', r'not \["a"\]; --multi-label accepts lists$'),
        (f'["{"x" * 99}"]', r"not .{57}\.\.\.; "),
    ],
)
def test_a_label_that_is_none_is_shown_as_it_stands(tmp_path: Path, label: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        examples_of(tmp_path, "a.jsonl", f'{{"text": "x", "label": {label}}}\n')


def test_several_labels(tmp_path: Path) -> None:
    lines = '{"text": "x", "labels": ["a", "b"]}\n{"text": "y", "labels": []}\n'
    found = examples_of(tmp_path, "m.jsonl", lines, multi_label=True)
    assert found == [Example("x", ("a", "b")), Example("y", ())]


@pytest.mark.parametrize(
    "second", ["no json", '{"label": "a"}', '{"text": "x"}', '{"text": 5, "label": "a"}']
)
def test_line_that_cannot_be_used_is_named(tmp_path: Path, second: str) -> None:
    with pytest.raises(DataError, match="line 2"):
        examples_of(tmp_path, "bad.jsonl", '{"text": "x", "label": "a"}\n' + second + "\n")


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_examples(TextClassificationSettings(data=tmp_path / "no.jsonl", out=tmp_path / "o"))
    with pytest.raises(DataError, match="no labelled texts"):
        examples_of(tmp_path, "empty.jsonl", "")


def test_one_class_is_nothing_to_tell_apart() -> None:
    with pytest.raises(DataError, match="give texts with different labels"):
        classes([Example("a", ("x",)), Example("b", ("x",))])


def test_split_keeps_equal_texts_together_and_the_mix_of_labels() -> None:
    examples = [Example(f"text {n % 60}", ("a" if n % 60 < 20 else "b",)) for n in range(120)]
    parts = split(examples, val_share=0.1, test_share=0.2, seed=3)
    texts = [{example.text for example in part} for part in parts]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert sum(map(len, parts)) == 120
    for part in parts:
        share = sum(example.labels == ("a",) for example in part) / len(part)
        assert share == pytest.approx(1 / 3, abs=0.05)
    assert (
        split(examples[::-1], val_share=0.1, test_share=0.2, seed=3).test
        == [example for text in parts.test for example in [text]]
        or {e.text for e in split(examples[::-1], val_share=0.1, test_share=0.2, seed=3).test}
        == (texts[2])
    )


def test_a_separator_that_is_not_found_can_be_named(tmp_path: Path) -> None:
    rows = "text^label\nfine, or not^good\n"
    with pytest.raises(DataError, match=r"no field 'text'.*--separator"):
        examples_of(tmp_path, "odd.csv", rows.replace(",", ""))
    with pytest.raises(DataError, match=r"line 2: 2 fields.*--separator"):
        examples_of(tmp_path, "odd.csv", rows)
    assert examples_of(tmp_path, "odd.csv", rows, separator="^") == [
        Example("fine, or not", ("good",))
    ]


def test_a_file_without_a_header_line_has_its_columns_named(tmp_path: Path) -> None:
    found = examples_of(tmp_path, "bare.csv", "a;x\nb;y\n", columns=("text", "label"))
    assert found == [Example("a", ("x",)), Example("b", ("y",))]


def test_labels_that_look_alike_are_told() -> None:
    labels = ("caf\u00e9", "cafe\u0301", "tea", "Tea", "water")
    told = list(alike(labels))
    assert len(told) == 2
    assert "'caf\\xe9' and 'cafe\\u0301'" in told[0]
    assert "'tea' and 'Tea'" in told[1]


def test_classes_that_are_not_measured_are_told() -> None:
    many = [Example(str(n), ("many",)) for n in range(TESTED_FROM)]
    few = [Example("x", ("few",))]
    splits = Splits(many, many, many + few)
    assert list(scarce(("many",), splits)) == []
    (told,) = scarce(("many", "few", "none"), splits)
    assert "few (1), none (0); a label without any does not count in macro_f1" in told
    (told,) = scarce([f"l{n}" for n in range(14)], splits)
    assert "and 4 more" in told
