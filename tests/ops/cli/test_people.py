"""``bertstream people`` and ``team`` against a real control API."""

from __future__ import annotations

from tests.ops.cli.command import Bertstream, as_json


def test_people(bertstream: Bertstream) -> None:
    assert bertstream("people", "add", "zoe").stdout == "zoe: person\n"
    names = [line.split()[-1] for line in bertstream("people", "list").stdout.splitlines()[1:]]
    assert names == ["ana", "bob", "eve", "root", "zoe"]
    assert "more: --after ana" in bertstream("people", "list", "--limit", "1").stderr
    bertstream("people", "disable", "zoe")
    last = as_json(bertstream("people", "list", "--after", "root", "--json"))["items"]
    assert [(person["name"], bool(person["disabled_at"])) for person in last] == [("zoe", True)]
    bertstream("people", "enable", "zoe")
    assert "already" in bertstream("people", "add", "zoe", code=1).stderr
    assert "not a valid name" in bertstream("people", "add", "Zoe", code=2).stderr


def test_teams(bertstream: Bertstream) -> None:
    assert bertstream("team", "add", "bank", "--department").stdout == "bank: department\n"
    assert bertstream("team", "add", "cards").stdout == "cards: team\n"
    assert bertstream("team", "join", "bank", "cards").stdout == "cards is in bank\n"
    bertstream("team", "join", "cards", "eve")
    names = [line.split()[-1] for line in bertstream("team", "list").stdout.splitlines()[1:]]
    assert names == ["bank", "cards", "mlops", "platform-it", "risk"]
    assert "groups: cards, bank" in bertstream("people", "show", who="eve").stdout
    assert "only have teams" in bertstream("team", "join", "bank", "eve", code=2).stderr
    bertstream("team", "leave", "cards", "eve")
    assert "eve is not in cards" in bertstream("team", "leave", "cards", "eve", code=1).stderr


def test_show(bertstream: Bertstream) -> None:
    text = bertstream("people", "show", "ana", who="ana").stdout
    assert text.splitlines()[:2] == ["ana: person", "groups: mlops, platform-it"]
    assert text.splitlines()[-1].split() == ["register", "sentiment", "platform-it"]
    assert "members: mlops" in bertstream("people", "show", "platform-it").stdout
    assert "no permissions" in bertstream("people", "show", who="eve").stdout
    assert as_json(bertstream("people", "show", "--json", who="bob"))["name"] == "bob"


def test_changes_are_for_admins(bertstream: Bertstream) -> None:
    for words in (
        ("people", "add", "x"),
        ("people", "disable", "bob"),
        ("team", "add", "x"),
        ("team", "join", "risk", "eve"),
        ("team", "leave", "risk", "bob"),
    ):
        assert "ask root (admin on *)" in bertstream(*words, who="eve", code=1).stderr
