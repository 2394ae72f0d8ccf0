"""Sends golden texts to the replicas of served versions and compares the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import orjson

from ops.catalogue.versions import number_of
from ops.errors import OpsError
from ops.health.readings import GoldenReading
from ops.releases.routes import all_routes
from ops.sql.database import Transactions
from serve.agreement import LOOSEST, Agreement, tolerance_of
from serve.artifact import GoldenRecord
from serve.contract import Answer, BatchReply, CallOptions, Outcome, app_name
from serve.errors import ServeError
from serve.registry import task_type
from stream.errors import StreamError

# Limits for one version in one run. There is one call for each replica; Serve chooses which.
MAX_TEXTS = 16
MAX_CALLS = 5


class GoldenSet(NamedTuple):
    """The golden records of a version, its task, and the options for answering them."""

    task: str
    records: list[GoldenRecord]
    options: CallOptions


class Replicas(NamedTuple):
    """Functions for querying the replicas of a version.

    Attributes:
        golden: Returns the golden set of a version by model and number; raises an error of this
            project if the files are unavailable.
        ask: Returns one replica's reply, by model, label, values and options.
        running: Returns the number of running replicas of an app.
        precision: Returns a version's precision by model and label; None while it is unknown.
    """

    golden: Callable[[str, int], GoldenSet]
    ask: Callable[[str, str, list[bytes], CallOptions], BatchReply]
    running: Callable[[str], int]
    precision: Callable[[str, str], str | None]


class GoldenProbe:
    """Sends its golden texts to every version that a route names."""

    def __init__(
        self,
        database: Transactions,
        models: frozenset[str],
        replicas: Replicas,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._models = database, models
        self._replicas, self._clock = replicas, clock
        self._sets: dict[str, GoldenSet] = {}

    def __call__(self) -> Mapping[str, GoldenReading]:
        """Query all routed versions; those without golden texts are left out.

        Raises:
            DatabaseUnavailable, DatabaseIncompatible: The routes cannot be read.
        """
        with self._database.read() as connection:
            routes = all_routes(connection)
        served = {
            app_name(model, label): (model, label, route.digest)
            for model in self._models & routes.keys()
            for label, route in routes[model].versions.items()
        }
        self._sets = {name: golden for name, golden in self._sets.items() if name in served}
        readings = {name: self._version(*version) for name, version in served.items()}
        return {name: reading for name, reading in readings.items() if reading is not None}

    def close(self) -> None:
        """Do nothing; the connections are shared and closed elsewhere."""

    def _version(self, model: str, label: str, digest: str | None) -> GoldenReading | None:
        try:
            golden = self._golden(model, label)
            if golden is None:
                return None
            values = [record.value for record in golden.records]
            calls = min(MAX_CALLS, max(1, self._replicas.running(app_name(model, label))))
            replies = [
                self._replicas.ask(model, label, values, golden.options) for _ in range(calls)
            ]
        except (OpsError, StreamError, ServeError) as exc:
            return GoldenReading(self._clock(), 0, 0, fault=str(exc))
        precision = self._replicas.precision(model, label) or LOOSEST
        pairs = [
            (record, outcome)
            for reply in replies
            for record, outcome in zip(golden.records, reply.outcomes, strict=True)
        ]
        agreement = task_type(golden.task).agreement
        agreed = sum(agrees(agreement, *pair, precision=precision) for pair in pairs)
        others = {reply.digest for reply in replies} - {digest} if digest else set()
        return GoldenReading(self._clock(), len(pairs), agreed, tuple(sorted(others)))

    def _golden(self, model: str, label: str) -> GoldenSet | None:
        """Return at most ``MAX_TEXTS`` golden records; None if the version has none."""
        name, number = app_name(model, label), number_of(label)
        if name not in self._sets:
            if number is None:
                return None
            task, records, options = self._replicas.golden(model, number)
            self._sets[name] = GoldenSet(task, records[:MAX_TEXTS], options)
        return self._sets[name] if self._sets[name].records else None


def agrees(agreement: Agreement, record: GoldenRecord, outcome: Outcome, *, precision: str) -> bool:
    """Return whether an answer equals the golden result within the precision's tolerance.

    A text on the boundary between two labels may have either.

    Args:
        agreement: Agreement of the version's task.
        precision: Precision of the replica; an unknown one has the loosest tolerance.
    """
    if not isinstance(outcome, Answer):
        return False
    found = orjson.loads(outcome.result)
    return agreement.same_best(found, record.result, tolerance_of(precision))
