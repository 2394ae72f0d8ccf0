"""Labels of an external model: read from its configuration, or given by the user."""

from __future__ import annotations

from pathlib import Path

from serve.artifact import CONFIG_FILE
from serve.checkpoint import read_json
from serve.errors import ArtifactError
from serve.task import Head, Source


def labels_of(source: Source) -> tuple[str, ...]:
    """Return one label per class, in the order of the classes.

    Raises:
        ArtifactError: A label is repeated, or there is not one for each class. Not retriable.
        ValidationError: The user gave something other than a list of texts.
    """
    given = source.settings.get("labels")
    config = source.model.config
    if given is None:
        found = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    else:
        found = Head.model_validate({"labels": given}).labels
    if len(found) != config.num_labels:
        raise ArtifactError(
            f"{len(found)} labels were given, but the model has {config.num_labels} classes; "
            "give one label per class, in the order of the classes"
        )
    repeated = sorted({label for label in found if found.count(label) > 1})
    if repeated:
        raise ArtifactError(
            f"the label {repeated[0]!r} is used for several classes; give distinct labels, one per "
            "class, in the order of the classes"
        )
    return found


def require_numbered(directory: Path) -> None:
    """Refuse a configuration that does not clearly number its labels.

    Raises:
        ArtifactError: The message names the class. Not retriable.
    """
    file = directory / CONFIG_FILE
    config = read_json(file)
    names = config.get("id2label")
    if names is None:
        return
    remedy = "correct the file, or give the labels yourself, in the order of the classes"
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        shown = ", ".join(names) if isinstance(names, dict) else repr(names)
        raise ArtifactError(
            f"{file}: id2label must number the labels 0, 1, ... without gaps, but has {shown}; "
            f"{remedy}"
        )
    numbers = config.get("label2id")
    labels = list(names.values())
    for index, label in names.items():
        if not isinstance(label, str | int | float):
            raise ArtifactError(
                f"{file}: class {index} in id2label is {label!r}, not a text; {remedy}"
            )
        number = numbers.get(str(label), index) if isinstance(numbers, dict) else index
        if str(number) != index and labels.count(label) == 1:
            raise ArtifactError(
                f"{file}: {label!r} is class {index} in id2label but {number} in label2id; {remedy}"
            )
