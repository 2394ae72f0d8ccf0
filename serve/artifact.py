"""The model directory: its contents, and the check that they are what was sealed.

Owns the record shapes of its JSON files and the manifest. Imports neither torch nor
transformers; ``module`` interprets the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import orjson
from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from serve.errors import ArtifactAltered, ArtifactError, ArtifactMissing, TaskMismatch
from serve.registry import task_type
from serve.settings import Settings
from serve.task import Head
from serve.task_names import TaskName

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
HEAD_FILE = "head.safetensors"
CARD_FILE = "bertstream.json"
GOLDEN_FILE = "golden.jsonl"
# Maximum that a new version is asked: each delays its release a little.
MAX_GOLDEN_TEXTS = 200
REFERENCE_FILE = "reference.json"
MANIFEST_FILE = "MANIFEST.json"
REQUIRED_FILES = (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, CARD_FILE)
CACHE_DIR = ".cache"
# Formats that can run code when loaded, and code itself.
REFUSED_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".py"))

FileShape = TypeVar("FileShape", bound=Settings)


class Metric(Settings):
    """One metric of an evaluation, and which direction is better."""

    name: str
    value: float
    direction: Literal["higher", "lower"]


class Tokenizing(Settings):
    """Settings of the tokeniser that ``tokenizer.json`` cannot express.

    Attributes:
        token_types: Whether the model gets 0 for tokens of the first text and 1 for the second.
        truncation_side: Side on which a text with too many tokens is cut.
        split_special_tokens: Whether ``[SEP]`` in a text is five characters, not a token.
    """

    token_types: bool = False
    truncation_side: Literal["left", "right"] = "right"
    split_special_tokens: bool = False


class ModelCard(Settings):
    """``bertstream.json``: what replicas and gates need to know about a model.

    Attributes:
        task: Task that the model was made for.
        head: Part of the card that belongs to the task; see its module in ``serve.tasks``.
        max_length: Limit in tokens, special tokens included; longer texts are cut.
        tokenizer: Settings of the tokeniser, in addition to ``tokenizer.json``.
        metrics: Metrics of the evaluation on held-out data.
        base: Name of the model that it was trained or imported from.
        training_data_sha256: Sha256 of the training file; None where it was not trained here.
        code_version: Version of bertstream at training.
    """

    task: TaskName
    head: SerializeAsAny[Head] = Field(default=Head(), validate_default=True)
    max_length: int = Field(ge=3)
    tokenizer: Tokenizing = Tokenizing()
    metrics: tuple[Metric, ...] = ()
    base: str | None = None
    training_data_sha256: str | None = None
    code_version: str | None = None

    @field_validator("head", mode="wrap")
    @classmethod
    def _has_the_shape_of_the_task(
        cls,
        head: Any,
        default: ValidatorFunctionWrapHandler,  # noqa: ARG003
        info: ValidationInfo,
    ) -> Head:
        task = info.data.get("task")
        if task is None:  # its own error is reported
            return Head()
        fields = head.model_dump() if type(head) is Head else head
        return task_type(task).head_type.model_validate(fields)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of class 0, 1, ...; empty for tasks without labels."""
        return self.head.labels


class GoldenRecord(Settings):
    """One line of ``golden.jsonl``: a record and the model's answer when it was sealed.

    Attributes:
        record: Inputs of the task, such as ``{"text": "a fine day"}``.
        result: Result as in the output record; compared within the tolerance of the precision.
        exact: Whether a later version must give the same answer.
    """

    record: dict[str, Any] = Field(min_length=1)
    result: Any
    exact: bool = False

    @property
    def value(self) -> bytes:
        """Value of the record on an input topic, as JSON."""
        return orjson.dumps(self.record)

    @property
    def text(self) -> str:
        """The record for people: its text, or the JSON of several inputs."""
        text = self.record.get("text")
        if isinstance(text, str) and len(self.record) == 1:
            return text
        return self.value.decode()


class Histogram(Settings):
    """Counts of values between edges.

    Attributes:
        edges: Ascending; shape (N + 1,).
        counts: Values from ``edges[i]`` up to ``edges[i + 1]`` in ``counts[i]``; shape (N,).
    """

    edges: tuple[float, ...] = Field(min_length=2)
    counts: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_more_edge_than_counts(self) -> Self:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError("a histogram must have one more edge than counts")
        return self


class Reference(Settings):
    """``reference.json``: statistics of the held-out data, to detect drift.

    Attributes:
        texts: Number of texts.
        tokens: Tokens per text, special tokens included.
        labels: Number of texts for which each label was the best.
        confidence: Score of the best label; None for tasks without labels.
    """

    texts: int = Field(ge=1)
    tokens: Histogram
    labels: dict[str, int] = Field(default_factory=dict)
    confidence: Histogram | None = None


class ManifestEntry(Settings):
    """One file of the directory."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(Settings):
    """``MANIFEST.json``: every file of the directory but itself, by its relative path."""

    files: dict[str, ManifestEntry]

    def canonical(self) -> bytes:
        """Return the bytes that are hashed; equal contents have equal bytes."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """Return the sha256 that identifies the version's bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model directory whose files have been compared with its manifest.

    Attributes:
        digest: Sha256 that identifies the bytes of the version, 64 hexadecimal digits.
    """

    path: Path
    digest: str
    card: ModelCard

    def golden(self) -> list[GoldenRecord]:
        """Return the texts with their expected answers; empty where the directory has none.

        Raises:
            ArtifactError: A line cannot be read. Not retriable.
        """
        file = self.path / GOLDEN_FILE
        if not file.exists():
            return []
        lines = file.read_bytes().splitlines()
        return [_parsed(GoldenRecord, line, file) for line in lines if line.strip()]

    def reference(self) -> Reference | None:
        """Return the statistics of the held-out data; None where the directory has none.

        Raises:
            ArtifactError: The file cannot be read. Not retriable.
        """
        file = self.path / REFERENCE_FILE
        if not file.exists():
            return None
        return _parsed(Reference, file.read_bytes(), file)


def load(path: Path, *, task: str | None = None) -> Artifact:
    """Compare a model directory with its manifest and read its card.

    Args:
        path: The directory.
        task: Task that it must have been made for; None accepts any.
    Returns:
        The artifact; every byte of its files is what was sealed.
    Raises:
        ArtifactMissing: The directory or one of its files does not exist. Not retriable.
        ArtifactAltered: A file differs from the manifest, or is not in it. Not retriable.
        TaskMismatch: It was made for another task. Not retriable.
        ArtifactError: One of its files cannot be read. Not retriable.
    """
    if not path.is_dir():
        raise ArtifactMissing(f"{path}: no such model directory; train or import a model there")
    manifest_file = path / MANIFEST_FILE
    if not manifest_file.is_file():
        raise ArtifactMissing(f"{manifest_file} is missing: not a sealed model; import it first")
    manifest = _parsed(Manifest, manifest_file.read_bytes(), manifest_file)
    _require_complete(path, frozenset(manifest.files))
    present = frozenset(_files(path))
    _require_safe(path, present)
    for name in sorted(present | manifest.files.keys()):
        _compare(path, name, manifest.files.get(name))
    card = _parsed(ModelCard, (path / CARD_FILE).read_bytes(), path / CARD_FILE)
    if task is not None and card.task != task:
        raise TaskMismatch(f"{path} was made for {card.task}, not for {task}; choose another model")
    return Artifact(path, manifest.digest(), card)


def seal(path: Path) -> str:
    """Write the manifest of a finished model directory.

    Args:
        path: The directory; an existing manifest is replaced.
    Returns:
        The digest that identifies its bytes.
    Raises:
        ArtifactMissing: A required file is missing. Not retriable.
        ArtifactError: A file in it could run code when loaded. Not retriable.
    """
    names = frozenset(_files(path))
    _require_complete(path, names)
    _require_safe(path, names)
    manifest = Manifest(files={name: _entry(path / name) for name in sorted(names)})
    (path / MANIFEST_FILE).write_bytes(
        orjson.dumps(manifest.model_dump(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    )
    return manifest.digest()


def write_card(path: Path, card: ModelCard) -> None:
    """Write ``bertstream.json`` into a model directory that is not sealed yet."""
    document = orjson.dumps(card.model_dump(), option=orjson.OPT_INDENT_2)
    (path / CARD_FILE).write_bytes(document)


def _files(path: Path) -> Iterator[str]:
    for file in path.rglob("*"):
        name = file.relative_to(path)
        if name.parts[0] == CACHE_DIR or name.as_posix() == MANIFEST_FILE:
            continue
        if not file.is_dir() or file.is_symlink():  # symbolic links to directories are not followed
            yield name.as_posix()


def _require_complete(path: Path, names: frozenset[str]) -> None:
    for name in REQUIRED_FILES:
        if name not in names:
            raise ArtifactMissing(f"{path / name} is missing; train or import the model again")


def _require_safe(path: Path, names: frozenset[str]) -> None:
    for name in sorted(names):
        if Path(name).suffix.lower() in REFUSED_SUFFIXES:
            raise ArtifactError(
                f"{path / name}: loading it can run code, and weights must be safetensors; "
                "remove it and seal the directory again"
            )


def _compare(path: Path, name: str, expected: ManifestEntry | None) -> None:
    again = "train or import the model again, or restore the file"
    if expected is None:
        raise ArtifactAltered(f"{path / name} is not in the manifest; remove it, or {again}")
    if not (path / name).is_file():
        raise ArtifactMissing(f"{path / name} is in the manifest but missing; {again}")
    found = _entry(path / name)
    if found != expected:
        raise ArtifactAltered(
            f"{path / name} has sha256 {found.sha256[:12]}..., but the manifest has "
            f"{expected.sha256[:12]}...; {again}"
        )


def _entry(file: Path) -> ManifestEntry:
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return ManifestEntry(sha256=sha256, bytes=file.stat().st_size)


def _parsed(shape: type[FileShape], document: bytes, file: Path) -> FileShape:
    try:
        return shape.model_validate_json(document)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ArtifactError(f"{file}: {place}: {first['msg']}; train or import it again") from exc
