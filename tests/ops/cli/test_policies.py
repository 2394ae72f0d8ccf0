"""``bertstream policy``: with and without a platform."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.main import app
from tests.ops.cli.command import Bertstream, as_json
from tests.ops.directories import make_directory
from tests.ops.installation import Installation

WRONG = "model: sentiment\nwindow: []\nlabels: other\n"


def test_check_needs_no_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("model: sentiment\n")
    result = CliRunner().invoke(app, ["policy", "check", "p.yaml"])
    fine, finds = result.stdout.splitlines()
    assert (result.exit_code, fine) == (0, "p.yaml: valid")
    assert finds.endswith("a version that fails twice as often is found in 99 of 100 releases.")
    result = CliRunner().invoke(app, ["policy", "check", "p.yaml", "--json"])
    assert as_json(result) == {"problems": [], "finds": finds, "windows": []}


def test_check_says_of_a_window_that_it_never_opens(bertstream: Bertstream) -> None:
    window = '{cron: "0 9 31 2 *", duration: 2h}'
    Path("p.yaml").write_text(f"model: m\nwindows: {{deny: [{window}]}}\n")
    told = bertstream("policy", "check", "p.yaml").stdout
    assert 'deny "0 9 31 2 *" for 2h in UTC never opens\n' in told


def test_check_says_when_each_window_opens(bertstream: Bertstream) -> None:
    window = '{cron: "0 9 13 * 5", duration: 2h, time_zone: Europe/Berlin}'
    Path("p.yaml").write_text(f"model: m\nwindows: {{allow: [{window}]}}\n")
    (told,) = as_json(bertstream("policy", "check", "p.yaml", "--json"))["windows"]
    moments = [datetime.fromisoformat(moment) for moment in told["next"]]
    assert len(moments) == 5
    assert all((m.day == 13 or m.weekday() == 4) and m.hour == 9 for m in moments)
    lines = bertstream("policy", "check", "p.yaml").stdout.splitlines()
    assert lines[-6] == 'allow "0 9 13 * 5" for 2h in Europe/Berlin opens next:'
    assert lines[-5] == f"  {moments[0]:%a %Y-%m-%d %H:%M}"


def test_check_names_every_mistake_with_its_place(bertstream: Bertstream) -> None:
    Path("p.yaml").write_text(WRONG)
    lines = bertstream("policy", "check", "p.yaml", code=2).stderr.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["p.yaml", "2:1", "window"],
        ["p.yaml", "3:1", "labels"],
    ]
    told = as_json(bertstream("policy", "check", "p.yaml", "--json", code=2))
    assert [problem["line"] for problem in told["problems"]] == [2, 3]
    assert told["finds"] is None
    assert "cannot be read" in bertstream("policy", "check", "nowhere", code=2).stderr


def test_check_of_what_is_usable_with_a_warning(bertstream: Bertstream) -> None:
    Path("p.yaml").write_text("model: m\nrollout: {canary: [{weight: 0.1, records: 0}]}\n")
    result = bertstream("policy", "check", "p.yaml")
    assert "warning" in result.stderr
    assert result.stdout.startswith("p.yaml: usable\n")


def test_set_and_show(bertstream: Bertstream) -> None:
    text = "# ours\nmodel: sentiment\n"
    Path("p.yaml").write_text(text)
    assert bertstream("policy", "set", "p.yaml").stdout.startswith("sentiment: in effect, digest ")
    assert "nothing changed" in bertstream("policy", "set", "p.yaml").stdout
    assert bertstream("policy", "show", "sentiment", who="ana").stdout == text
    shown = as_json(bertstream("policy", "show", "sentiment", "--json"))
    assert shown["policy"]["outside_windows"] == "wait"
    assert "has no policy" in bertstream("policy", "show", "other", code=1).stderr
    bertstream("policy", "set", "p.yaml", who="ana", code=1)


def test_set_of_what_is_wrong_lists_the_mistakes(bertstream: Bertstream) -> None:
    Path("p.yaml").write_text(WRONG)
    lines = bertstream("policy", "set", "p.yaml", code=2).stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["2:1", "3:1", "error"]


def test_explain(bertstream: Bertstream, there: Installation) -> None:
    bertstream("models", "register", "sentiment", str(make_directory(there.folder / "one")))
    assert "may be released now" in bertstream("policy", "explain", "sentiment@1").stdout
    Path("p.yaml").write_text("model: sentiment\napprovals: [{team: risk}]\n")
    bertstream("policy", "set", "p.yaml")
    text = bertstream("policy", "explain", "sentiment@1", code=1, who="ana").stdout
    assert "Missing: 1 approval from team risk" in text
    found = as_json(bertstream("policy", "explain", "sentiment@1", "--json", code=1))
    assert [missing["obstacle"] for missing in found["missing"]] == ["approval"]
    shown = bertstream("policy", "explain", "sentiment@1", code=1).stdout
    assert shown.splitlines() == found["sentences"]
