"""Asks served versions their golden texts, through their replicas, and compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from ops.catalogue.versions import number_of
from ops.errors import OpsError
from ops.health.readings import GoldenReading
from ops.releases.routes import all_routes
from ops.sql.database import Transactions
from serve.artifact import GoldenRecord
from serve.contract import Answer, BatchReply, CallOptions, Outcome, app_name
from serve.errors import ServeError
from serve.tasks.agreement import LOOSEST, same_best, tolerance_of
from stream.errors import StreamError

# Of one asking; texts of a version, and calls: one for each replica, which Serve chooses.
MAX_TEXTS = 16
MAX_CALLS = 5


class Replicas(NamedTuple):
    """What is needed to ask the replicas of a version.

    Attributes:
        texts: Golden records of a version by model and number; errors of ours where its files
            cannot be had.
        ask: Answers of one replica, by model, label, values and options.
        running: How many replicas an app has.
        precision: What a version computes in, by model and label; None while it is not known.
    """

    texts: Callable[[str, int], list[GoldenRecord]]
    ask: Callable[[str, str, list[bytes], CallOptions], BatchReply]
    running: Callable[[str], int]
    precision: Callable[[str, str], str | None]


class GoldenProbe:
    """Asks every version that a route names."""

    def __init__(
        self,
        database: Transactions,
        models: frozenset[str],
        replicas: Replicas,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._models = database, models
        self._replicas, self._clock = replicas, clock
        self._texts: dict[str, list[GoldenRecord]] = {}

    def __call__(self) -> Mapping[str, GoldenReading]:
        """Ask; versions without golden texts are left out.

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
        self._texts = {name: texts for name, texts in self._texts.items() if name in served}
        readings = {name: self._version(*version) for name, version in served.items()}
        return {name: reading for name, reading in readings.items() if reading is not None}

    def close(self) -> None:
        """The connections are another's."""

    def _version(self, model: str, label: str, digest: str | None) -> GoldenReading | None:
        try:
            texts = self._golden(model, label)
            if not texts:
                return None
            values = [record.text.encode() for record in texts]
            calls = min(MAX_CALLS, max(1, self._replicas.running(app_name(model, label))))
            options = CallOptions(format="text")
            replies = [self._replicas.ask(model, label, values, options) for _ in range(calls)]
        except (OpsError, StreamError, ServeError) as exc:
            return GoldenReading(self._clock(), 0, 0, fault=str(exc))
        precision = self._replicas.precision(model, label) or LOOSEST
        pairs = [
            (record, outcome)
            for reply in replies
            for record, outcome in zip(texts, reply.outcomes, strict=True)
        ]
        agreed = sum(agrees(record.result, outcome, precision) for record, outcome in pairs)
        others = {reply.digest for reply in replies} - {digest} if digest else set()
        return GoldenReading(self._clock(), len(pairs), agreed, tuple(sorted(others)))

    def _golden(self, model: str, label: str) -> list[GoldenRecord]:
        name, number = app_name(model, label), number_of(label)
        if name not in self._texts:
            if number is None:
                return []
            self._texts[name] = self._replicas.texts(model, number)[:MAX_TEXTS]
        return self._texts[name]


def agrees(expected: list[Any], outcome: Outcome, precision: str) -> bool:
    """Whether an answer is that of before, as far as the precision can tell.

    A text that lies between two labels may have either.

    Args:
        expected: The golden result: scored labels, best first, or an embedding.
        precision: What the replica computes in; an unknown one counts as the loosest.
    """
    if not isinstance(outcome, Answer):
        return False
    return same_best(orjson.loads(outcome.result), expected, tolerance_of(precision))
