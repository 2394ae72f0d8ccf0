"""Logs of programs of others: the line that says what is wrong."""

from __future__ import annotations

import re
from typing import Final

# What such a line has, whoever wrote it; some write nothing else into it.
ERROR: Final = re.compile(r"error|exception|fatal|cannot|failed|timed out", re.IGNORECASE)
# In front of it: a moment, a level, the place in the code.
STAMP: Final = re.compile(r"^(?:\[[^\]]*\]\s*|\S+\.(?:py|cc):\d+:?\s*|(?:ERROR|FATAL|E)\b:?\s+)+")
MAX_CHARACTERS: Final = 300


def last_error(text: str) -> str:
    """The last line of a log that tells of an error, without what stands in front; may be empty."""
    lines = [line.strip() for line in text.splitlines()]
    told = next((line for line in reversed(lines) if ERROR.search(line)), "")
    return STAMP.sub("", told)[:MAX_CHARACTERS]
