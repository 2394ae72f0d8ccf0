"""Measure operations of the catalogue and the ledger with many versions and rows.

``python -m bench.registry [--versions N --ledger N --url URL]`` fills an empty database and
performs the operations behind the commands. Prints one line of JSON; exits with 1 if one is slow.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, insert, select, text, update

from ops.access import ledger as ops_ledger
from ops.access.ledger import GENESIS, Entry, LedgerQuery, append, entries, row_after, verify
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.releases.retention import Retention
from ops.sql.database import Database
from ops.sql.tables import ledger, ledger_head, models, versions
from serve.artifact import (
    CONFIG_FILE,
    GOLDEN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Metric,
    ModelCard,
    seal,
    write_card,
)
from serve.tasks.text_classification import ClassificationHead

LIMIT_S = 0.3
REPEATS = 20
MODELS = 100
# The model that has half of all versions and ledger rows.
LARGE = "model-000"
BATCH = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
BETWEEN_ROWS = timedelta(seconds=20)


def main() -> int:
    """Measure every operation; return 0 if all were fast enough, otherwise 1."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/ops.db"
        with closing(Database(url, timeout_s=60)) as database:
            figures = _measure(database, url, Path(folder), arguments)
    slow = sorted(name for name, seconds in figures["worst_s"].items() if seconds > LIMIT_S)
    print(json.dumps({**figures, "limit_s": LIMIT_S, "too_slow": slow}))
    return 1 if slow else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--ledger", type=int, default=1_000_000)
    parser.add_argument(
        "--url",
        help="empty database, postgresql+psycopg://...; default: SQLite in a temporary file",
    )
    return parser.parse_args()


def _measure(
    database: Database, url: str, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    database.migrate()
    store = ArtifactStore(folder / "store")
    registry = Registry(database, store)
    made = directories(folder)
    for _ in range(2):
        registry.register(LARGE, next(made), author="ada", now=START)
    began = time.perf_counter()
    fill_versions(database, arguments.versions)
    fill_ledger(database, arguments.ledger)
    if database.dialect == "postgresql":
        _settle(url)
    filled_s = time.perf_counter() - began
    operations = _operations(database, store, made, arguments)
    timings = {name: _timed(operation) for name, operation in operations.items()}
    began = time.perf_counter()
    with database.read() as connection:
        broken = verify(connection)
    assert broken is None, broken
    return {
        "database": database.dialect,
        "versions": arguments.versions,
        "ledger": arguments.ledger,
        "fill_s": round(filled_s, 1),
        "verify_s": round(time.perf_counter() - began, 1),
        "median_s": {name: round(statistics.median(t), 4) for name, t in timings.items()},
        "worst_s": {name: round(max(t), 4) for name, t in timings.items()},
    }


def _operations(
    database: Database,
    store: ArtifactStore,
    made: Iterator[Path],
    arguments: argparse.Namespace,
) -> dict[str, Callable[[], object]]:
    """Return the operations behind the commands, by name."""
    registry = Registry(database, store)
    newest = VersionId(LARGE, arguments.versions // 2)
    end = START + arguments.ledger * BETWEEN_ROWS

    def page(**wanted: Any) -> Callable[[], object]:
        def read() -> object:
            with database.read() as connection:
                return entries(connection, LedgerQuery(**wanted))

        return read

    def write() -> None:
        with database.begin() as connection:
            append(connection, Entry(at=end, actor="ada", action="bench"))

    def register() -> object:
        return registry.register("model-001", next(made), author="ada", now=end)

    first, second = VersionId(LARGE, 1), VersionId(LARGE, 2)
    return {
        "models": registry.models,
        "list": lambda: registry.versions(LARGE),
        "list_deep": lambda: registry.versions(LARGE, before=100),
        "show": lambda: registry.show(newest),
        "diff": lambda: registry.diff(first, second),
        "deletable": lambda: Retention(database, store).deletable(LARGE, keep=10),
        "register": register,
        "ledger": page(),
        "ledger_deep": page(before_id=arguments.ledger // 2),
        "ledger_large_model": page(model=LARGE),
        "ledger_model": page(model="model-042"),
        "ledger_unknown_model": page(model="nothing"),
        "ledger_actor": page(actor="person-7"),
        "ledger_release": page(release_id=17),
        "ledger_since_now": page(since=end - timedelta(minutes=5)),
        "ledger_since_start": page(since=START),
        "ledger_never": page(since=end + timedelta(days=9)),
        "ledger_model_since": page(model="model-042", since=end - timedelta(minutes=5)),
        "ledger_append": write,
    }


def _timed(operation: Callable[[], object]) -> list[float]:
    """Return seconds of each call, including the first, since a command makes only one call."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - began)
    return seconds


def directories(folder: Path) -> Iterator[Path]:
    """Yield sealed model directories, each with different content."""
    for number in itertools.count():
        path = folder / f"model-{number}"
        path.mkdir()
        (path / WEIGHTS_FILE).write_bytes(b"%d" % number)
        (path / TOKENIZER_FILE).write_text("{}")
        (path / CONFIG_FILE).write_text(json.dumps({"hidden_size": number}))
        answer = {"label": "a", "score": 0.5}
        records = [{"record": {"text": f"text {i}"}, "result": [answer]} for i in range(100)]
        lines = [json.dumps(record) for record in records]
        (path / GOLDEN_FILE).write_text("\n".join(lines))
        write_card(path, _card())
        seal(path)
        yield path


def _card() -> ModelCard:
    names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "f1/a", "f1/b")
    return ModelCard(
        task="text-classification",
        head=ClassificationHead(labels=("a", "b"), problem_type="single_label"),
        max_length=128,
        metrics=tuple(Metric(name=name, value=0.9, direction="higher") for name in names),
    )


def fill_versions(database: Database, count: int) -> None:
    """Insert versions: half for one model, the rest spread over the others."""
    with database.begin() as connection:
        template = dict(connection.execute(select(versions)).mappings().first() or {})
        names = [f"model-{number:03}" for number in range(MODELS)]
        rows = [{"name": n, "created_at": START, "created_by": "ada"} for n in names[1:]]
        connection.execute(insert(models), rows)
        counts = {name: itertools.count(3 if name == LARGE else 1) for name in names}
        for batch in _batches(range(2, count)):
            rows = []
            for number in batch:
                name = LARGE if number % 2 else names[1 + number // 2 % (MODELS - 1)]
                digest = hashlib.sha256(b"%d" % number).hexdigest()
                own = {"model": name, "number": next(counts[name]), "digest": digest}
                rows.append(template | own)
            connection.execute(insert(versions), rows)


def fill_ledger(database: Database, count: int) -> None:
    """Insert ledger rows with a valid hash chain; half of them are about one model."""
    with database.begin() as connection:
        head = ops_ledger.head(connection, lock=True)
    for batch in _batches(range(head.last_id, count)):
        rows = []
        for number in batch:
            row = row_after(head, _entry(number))
            head = ops_ledger.LedgerHead(row["id"], row["hash"])
            rows.append(row)
        with database.begin() as connection:
            connection.execute(insert(ledger), rows)
            connection.execute(update(ledger_head).values(last_id=head.last_id, hash=head.hash))


def _entry(number: int) -> Entry:
    return Entry(
        at=START + number * BETWEEN_ROWS,
        actor=f"person-{number % 50}",
        action="release.step",
        model=LARGE if number % 2 else f"model-{1 + number // 2 % (MODELS - 1):03}",
        version=1 + number % 5,
        release_id=number // 20,
        from_state="canary",
        to_state="bake",
        reason="every check of the step has passed with enough records",
        evidence={"answers": number, "errors": 3, "share": 0.05, "labels": {"a": 10, "b": 20}},
        version_digest=GENESIS,
        policy_digest=GENESIS,
    )


def _batches(numbers: range) -> Iterator[range]:
    for start in range(0, len(numbers), BATCH):
        yield numbers[start : start + BATCH]


def _settle(url: str) -> None:
    """Vacuum and analyse at once, which PostgreSQL would do by itself later."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
