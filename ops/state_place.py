"""Where the platform that somebody means keeps its state.

Reads one key of the configuration and nothing else: who types a command waits for it. What is
wrong with the rest of the file is ``config``'s affair.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ops.errors import ConfigError

DEFAULT_FILE = Path("bertstream.yaml")
DEFAULT_STATE_DIR = Path(".bertstream")
KEY = "state_dir"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def state_dir_of(named: Path | None) -> Path:
    """The folder that was named, else that of the configuration here, else the default.

    Raises:
        ConfigError: The configuration does not say it in a way that can be read. Not retriable.
    """
    if named is not None:
        return named
    try:
        text = DEFAULT_FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        return DEFAULT_STATE_DIR
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(str(exc)) from exc
    # Nearly no file says it, and to parse YAML takes longer than all the rest.
    return _told(text) if KEY in text else DEFAULT_STATE_DIR


def _told(text: str) -> Path:
    import yaml

    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise _unreadable(str(exc).splitlines()[0]) from exc
    value = content.get(KEY) if isinstance(content, dict) else None
    if value is None:
        return DEFAULT_STATE_DIR
    if not isinstance(value, str):
        raise _unreadable(f"{KEY} is no path")
    for name in VARIABLE.findall(value):
        if name not in os.environ:
            raise _unreadable(f"the environment variable {name} is not set")
    return Path(VARIABLE.sub(lambda match: os.environ[match[1]], value))


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        f"{DEFAULT_FILE} here does not say where the state lies: {why}; correct it "
        "(`bertstream config check`), or name the folder with --state-dir"
    )
