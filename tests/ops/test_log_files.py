"""The line of a log that says what is wrong."""

from __future__ import annotations

import pytest

from ops.log_files import MAX_CHARACTERS, last_error


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        ("", ""),
        ("started\nrunning\n", ""),
        ("[main] ERROR Exiting Kafka.\nbye\n", "Exiting Kafka."),
        ("[2026-01-01 10:00:00,1 E 1 2] gcs.cc:7: Failed to bind\n", "Failed to bind"),
        ("Exception: first\nException: second\n", "Exception: second"),
        ("error " + "x" * 1000, ("error " + "x" * 1000)[:MAX_CHARACTERS]),
    ],
)
def test_the_last_line_that_tells_of_an_error(log: str, wanted: str) -> None:
    assert last_error(log) == wanted
