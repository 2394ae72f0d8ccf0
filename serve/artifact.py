"""The model directory: what is in it, and whether it is still what was sealed.

Owns the record shapes of its JSON files and the manifest. Loads neither torch nor
transformers; what the weights mean is ``module``'s affair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import orjson
from pydantic import Field, ValidationError, model_validator

from serve.errors import ArtifactAltered, ArtifactError, ArtifactMissing, TaskMismatch
from serve.settings import Settings, Task

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
HEAD_FILE = "head.safetensors"
CARD_FILE = "bertstream.json"
GOLDEN_FILE = "golden.jsonl"
# So many of them, at most, are asked of a new version: each costs its release a moment.
MAX_GOLDEN_TEXTS = 200
REFERENCE_FILE = "reference.json"
MANIFEST_FILE = "MANIFEST.json"
REQUIRED_FILES = (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, CARD_FILE)
CACHE_DIR = ".cache"
# Formats whose loading can run code, and code itself.
REFUSED_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".py"))

TokenPooling = Literal["mean", "cls", "max", "mean-sqrt-len", "weighted-mean", "last-token"]
PoolingMode = Literal[TokenPooling, "mean-max", "last-k"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]
ProblemType = Literal["single_label", "multi_label"]
FileShape = TypeVar("FileShape", bound=Settings)


class Metric(Settings):
    """One figure of an evaluation and which way is better."""

    name: str
    value: float
    direction: Literal["higher", "lower"]


class Layer(Settings):
    """A layer behind the pooling; its weights are in ``head.safetensors``, by its place.

    Attributes:
        kind: ``normalize`` has no weights and scales to length 1.
        activation: Of ``dense``.
    """

    kind: Literal["dense", "layer-norm", "normalize"]
    activation: Activation = "identity"


class Pooling(Settings):
    """How the encoder's token vectors become one vector; for feature extraction only.

    Attributes:
        mode: ``mean-max`` puts both behind each other (2 H numbers); ``last-k`` averages the
            last layers, then the tokens; all others take the last layer. ``mean-sqrt-len``
            divides the sum by the root of the number of tokens, ``weighted-mean`` weights a
            token by its place.
        also: Poolings whose vectors are put behind that of ``mode``, in this order.
        skip: Tokens at the start that are not pooled; those of a prompt.
        last_k: Layers of ``last-k``; unused otherwise.
        layers: What the vector goes through next.
        normalize: Scale to length 1, so that a dot product is the cosine.
        dimensions: Numbers that are kept at the end; None keeps all.
    """

    mode: PoolingMode = "mean"
    also: tuple[TokenPooling, ...] = ()
    skip: int = Field(default=0, ge=0)
    last_k: int = Field(default=4, ge=1)
    layers: tuple[Layer, ...] = ()
    normalize: bool = True
    dimensions: int | None = Field(default=None, ge=1)


class Tokenizing(Settings):
    """What ``tokenizer.json`` cannot say of how texts become tokens.

    Attributes:
        prompt: Put before every text.
        truncation_side: Where a text with too many tokens loses them.
        split_special_tokens: ``[SEP]`` in a text is five characters, not a token.
    """

    prompt: str = ""
    truncation_side: Literal["left", "right"] = "right"
    split_special_tokens: bool = False


class ModelCard(Settings):
    """``bertstream.json``: what a replica and a gate need to know of a model.

    Attributes:
        task: What the model was made for.
        labels: Of class 0, 1, ...; empty for tasks without.
        problem_type: ``single_label``: the scores add up to 1; ``multi_label``: each its own.
        max_length: Tokens that the model takes, special tokens included; longer texts are cut.
        pooling: None for tasks without.
        tokenizer: How texts become tokens, beside ``tokenizer.json``.
        metrics: Of the evaluation on held-out data.
        base: What it was trained from or imported from, by name.
        training_data_sha256: Of the training file's bytes; None where it was not trained here.
        code_version: Of bertstream, at training.
    """

    task: Task
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    max_length: int = Field(ge=3)
    pooling: Pooling | None = None
    tokenizer: Tokenizing = Tokenizing()
    metrics: tuple[Metric, ...] = ()
    base: str | None = None
    training_data_sha256: str | None = None
    code_version: str | None = None

    @model_validator(mode="after")
    def _parts_fit_the_task(self) -> Self:
        if self.task == "text-classification":
            if not self.labels or self.problem_type is None:
                raise ValueError("text-classification needs labels and problem_type")
            if len(set(self.labels)) < len(self.labels):
                raise ValueError("labels must differ from each other")
        elif self.pooling is None:
            raise ValueError(f"{self.task} needs pooling")
        return self


class GoldenRecord(Settings):
    """One line of ``golden.jsonl``: a text and what the model answered when it was sealed.

    Attributes:
        result: As in the output record; compared within the tolerance of the precision.
        exact: A later version must answer it the same, too.
    """

    text: str
    result: list[dict[str, Any]] | list[float] = Field(min_length=1)
    exact: bool = False


class Histogram(Settings):
    """Counts between edges.

    Attributes:
        edges: Ascending; shape (N + 1,).
        counts: ``counts[i]`` values lie from ``edges[i]`` up to ``edges[i + 1]``; shape (N,).
    """

    edges: tuple[float, ...] = Field(min_length=2)
    counts: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_more_edge_than_counts(self) -> Self:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError("a histogram has one edge more than counts")
        return self


class Reference(Settings):
    """``reference.json``: what the held-out data looked like, to see drift against.

    Attributes:
        texts: How many.
        tokens: Tokens per text, special tokens included.
        labels: How often each label was the best.
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
    """``MANIFEST.json``: every file of the directory but itself, by its path from there."""

    files: dict[str, ManifestEntry]

    def canonical(self) -> bytes:
        """The bytes that the digest is taken of: one for one content."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """Sha256 that names the version's bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model directory whose files have been compared with its manifest.

    Attributes:
        digest: Names the bytes of the version, 64 hexadecimal digits.
    """

    path: Path
    digest: str
    card: ModelCard

    def golden(self) -> list[GoldenRecord]:
        """Texts with their expected answers; empty where the directory has none.

        Raises:
            ArtifactError: A line cannot be read. Not retriable.
        """
        file = self.path / GOLDEN_FILE
        if not file.exists():
            return []
        lines = file.read_bytes().splitlines()
        return [_parsed(GoldenRecord, line, file) for line in lines if line.strip()]

    def reference(self) -> Reference | None:
        """What the held-out data looked like; None where the directory has none.

        Raises:
            ArtifactError: The file cannot be read. Not retriable.
        """
        file = self.path / REFERENCE_FILE
        if not file.exists():
            return None
        return _parsed(Reference, file.read_bytes(), file)


def load(path: Path, *, task: Task | None = None) -> Artifact:
    """Compare a model directory with its manifest and read its card.

    Args:
        path: The directory.
        task: What it must have been made for; None takes any.
    Returns:
        The artifact; every byte of it is what was sealed.
    Raises:
        ArtifactMissing: No such directory, or a file of it is not there. Not retriable.
        ArtifactAltered: A file differs from the manifest, or is not in it. Not retriable.
        TaskMismatch: It was made for another task. Not retriable.
        ArtifactError: A file of it cannot be read. Not retriable.
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
        raise TaskMismatch(f"{path} was made for {card.task}, not for {task}; name another model")
    return Artifact(path, manifest.digest(), card)


def seal(path: Path) -> str:
    """Write the manifest of a finished model directory.

    Args:
        path: The directory; a manifest that is there is replaced.
    Returns:
        The digest that names its bytes.
    Raises:
        ArtifactMissing: A required file is not there. Not retriable.
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
        if not file.is_dir() or file.is_symlink():  # a linked directory is not looked into
            yield name.as_posix()


def _require_complete(path: Path, names: frozenset[str]) -> None:
    for name in REQUIRED_FILES:
        if name not in names:
            raise ArtifactMissing(f"{path / name} is missing; train or import the model again")


def _require_safe(path: Path, names: frozenset[str]) -> None:
    for name in sorted(names):
        if Path(name).suffix.lower() in REFUSED_SUFFIXES:
            raise ArtifactError(
                f"{path / name}: loading such a file can run code; weights must be safetensors, "
                "remove it and seal the directory again"
            )


def _compare(path: Path, name: str, expected: ManifestEntry | None) -> None:
    again = "train or import the model again, or restore the file"
    if expected is None:
        raise ArtifactAltered(f"{path / name} is not in the manifest; remove it, or {again}")
    if not (path / name).is_file():
        raise ArtifactMissing(f"{path / name} is in the manifest and not there; {again}")
    found = _entry(path / name)
    if found != expected:
        raise ArtifactAltered(
            f"{path / name} has sha256 {found.sha256[:12]}... and the manifest says "
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
