"""A bar for those who wait."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from ops.cli import progress
from ops.cli.progress import LateBar

DEADLINE_S = 20.0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bar_comes_late_and_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=100)
    monkeypatch.setattr(progress, "err", console)
    with LateBar(after_s=0.01) as bar:
        bar.begin("looking")
        deadline = time.monotonic() + DEADLINE_S
        while is_terminal and "looking" not in shown.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        bar.begin("sending", 1000)
        bar.advance(200)
    assert ("sending" in shown.getvalue()) == is_terminal
    assert ("0.2/1.0 kB" in shown.getvalue()) == is_terminal


def test_what_is_quick_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=shown, force_terminal=True))
    with LateBar() as bar:
        bar.begin("sending", 10)
        bar.advance(10)
    assert shown.getvalue() == ""
