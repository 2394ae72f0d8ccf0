"""``bertstream grant`` and ``token`` against a real control API."""

from __future__ import annotations

import pytest

from ops.access import tokens
from tests.ops.cli.command import Bertstream, as_json
from tests.ops.installation import NOW, Installation


def test_grants(bertstream: Bertstream) -> None:
    done = bertstream("grant", "add", "eve", "release", "sent*").stdout
    assert done == "eve has release on sent*\n"
    lines = bertstream("grant", "list", "--holder", "eve").stdout.splitlines()
    assert lines[1].split() == ["eve", "person", "release", "sent*", "root"]
    assert len(as_json(bertstream("grant", "list", "--json"))["items"]) == 4
    bertstream("grant", "remove", "eve", "release", "sent*")
    error = bertstream("grant", "remove", "eve", "release", "sent*", code=1).stderr
    assert "eve has no direct grant of release on sent*" in error
    bertstream("grant", "add", "eve", "fly", "*", code=2)
    bertstream("grant", "add", "eve", "read", "A*", code=2)
    assert (
        "no person would be left"
        in bertstream("grant", "remove", "root", "admin", "*", code=1).stderr
    )


def test_tokens(
    bertstream: Bertstream, there: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = bertstream("token", "create", "eve", "--days", "2")
    secret = result.stdout.strip()
    assert secret.startswith("bst_")
    assert "Token for eve, expires 2026-03-04 09:00 UTC" in result.stderr
    with monkeypatch.context() as environment:
        environment.setenv("BERTSTREAM_TOKEN", secret)  # before the one in the file
        assert bertstream("people", "show").stdout.startswith("eve: person")
    own = as_json(bertstream("token", "list", "--json", who="eve"))["items"]
    assert [token["holder"] for token in own] == ["eve", "eve"]
    assert secret[:12] in bertstream("token", "list", "--all").stdout
    bertstream("token", "list", "--all", who="eve", code=1)
    bertstream("token", "revoke", str(own[-1]["id"]), who="eve")
    assert "revoked" in bertstream("token", "list", "--holder", "eve").stdout
    there.secrets["eve"] = secret
    assert "was revoked" in bertstream("people", "show", who="eve", code=1).stderr
    for words in (["--never-expires"], ["--days", "31"]):
        capped = bertstream("token", "create", *words).stderr
        assert "expires 2026-04-01 09:00 UTC, together with the token that created it" in capped
    with there.database.begin() as connection:
        there.secrets["root"] = tokens.issue(connection, "root", lifetime=None, now=NOW).secret
    lasting = bertstream("token", "create", "--never-expires")
    assert "Token for root, never expires" in lasting.stderr
