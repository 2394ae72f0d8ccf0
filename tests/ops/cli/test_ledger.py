"""``bertstream ledger`` against a real control API."""

from __future__ import annotations

from sqlalchemy import text

from tests.ops.cli.command import Bertstream, as_json
from tests.ops.installation import Installation


def test_rows(bertstream: Bertstream) -> None:
    assert bertstream("ledger").stdout == "no rows\n"
    bertstream("people", "add", "zoe")
    bertstream("people", "add", "yan", who="eve", code=1)
    output = bertstream("ledger").stdout
    assert output.splitlines()[1].split()[:5] == [
        "2",
        "2026-03-02",
        "09:00",
        "eve",
        "principal.add",
    ]
    assert "DENIED" in output
    assert "kind person, name zoe" in " ".join(output.split())
    result = bertstream("ledger", "--limit", "1", "--by", "root", "--json")
    assert [row["id"] for row in as_json(result)["items"]] == [1]
    assert "more: --before 2" in bertstream("ledger", "--limit", "1").stderr
    assert bertstream("ledger", "--since", "2026-03-02T09:01Z").stdout == "no rows\n"
    bertstream("ledger", "--since", "yesterday", code=2)
    assert "read on *" in bertstream("ledger", who="ana", code=1).stderr
    assert bertstream("ledger", "--model", "sentiment", who="ana").stdout == "no rows\n"


def test_verify(bertstream: Bertstream, there: Installation) -> None:
    for name in ("yan", "zoe"):
        bertstream("people", "add", name)
    assert bertstream("ledger", "verify").stdout.startswith("2 rows; the chain is intact up to ")
    with there.database.begin() as connection:
        connection.execute(text("DROP TRIGGER ledger_stays"))
        connection.execute(text("UPDATE ledger SET actor = 'eve' WHERE id = 1"))
    assert "breaks at row 1" in bertstream("ledger", "verify", code=1).stderr
    found = as_json(bertstream("ledger", "verify", "--json", code=1))
    assert (found["holds"], found["broken_at"]) == (False, 1)
