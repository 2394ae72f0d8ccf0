"""Golden texts that a user supplies: read, answered by the model and sealed in its directory.

They are used by ``serve/golden.py`` (the replica's own check) and by the gates and the health of
``ops``.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from serve.artifact import GOLDEN_FILE, MAX_GOLDEN_TEXTS, Artifact, GoldenRecord, load, seal
from serve.contract import Answer
from serve.errors import ArtifactError
from serve.golden import golden_options
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings


class GoldenText(NamedTuple):
    """A record whose answer is sealed with the model.

    Attributes:
        record: Inputs of the task by name, such as ``{"text": "a fine day"}``.
        exact: Whether a later version must give the same answer.
    """

    record: dict[str, Any]
    exact: bool = False


def read_golden_texts(file: Path) -> list[GoldenText]:
    """Read one text, or object with the task's inputs and ``exact``, per line; not blank ones.

    Raises:
        ArtifactError: The file cannot be read, or has no text or more than
            ``MAX_GOLDEN_TEXTS``. Not retriable.
    """
    try:
        with file.open("rb") as lines:
            lines.seek(len(BOM_UTF8) if lines.read(len(BOM_UTF8)) == BOM_UTF8 else 0)
            numbered = ((n, line.strip()) for n, line in enumerate(lines, start=1))
            filled = islice(((n, line) for n, line in numbered if line), MAX_GOLDEN_TEXTS + 1)
            found = [_read(line, place=f"{file}, line {n}") for n, line in filled]
    except OSError as exc:
        raise ArtifactError(f"{file}: cannot be read: {exc.strerror}") from exc
    if not found:
        raise ArtifactError(f"{file}: contains no text; write one per line")
    if len(found) > MAX_GOLDEN_TEXTS:
        raise ArtifactError(
            f"{file}: contains more than {MAX_GOLDEN_TEXTS} texts; keep the most important ones"
        )
    return found


def add_golden(artifact: Artifact, texts: Sequence[GoldenText]) -> Artifact:
    """Answer golden texts with the model in float32 and seal them, before the existing ones.

    Raises:
        ArtifactError: The model has no answer to one of them. Not retriable.
    """
    engine = EngineSettings(kind="torch", precision="f32")
    replica = Replica(ModelSettings(name="golden", path=artifact.path, engine=engine))
    values = [orjson.dumps(text.record) for text in texts]
    outcomes = replica.predict(values, golden_options(artifact.card)).outcomes
    replica.close()
    records = []
    for number, (text, outcome) in enumerate(zip(texts, outcomes, strict=True), start=1):
        if not isinstance(outcome, Answer):
            raise ArtifactError(f"golden text {number} has no answer: {outcome.message}")
        result: Any = orjson.loads(outcome.result)
        records.append(GoldenRecord(record=text.record, result=result, exact=text.exact))
    lines = [orjson.dumps(record.model_dump()) for record in [*records, *artifact.golden()]]
    (artifact.path / GOLDEN_FILE).write_bytes(b"\n".join(lines) + b"\n")
    seal(artifact.path)
    return load(artifact.path)


def _read(line: bytes, *, place: str) -> GoldenText:
    try:
        if not line.startswith(b"{"):
            return GoldenText({"text": line.decode()})
        fields = orjson.loads(line)
    except UnicodeDecodeError as exc:
        raise ArtifactError(f"{place}: is not UTF-8") from exc
    except orjson.JSONDecodeError as exc:
        raise ArtifactError(f"{place}: is not JSON: {exc}") from exc
    exact = fields.pop("exact", False)
    if not isinstance(exact, bool):
        raise ArtifactError(f"{place}: exact is {exact!r}, but must be true or false")
    if not fields:
        raise ArtifactError(f"{place}: has no input such as text; add it")
    return GoldenText(fields, exact)
