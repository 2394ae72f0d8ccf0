"""Labelled texts: reading them, and splitting them for training, validation and testing."""

from __future__ import annotations

import codecs
import csv
import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from train.errors import DataError
from train.settings import TextClassificationSettings

JSON_SUFFIXES = (".jsonl", ".ndjson")
# The first that gives the named columns is used. Spreadsheets of many countries write ;.
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
SAMPLED_LINES = 50
# Test texts of a label; with fewer its scores are chance.
TESTED_FROM = 5
# Labels that a message names, at most.
NAMED = 10
# Length of a value in a message.
SHOWN_CHARS = 60
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# First bytes of common table formats that are not text, with their names.
NO_TEXT_FILES = {
    b"PK\x03\x04": "a ZIP archive or a workbook",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet file",
}
LABEL_SEPARATOR = "|"
# A line with which Excel's files may begin.
SEPARATOR_LINE = re.compile("sep=(.)")
SEPARATOR_FIELDS = ["sep=", ""]
# The csv module's own limit of 128 KiB would refuse a long text.
MAX_FIELD_BYTES = 16 * 1024 * 1024

NumberedFields = tuple[int, dict[str, Any]]


class Example(NamedTuple):
    """A text and its labels: exactly one, or any number in a multi-label file."""

    text: str
    labels: tuple[str, ...]


class Prepared(NamedTuple):
    """Contents of a training file, before any model is loaded.

    Attributes:
        labels: The classes, in alphabetical order.
        remarks: Sentences about the texts for the user.
    """

    labels: tuple[str, ...]
    splits: Splits
    remarks: tuple[str, ...]


class Splits(NamedTuple):
    """Examples for training, early stopping and testing; no text is in two of them."""

    train: list[Example]
    val: list[Example]
    test: list[Example]


def prepare(settings: TextClassificationSettings) -> Prepared:
    """Read a training file and split it.

    Raises:
        DataError: The file cannot be used. Not retriable.
    """
    examples = read_examples(settings)
    labels = classes(examples)
    shares = {"val_share": settings.val_share, "test_share": settings.test_share}
    splits = split(examples, **shares, seed=settings.seed)
    return Prepared(labels, splits, (*alike(labels), *scarce(labels, splits)))


def alike(labels: Sequence[str]) -> Iterator[str]:
    """Yield sentences about labels that look the same to a person but are different classes."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[_as_seen(label)].append(label)
    for group in groups.values():
        if len(group) > 1:
            names = " and ".join(ascii(label) for label in group)
            yield (
                f"the labels {names} differ only in Unicode form, case or blanks and are learnt "
                "as different classes; write them the same way if they are one"
            )


def scarce(labels: Sequence[str], splits: Splits) -> Iterator[str]:
    """Yield a sentence about the classes with too few test texts, or none."""
    counts = Counter(label for example in splits.test for label in example.labels)
    few = [f"{label} ({counts[label]})" for label in labels if counts[label] < TESTED_FROM]
    if few:
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        yield (
            f"under {TESTED_FROM} test texts, too few to measure how well a label is recognised: "
            f"{', '.join(few[:NAMED])}{more}; a label without any does not count in macro_f1"
        )


def _as_seen(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def read_examples(settings: TextClassificationSettings) -> list[Example]:
    """Read every labelled text of the training file.

    Returns:
        Examples in the order of the file; shape (N,), N >= 1.
    Raises:
        DataError: The file or a line cannot be used; the line is named. Not retriable.
    """
    path = settings.data
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .jsonl, .csv or .tsv of labelled texts")
    _check_encoding(path)
    examples = [
        Example(_text(row, settings, where), _labels(row, settings, where))
        for number, row in _rows(path, settings)
        if (where := f"{path}, line {number}")
    ]
    if not examples:
        raise DataError(f"{path} has no labelled texts")
    return examples


def classes(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels that occur, in alphabetical order.

    Raises:
        DataError: All texts have the same labels, so that there is nothing to learn. Not
            retriable.
    """
    found = sorted({label for example in examples for label in example.labels})
    distinct = len({frozenset(example.labels) for example in examples})
    if distinct < 2:
        raise DataError(f"every text has the labels {found}; give texts with different labels")
    return tuple(found)


def split(examples: Sequence[Example], *, val_share: float, test_share: float, seed: int) -> Splits:
    """Split examples at random, with the overall mix of labels in every part.

    Equal texts stay together. The part of a text depends only on the seed and the texts of its
    own label, not on the order of the file.

    Args:
        examples: Shape (N,).
        val_share: Fraction of each label's distinct texts for validation, in 0..1.
        test_share: Likewise, for testing.
    Raises:
        DataError: There are so few texts that a part would be empty. Not retriable.
    """
    parts = Splits([], [], [])
    for texts in _strata(examples).values():
        shuffled = sorted(texts, key=lambda text: _draw(text, seed))
        tests = round(test_share * len(texts))
        vals = round(val_share * len(texts))
        for place, text in enumerate(shuffled):
            part = (
                parts.test if place < tests else parts.val if place < tests + vals else parts.train
            )
            part.extend(texts[text])
    if not all(parts):
        raise DataError(
            f"{len(examples)} texts are too few to split with --val-share {val_share} and "
            f"--test-share {test_share}; give at least {math.ceil(1 / min(val_share, test_share))} "
            "distinct texts for each label"
        )
    return parts


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _strata(examples: Iterable[Example]) -> dict[tuple[str, ...], dict[str, list[Example]]]:
    """Group examples by labels, then by text; the first labels of a text decide its group."""
    first: dict[str, tuple[str, ...]] = {}
    strata: dict[tuple[str, ...], dict[str, list[Example]]] = defaultdict(dict)
    for example in examples:
        labels = first.setdefault(example.text, example.labels)
        strata[labels].setdefault(example.text, []).append(example)
    return strata


def _draw(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _check_encoding(path: Path) -> None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                _check_first_line(path, line)
            try:
                line.decode()
            except UnicodeDecodeError as exc:
                what = f"{path}, line {number}: byte 0x{line[exc.start]:02x} is not UTF-8"
                raise DataError(_recoded(what, path, "WINDOWS-1252")) from exc


def _check_first_line(path: Path, line: bytes) -> None:
    for mark, what in NO_TEXT_FILES.items():
        if line.startswith(mark):
            raise DataError(f"{path} is {what}; save it as CSV in UTF-8, or as JSON lines")
    if line.startswith(UTF16_MARKS) or b"\0" in line:
        raise DataError(_recoded(f"{path} is UTF-16, not UTF-8", path, "UTF-16"))


def _recoded(what: str, path: Path, encoding: str) -> str:
    return (
        f"{what}; convert it: iconv -f {encoding} -t UTF-8 {path.name} > "
        f"{path.stem}.utf8{path.suffix} (-f is the present encoding)"
    )


def _rows(path: Path, settings: TextClassificationSettings) -> Iterator[NumberedFields]:
    """Return the line numbers, from 1, and the fields of each line."""
    suffix = path.suffix.lower()
    if suffix in JSON_SUFFIXES:
        return _json_rows(path)
    if suffix in DELIMITERS:
        delimiter = settings.separator or _delimiter(path, settings, DELIMITERS[suffix])
        return _table_rows(path, settings.columns, delimiter)
    known = ", ".join((*JSON_SUFFIXES, *DELIMITERS))
    raise DataError(f"{path}: the file's format is unknown; its name must end in one of {known}")


def _delimiter(path: Path, settings: TextClassificationSettings, usual: str) -> str:
    """Return the delimiter that gives the named columns; else the first.

    Decides by the names in the first line, or in a file without them by the number of fields in
    the first lines.
    """
    csv.field_size_limit(MAX_FIELD_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        head = [*islice(lines, SAMPLED_LINES)]
    if head and (stated := SEPARATOR_LINE.fullmatch(head[0].rstrip("\r\n"))):
        return stated[1]
    for delimiter in usual:
        rows = csv.reader(head, delimiter=delimiter)
        if settings.columns is not None:
            if all(len(row) == len(settings.columns) > 1 for row in rows if row):
                return delimiter
        elif {settings.text_field, settings.label_name} <= set(_header(rows)):
            return delimiter
    return usual[0]


def _json_rows(path: Path) -> Iterator[NumberedFields]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = orjson.loads(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except orjson.JSONDecodeError as exc:
                raise DataError(f"{path}, line {number}: not JSON: {exc}") from exc
            if not isinstance(fields, dict):
                raise DataError(f'{path}, line {number}: not an object like {{"text": ...}}')
            yield number, fields


def _table_rows(
    path: Path, columns: tuple[str, ...] | None, delimiter: str
) -> Iterator[NumberedFields]:
    # Quotes are ordinary characters in TSV: fields cannot contain tabs, so they need no quotes.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(
            lines,
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            strict=True,
        )
        try:
            names = columns or _header(reader)
            for fields in reader:
                if fields and fields != SEPARATOR_FIELDS:
                    yield reader.line_num, _named(fields, names, f"{path}, line {reader.line_num}")
        except (csv.Error, UnicodeDecodeError) as exc:
            raise DataError(f"{path}, after line {reader.line_num}: {exc}") from exc


def _header(reader: Iterator[list[str]]) -> tuple[str, ...]:
    """Return the names of the columns, after blank lines and Excel's line with the separator."""
    for row in reader:
        names = tuple(name.strip() for name in row)
        if any(names) and row != SEPARATOR_FIELDS:
            return names
    return ()


def _named(fields: list[str], names: tuple[str, ...], where: str) -> dict[str, Any]:
    if len(fields) != len(names):
        raise DataError(
            f"{where}: {len(fields)} fields, but there are {len(names)} columns {list(names)}; "
            "quote a field that contains the separator, or set the separator with --separator and "
            "the columns of a file without a header line with --columns"
        )
    return dict(zip(names, fields, strict=True))


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        hint = "choose another with --text-field or --label-field"
        if len(row) == 1:
            hint += ", or set the separator of the columns with --separator"
        raise DataError(f"{where}: no field {name!r}; it has {sorted(row)}; {hint}")
    return row[name]


def _text(row: dict[str, Any], settings: TextClassificationSettings, where: str) -> str:
    text = _field(row, settings.text_field, where)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {settings.text_field!r} must be a text and not empty")
    return text


def _labels(
    row: dict[str, Any], settings: TextClassificationSettings, where: str
) -> tuple[str, ...]:
    name = settings.label_name
    value = _field(row, name, where)
    if not settings.multi_label:
        return (_label(value, name, where),)
    if isinstance(value, str):
        value = [part for part in value.split(LABEL_SEPARATOR) if part.strip()]
    if not isinstance(value, list):
        raise DataError(f"{where}: {name!r} must be a list of labels")
    return tuple(sorted({_label(item, name, where) for item in value}))


def _label(value: Any, name: str, where: str) -> str:
    # A boolean is an int to Python, and True is rarely meant as the label "True".
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        hint = "; --multi-label accepts lists" if isinstance(value, list) else ""
        what = f"must be a string or a whole number, not {_shown(value)}{hint}"
        raise DataError(f"{where}: {name!r} {what}")
    return str(value).strip()


def _shown(value: Any) -> str:
    literal = orjson.dumps(value).decode()
    return literal if len(literal) <= SHOWN_CHARS else f"{literal[: SHOWN_CHARS - 3]}..."
