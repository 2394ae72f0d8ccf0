"""The interface of a task: what it reads from a record, computes with and returns.

Each task is one module of ``serve.tasks`` with one class; ``registry`` finds it. Does not import
torch or transformers, which only imports and replicas load.

C classes, H hidden, T tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
)

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from serve.agreement import Agreement
from serve.contract import Failure, FailureKind, Part
from serve.settings import Settings

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

    from serve.artifact import Artifact
    from serve.tokenize import TextTokenizer

# The same text in another batch has other padding and another order of sums. With these decimals
# nearly all scores stay identical; with one more, every seventh in bf16 would not.
SCORE_DECIMALS = {"f32": 4, "f16": 3, "bf16": 2}
MAX_TEXTS = 1_000
"""Default number of texts of a record of a task that has a list of them."""
TextLimit = Annotated[int, Field(ge=1, le=10_000)]

Values = tuple[str | tuple[str, ...] | None, ...]
"""Inputs of one record, in the order of the task's ``inputs``; None for an absent optional one."""
Truncation = Literal["longest_first", "only_first", "only_second"]
Outputs = tuple[NDArray[np.float32], ...]


class Input(NamedTuple):
    """An input that a record has for a task.

    Attributes:
        name: Name of the record's field, unless the pipeline names another.
        kind: ``text`` is a string; ``texts`` is a list of strings.
        optional: Whether a record may lack it.
    """

    name: str
    kind: Literal["text", "texts"] = "text"
    optional: bool = False


class Head(Settings):
    """Part of the card that belongs to the task: ``head`` in ``bertstream.json``.

    Attributes:
        labels: Labels of class 0, 1, ...; empty for tasks without labels.
    """

    labels: tuple[str, ...] = ()


class LabelledHead(Head):
    """Head with a label for each class of the model.

    An import refuses a source whose configuration does not number them clearly, unless the user
    gives the labels.
    """

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Self:
        if not self.labels:
            raise ValueError("labels must not be empty")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must differ from each other")
        return self


class Parameters(Settings):
    """Parameters of a task that a pipeline may set; each has a default."""


class Passage(NamedTuple):
    """Text that the model reads at once, with a second text for tasks that compare two."""

    text: str
    pair: str | None = None


class Encoded(NamedTuple):
    """Tokens of a passage, or of one window of it.

    Attributes:
        ids: Token ids, int32, special tokens included; shape (T,), at most the model's limit.
        types: 0 for tokens of the first text, 1 for those of the second, int32; shape (T,). None
            where the model has no token types.
        truncated: Whether the passage had more tokens and was cut.
        encoding: Offsets in characters and more; None unless the task needs ``offsets``.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32] | None = None
    truncated: bool = False
    encoding: Encoding | None = None


class Division(NamedTuple):
    """Handling of passages with more tokens than the model accepts.

    Attributes:
        windows: Whether they are divided into overlapping windows; otherwise they are cut.
        stride: Tokens that two neighbouring windows have in common.
        truncation: Text of a pair that is cut or divided.
        offsets: Whether the encodings are kept, with offsets in characters.
        max_length: Tokens of a window, special tokens included; None for the model's limit.
    """

    windows: bool = False
    stride: int = 0
    truncation: Truncation = "longest_first"
    offsets: bool = False
    max_length: int | None = None


class Window(NamedTuple):
    """Tokens that were computed at once, and the model's finite outputs for them.

    Attributes:
        outputs: One array for each output of the task's module, without padding: (C,), (H,) or
            (T, C).
    """

    encoded: Encoded
    outputs: Outputs


class Computed(NamedTuple):
    """A record's inputs and the windows of each of its passages, in their order."""

    values: Values
    passages: Sequence[Passage]
    windows: Sequence[Sequence[Window]]


class Prediction(NamedTuple):
    """Result for one record.

    Attributes:
        result: JSON in the format of the task's Hugging Face pipeline.
        label: The best label; None for tasks without labels.
        confidence: Score of the best label, answer or text in 0..1; None where scores have no such
            bounds, or there is none.
        parts: Results of the heads of a multi-task model; empty for any other.
    """

    result: bytes
    label: str | None = None
    confidence: float | None = None
    parts: tuple[Part, ...] = ()


class ScoredLabel(TypedDict, closed=True):
    """A label and its score, in the results of several tasks."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Source:
    """An external model that is being imported.

    Attributes:
        directory: Directory of the source.
        network: Directory of the transformers files: the source itself, or one in it.
        model: The transformers model of the task's ``model_class``.
        tokenizer: The transformers tokeniser.
        settings: Fields of the head that the user gave; they replace those of the source.
    """

    directory: Path
    network: Path
    model: Any
    tokenizer: Any
    settings: Mapping[str, Any]


class ImportedHead(NamedTuple):
    """Head of an imported model, and the weights for ``head.safetensors`` by name."""

    head: Head
    weights: Mapping[str, torch.Tensor] = {}


HeadT = TypeVar("HeadT", bound=Head)
ParametersT = TypeVar("ParametersT", bound=Parameters)


class Task(ABC, Generic[HeadT, ParametersT]):
    """What a model does with a record; one object for each loaded model.

    Attributes:
        name: Name of the task, that of the Hugging Face pipeline where there is one.
        inputs: Inputs of a record.
        head_type: Shape of the card's ``head``.
        parameters_type: Shape of a pipeline's ``parameters``.
        model_class: Name of the transformers class that loads a source and its head.
        agreement: Decides whether two results are the same answer.
        result_type: Type of a result; its JSON Schema is published.
        reads_pairs: Whether a passage may have a second text.
        truncation: Text of a passage that is cut when both together are too long.
        needs_offsets: Whether results refer to characters of the text.
        shares_pass: Whether the task reads a text, or a pair, exactly once and uses one output of
            the module, so that a multi-task model may contain it.
        sentence_transformers: Whether a source may be a sentence-transformers directory, whose
            settings then apply.
    """

    name: ClassVar[str]
    inputs: tuple[Input, ...] = (Input("text"),)
    head_type: ClassVar[type[Head]] = Head
    parameters_type: ClassVar[type[Parameters]] = Parameters
    model_class: ClassVar[str]
    agreement: ClassVar[Agreement]
    result_type: ClassVar[Any]
    reads_pairs: ClassVar[bool] = False
    truncation: ClassVar[Truncation] = "longest_first"
    needs_offsets: bool = False
    shares_pass: ClassVar[bool] = False
    sentence_transformers: ClassVar[bool] = False

    def __init__(self, head: HeadT, *, precision: str) -> None:
        """Keep what results depend on.

        Args:
            precision: Precision of the engine; decides how many digits are reported.
        """
        self.head = head
        self.decimals = SCORE_DECIMALS[precision]

    @classmethod
    def open(
        cls,
        artifact: Artifact,
        tokenizer: TextTokenizer,  # noqa: ARG003
        *,
        precision: str,
    ) -> Self:
        """Return the task of a loaded model; tasks that need its files or its tokeniser override.

        Raises:
            ArtifactError: A file of the directory cannot be used. Not retriable.
        """
        head: Any = artifact.card.head
        return cls(head, precision=precision)

    @classmethod
    def check_source(cls, network: Path, settings: Mapping[str, Any]) -> None:
        """Refuse a source whose files contradict each other, before a library reads them.

        Args:
            network: Directory of the transformers files.
            settings: Fields of the head that the user gave.
        Raises:
            ArtifactError: The message names the file. Not retriable.
        """

    def golden_parameters(self) -> dict[str, Any]:
        """Return the parameters with which golden texts are answered.

        They leave nothing out: what a limit leaves out depends on digits that differ between
        precisions.
        """
        return {}

    def check(self, parameters: ParametersT) -> None:
        """Refuse parameters that this model cannot have.

        Raises:
            ValueError: The message names the parameter.
        """

    @classmethod
    @abstractmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Return the head of an external model.

        Raises:
            ArtifactError: The source does not have what the task needs. Not retriable.
        """

    @classmethod
    @abstractmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Load the network of a model directory.

        Returns:
            ``forward(input_ids, attention_mask)``, or with ``token_type_ids`` as third argument
            where the card has ``token_types``, each int64 (B, T). It returns one tensor or a tuple
            of tensors: (B, C), (B, H) or (B, T, C).
        Raises:
            ArtifactError: The weights do not fit the card or the configuration. Not retriable.
        """

    def passages(
        self,
        values: Values,
        parameters: ParametersT,  # noqa: ARG002
    ) -> list[Passage] | Failure:
        """Return the passages of a record, at least one, or why there are none."""
        first, *others = values
        assert isinstance(first, str)
        second = others[0] if others else None
        assert second is None or isinstance(second, str)
        return [Passage(first, second)]

    def division(
        self,
        *,
        windows: bool,
        stride: int,
        parameters: ParametersT,  # noqa: ARG002
    ) -> Division:
        """Return how long passages are handled.

        Args:
            windows: Whether the pipeline wants windows.
            stride: Tokens that two neighbouring windows have in common.
        """
        return Division(windows, stride, self.truncation, offsets=self.needs_offsets)

    @abstractmethod
    def predictions(
        self, computed: Sequence[Computed], parameters: ParametersT
    ) -> list[Prediction | Failure]:
        """Return the result of each record; shape (N,) to (N,)."""


def merged(
    windows: Sequence[Window], how: Literal["mean", "max"] = "mean", output: int = 0
) -> NDArray[np.float32]:
    """Return one array for all windows of a passage, shape (C,) or (H,).

    Args:
        how: ``mean`` weights a window by its tokens.
        output: Number of the module's output.
    """
    if len(windows) == 1:
        return windows[0].outputs[output]
    arrays = np.stack([window.outputs[output] for window in windows])
    if how == "max":
        highest: NDArray[np.float32] = arrays.max(axis=0)
        return highest
    tokens = [len(window.encoded.ids) for window in windows]
    average: NDArray[np.float32] = np.average(arrays, axis=0, weights=tokens).astype(np.float32)
    return average


def too_many(field: str, found: int, limit: int, parameter: str) -> Failure:
    """Return the failure of a record with more elements in a field than a parameter allows."""
    return Failure(
        FailureKind.TOO_MANY,
        f"the field {field!r} has {found:,} elements, but {parameter} allows {limit:,}; send "
        f"fewer, or raise {parameter}",
    )
