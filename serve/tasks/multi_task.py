"""Several tasks on one encoder: one pass of a text, one result for each head."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Self

import orjson
from pydantic import (
    Field,
    JsonValue,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from serve.agreement import Agreement, Embedding, ScoredLabels, Structure, Tolerance
from serve.contract import Failure, Part
from serve.embedding import EmbeddingHead
from serve.errors import ArtifactError
from serve.parameters import checked_parameters
from serve.registry import task_type
from serve.settings import NAME_PATTERN, Settings
from serve.task import (
    Computed,
    Head,
    ImportedHead,
    Input,
    Parameters,
    Passage,
    Prediction,
    Source,
    Task,
    Window,
)
from serve.task_names import TaskName

if TYPE_CHECKING:
    import torch

    from serve.artifact import Artifact
    from serve.tokenize import TextTokenizer

HeadName = Annotated[str, Field(pattern=NAME_PATTERN)]


class SharedHead(Settings):
    """One head of a multi-task model.

    Attributes:
        task: Its task.
        head: What the card of a model of that task alone has.
    """

    task: TaskName
    head: SerializeAsAny[Head]

    @field_validator("task")
    @classmethod
    def _can_share(cls, task: str) -> str:
        if not task_type(task).shares_pass:
            raise ValueError(f"{task} does not read a text once, so it cannot share an encoder")
        return task

    @field_validator("head", mode="wrap")
    @classmethod
    def _has_the_shape_of_the_task(cls, head: Any, _: Any, info: ValidationInfo) -> Head:
        task = info.data.get("task")
        return Head() if task is None else task_type(task).head_type.model_validate(head)


class MultiTaskHead(Head):
    """Heads of a multi-task model.

    Attributes:
        heads: By name; their order is that of the module's outputs and of the results.
    """

    heads: Mapping[str, SharedHead] = Field(min_length=2)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for name, member in self.heads.items():
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(f"the name {name!r} must have only lower case, digits and hyphens")
            if isinstance(member.head, EmbeddingHead) and member.head.pooling.mode == "last-k":
                raise ValueError(f"the head {name!r} pools several layers, but gets only the last")
            task = task_type(member.task)(member.head, precision="f32")
            _require_plain(name, task, task.parameters_type())
        return self


class MultiTaskParameters(Parameters):
    """Parameters of a multi-task model.

    Attributes:
        only: Heads whose results are returned; null for all.
        heads: Parameters of single heads, by the head's name.
    """

    only: tuple[str, ...] | None = Field(default=None, min_length=1)
    heads: Mapping[str, Mapping[str, Any]] = {}


class ByHead(Agreement):
    """Results such as ``{"topic": [...], "names": [...]}``; heads are compared one by one."""

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare the heads; see ``Agreement``."""
        for name, wanted in expected.items():
            if name not in found:
                return f"the head {name!r} is missing"
            fault = _of_shape(wanted).difference(found[name], wanted, tolerance)
            if fault is not None:
                return f"head {name!r}: {fault}"
        return None

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the heads; see ``Agreement``."""
        return all(
            name in found and _of_shape(wanted).same_best(found[name], wanted, tolerance)
            for name, wanted in expected.items()
        )

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the heads; see ``Agreement``."""
        return before.keys() == after.keys() and all(
            _of_shape(result).same_for_people(result, after[name])
            for name, result in before.items()
        )

    def answer(self, result: Any) -> str:
        """Return the answer of each head; see ``Agreement``."""
        return ", ".join(f"{name}: {_of_shape(one).answer(one)}" for name, one in result.items())


class MultiTask(Task[MultiTaskHead, MultiTaskParameters]):
    """Results of all heads by name: ``{"topic": [{"label", "score"}, ...], "names": [...]}``.

    Only a model whose heads all read pairs has the input ``text_pair``.
    """

    name = "multi-task"
    inputs: tuple[Input, ...] = (Input("text"), Input("text_pair", optional=True))
    head_type = MultiTaskHead
    parameters_type = MultiTaskParameters
    model_class = "AutoModel"
    agreement = ByHead()
    # Each has the shape of its head's task.
    result_type = dict[HeadName, JsonValue]
    reads_pairs = True

    def __init__(self, head: MultiTaskHead, *, precision: str) -> None:
        """Create the tasks of the heads; see ``Task``."""
        super().__init__(head, precision=precision)
        self._tasks: dict[str, Task[Any, Any]] = {
            name: task_type(member.task)(member.head, precision=precision)
            for name, member in head.heads.items()
        }
        self.needs_offsets = any(task.needs_offsets for task in self._tasks.values())
        if not all(task.reads_pairs for task in self._tasks.values()):
            # All heads read the same tokens, and to some a second text would belong to the first.
            self.inputs = (Input("text"),)

    @classmethod
    def open(cls, artifact: Artifact, tokenizer: TextTokenizer, *, precision: str) -> Self:
        """Open the tasks of the heads, too; see ``Task``."""
        opened = super().open(artifact, tokenizer, precision=precision)
        for name, member in opened.head.heads.items():
            card = artifact.card.model_copy(update={"task": member.task, "head": member.head})
            part = replace(artifact, card=card)
            opened._tasks[name] = task_type(member.task).open(part, tokenizer, precision=precision)
        return opened

    @classmethod
    def import_head(cls, source: Source) -> ImportedHead:
        """Refuse: its heads come from model directories; see ``Task``."""
        raise ArtifactError(
            f"{source.directory}: a multi-task model is made from model directories that have the "
            "same encoder: use `bertstream combine`"
        )

    @classmethod
    def build_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return one output for each head; see ``Task``."""
        from serve.multi_head import load_heads

        head = artifact.card.head
        assert isinstance(head, MultiTaskHead)
        return load_heads(artifact, head.heads)

    def golden_parameters(self) -> dict[str, Any]:
        """Return those of the heads; see ``Task``."""
        return {"heads": {name: task.golden_parameters() for name, task in self._tasks.items()}}

    def check(self, parameters: MultiTaskParameters) -> None:
        """Refuse heads that the model does not have, and prompts; see ``Task``."""
        for name in (*(parameters.only or ()), *parameters.heads):
            if name not in self._tasks:
                known = ", ".join(self._tasks)
                raise ValueError(f"there is no head {name!r}; the model has {known}")
        for name, own in self._checked(parameters).items():
            _require_plain(name, self._tasks[name], own)

    def predictions(
        self, computed: Sequence[Computed], parameters: MultiTaskParameters
    ) -> list[Prediction | Failure]:
        """Return the results of the heads by name; see ``Task``."""
        checked = self._checked(parameters)
        found: list[list[Prediction | Failure]] = []
        heads: dict[str, str] = {}
        for place, (name, task) in enumerate(self._tasks.items()):
            if parameters.only is None or name in parameters.only:
                heads[name] = task.name
                part = [_part(record, place) for record in computed]
                found.append(task.predictions(part, checked[name]))
        return [_joined(heads, made) for made in zip(*found, strict=True)]

    def _checked(self, parameters: MultiTaskParameters) -> dict[str, Any]:
        return {
            name: checked_parameters(task, parameters.heads.get(name, {}))
            for name, task in self._tasks.items()
        }


def _require_plain(name: str, task: Task[Any, Any], parameters: Any) -> None:
    """Refuse a head that reads anything but the text, as all heads read the same tokens."""
    others = (None,) * (len(task.inputs) - 1)
    if task.passages(("a", *others), parameters) != [Passage("a")]:
        raise ValueError(
            f"the head {name!r} has a prompt before the text, but all heads read the same tokens; "
            "leave it out"
        )


def _part(record: Computed, place: int) -> Computed:
    """Return a record with the outputs of one head."""
    windows = [
        [Window(window.encoded, (window.outputs[place],)) for window in of_passage]
        for of_passage in record.windows
    ]
    return record._replace(windows=windows)


def _joined(heads: Mapping[str, str], made: Sequence[Prediction | Failure]) -> Prediction | Failure:
    """Return the results of one record by head; ``heads`` has the task of each."""
    parts: list[Part] = []
    for (name, task), part in zip(heads.items(), made, strict=True):
        if isinstance(part, Failure):
            return part._replace(message=f"head {name!r}: {part.message}")
        parts.append(Part(name, task, part.result))
    document = {part.head: orjson.Fragment(part.result) for part in parts}
    return Prediction(orjson.dumps(document), parts=tuple(parts))


def _of_shape(result: Any) -> Agreement:
    """Return how results of a shape are compared: labels, an embedding, or anything else."""
    if isinstance(result, list) and result:
        if all(isinstance(item, int | float) for item in result):
            return Embedding()
        if isinstance(result[0], dict) and result[0].keys() == {"label", "score"}:
            return ScoredLabels()
    return Structure()
