"""Checks of an external model's files, and library errors about them as one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from serve.artifact import CONFIG_FILE, WEIGHTS_FILE
from serve.errors import ArtifactError, ArtifactMissing, ServeError

ADAPTER_FILE = "adapter_config.json"
INDEX_FILE = "model.safetensors.index.json"
READ_SUFFIXES = (".json", ".txt", ".model", ".safetensors")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Weights in other formats, by the suffixes of their names.
OTHER_WEIGHTS = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
    ".safetensors",
)


def require_checkpoint(directory: Path) -> None:
    """Refuse an incomplete or unsupported Hugging Face model, before a library fails on it.

    Raises:
        ArtifactMissing: A file is missing. Not retriable.
        ArtifactError: A file is a placeholder or truncated; the weights are an adapter, quantised
            or not safetensors; the architecture is not named. Not retriable.
    """
    require_downloaded(directory)
    if (directory / ADAPTER_FILE).exists():
        base = read_json(directory / ADAPTER_FILE).get("base_model_name_or_path")
        raise ArtifactError(
            f"{directory / ADAPTER_FILE}: an adapter for {base or 'another model'}, not a "
            "model; merge the two with merge_and_unload of the peft library, and save the result"
        )
    if (directory / CONFIG_FILE).is_file():
        _require_architecture(directory / CONFIG_FILE)
    _require_weights(directory)
    if not (directory / CONFIG_FILE).is_file():
        raise ArtifactMissing(f"{directory / CONFIG_FILE} is missing; download the model again")


def require_downloaded(directory: Path) -> None:
    """Refuse files that are still git-lfs pointers.

    Raises:
        ArtifactError: There is one; the message names the first. Not retriable.
    """
    for file in sorted(directory.iterdir()):
        if file.suffix in READ_SUFFIXES and file.is_file() and _starts_with(file, LFS_POINTER):
            raise ArtifactError(
                f"{file}: is a git-lfs pointer, not the file itself; run `git lfs pull` there, "
                "or download the model again"
            )


def _starts_with(file: Path, beginning: bytes) -> bool:
    with library(file, "cannot be read"), file.open("rb") as stream:
        return stream.read(len(beginning)) == beginning


def _require_architecture(file: Path) -> None:
    config = read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise ArtifactError(
            f"{file}: has no model_type, so the architecture is unknown; add it, for example "
            '"model_type": "bert"'
        )
    if config.get("quantization_config"):
        raise ArtifactError(
            f"{file}: has a quantization_config, but quantised weights are not served; import the "
            "model in its original precision"
        )


def _require_weights(directory: Path) -> None:
    index = directory / INDEX_FILE
    if (directory / WEIGHTS_FILE).is_file():
        files = {directory / WEIGHTS_FILE}
    elif index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ArtifactError(f"{index}: has no weight_map; download the model again")
        files = {directory / str(shard) for shard in shards.values()}
    else:
        raise ArtifactMissing(_without_weights(directory))
    for file in sorted(files):
        if not file.is_file():
            raise ArtifactMissing(f"{file} is missing; download the model again")
        again = "is truncated or not a safetensors file; download it again"
        with library(file, again), safe_open(file, framework="pt"):
            pass


def _without_weights(directory: Path) -> str:
    others = sorted(file.name for file in directory.iterdir() if file.suffix in OTHER_WEIGHTS)
    has = f"only {', '.join(others[:3])}" if others else "no weights at all"
    return (
        f"{directory}: has no {WEIGHTS_FILE}, {has}, and weights are read only from safetensors; "
        "download the whole model, or save it with save_pretrained of transformers"
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one where there is no such file.

    Raises:
        ArtifactError: The file cannot be read, or is not a JSON object. Not retriable.
    """
    if not file.is_file():
        return {}
    document = parse_json(file)
    if not isinstance(document, dict):
        raise ArtifactError(f"{file}: must be a JSON object; download it again or correct it")
    return document


def parse_json(file: Path) -> Any:
    """Read a JSON file, as leniently as the libraries that also read it.

    Raises:
        ArtifactError: The file cannot be read, or is not JSON. Not retriable.
    """
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as exc:
        raise ArtifactError(f"{file}: cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"{file}: is not JSON: {exc}; download it again or correct it") from exc


@contextmanager
def library(place: Path, fault: str) -> Iterator[None]:
    """Turn any error of a library about a model's files into one sentence.

    tokenizers raises bare ``Exception``, transformers many types, so every exception is caught
    here and raised again as an ArtifactError.

    Args:
        fault: The problem to report, for example ``transformers cannot load it``.
    Raises:
        ArtifactError: A call within raised an error. Not retriable.
    """
    try:
        yield
    except ServeError:
        raise
    except Exception as exc:
        raise ArtifactError(f"{place}: {fault}: {_cause(exc)}") from exc


def _cause(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    cause = lines[0] if lines else type(exc).__name__
    if cause.endswith(":"):  # a heading
        cause = " ".join(lines[:2])
    if isinstance(exc, KeyError):
        return f"{cause} is unknown or missing"
    if isinstance(exc, ImportError):
        return f"{cause.rstrip('.')}; it is not part of bertstream, so choose another model"
    if isinstance(exc, AttributeError | TypeError | IndexError):
        return f"a value in the files has an unexpected type ({cause})"
    return cause
