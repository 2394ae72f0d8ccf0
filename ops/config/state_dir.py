"""Finds the state directory of the platform that a command addresses.

Reads one key of the configuration and nothing else, because the user of a command waits for it.
Mistakes in the rest of the file are reported by ``file``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ops.errors import ConfigError

DEFAULT_FILE = Path("bertstream.yaml")
DEFAULT_STATE_DIR = Path(".bertstream")
SUFFIXES = (".yaml", ".yml")
KEY = "state_dir"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def state_dir_of(named: Path | None) -> Path:
    """Return the folder that was named, else that of the configuration, else the default.

    Args:
        named: A folder, or a configuration file (YAML); None for the file in this directory.
    Raises:
        ConfigError: The key cannot be read from the configuration. Not retriable.
    """
    if named is not None and not named.is_file() and named.suffix not in SUFFIXES:
        return named
    file = named or DEFAULT_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        if named is not None:
            raise ConfigError(f"there is no configuration {file}") from exc
        return DEFAULT_STATE_DIR
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(file, str(exc)) from exc
    # Few files have the key, and parsing YAML takes longer than everything else.
    return _configured(file, text) if KEY in text else DEFAULT_STATE_DIR


def _configured(file: Path, text: str) -> Path:
    import yaml

    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise _unreadable(file, str(exc).splitlines()[0]) from exc
    value = content.get(KEY) if isinstance(content, dict) else None
    if value is None:
        return DEFAULT_STATE_DIR
    if not isinstance(value, str):
        raise _unreadable(file, f"{KEY} is not a path")
    for name in VARIABLE.findall(value):
        if name not in os.environ:
            raise _unreadable(file, f"the environment variable {name} is not set")
    return Path(VARIABLE.sub(lambda match: os.environ[match[1]], value))


def _unreadable(file: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{file} does not name a usable state directory: {why}; correct it "
        "(`bertstream config check`), or name the folder with --state-dir"
    )
