"""Pure reporting of a benchmark run: metrics, ratios and whether each target was met."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from rich.table import Table

from bench.disturbance import QUIET_CORES

Figures = Mapping[str, float | str]

RATE_ROWS = (
    ("sentence-transformers f32", "st_texts_per_s"),
    ("engine alone, f32", "engine_f32_texts_per_s"),
    ("engine alone", "engine_texts_per_s"),
    ("replica, JSON in and out", "replica_texts_per_s"),
    ("two models, each asked for every text", "two_models_texts_per_s"),
    ("two heads on one encoder", "two_heads_texts_per_s"),
    ("Kafka to Kafka, exactly once", "exactly_once_texts_per_s"),
    ("Kafka to Kafka, at least once", "at_least_once_texts_per_s"),
    ("Kafka to Kafka, echo model, exactly once", "echo_records_per_s"),
)


# No pipeline is faster than its engine: above this ratio the two ran under different conditions.
POSSIBLE_RATIO = 1.1


class Verdict(StrEnum):
    """Verdict on a target; withheld where other processes may have influenced the result."""

    MET = "met"
    MISSED = "missed"
    DISTURBED = "disturbed: no verdict"
    IMPOSSIBLE = "impossible: no verdict"


class Target(NamedTuple):
    """A metric and the bound that it must keep.

    Attributes:
        rows: Measurements that a busy machine makes worse; a miss counts only if they were quiet.
        references: Measurements whose disturbance improves the metric; a pass needs quiet ones.
        possible: Largest plausible value; a larger one is an artefact of the measurement.
    """

    name: str
    figure: str
    bound: float
    at_least: bool
    rows: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    possible: float = float("inf")

    def judge(self, figures: Figures) -> Verdict:
        """Return whether the metric keeps the bound, or why that cannot be decided."""
        value = float(figures[self.figure])
        if value > self.possible:
            return Verdict.IMPOSSIBLE
        kept = value >= self.bound if self.at_least else value <= self.bound
        if not _are_quiet(self.references if kept else self.rows, figures):
            return Verdict.DISTURBED
        return Verdict.MET if kept else Verdict.MISSED


def _are_quiet(rows: tuple[str, ...], figures: Figures) -> bool:
    return all(float(figures[f"{row}_others_cores"]) <= QUIET_CORES for row in rows)


F32 = Target(
    "engine f32 / sentence-transformers", "engine_f32_ratio", 1.5, True, ("engine_f32",), ("st",)
)
BF16 = Target(
    "engine bf16 / sentence-transformers", "engine_ratio", 5.0, True, ("engine",), ("st",)
)
TARGETS = (
    Target(
        "exactly once / engine alone",
        "exactly_once_ratio",
        0.85,
        True,
        ("exactly_once",),
        ("engine",),
        POSSIBLE_RATIO,
    ),
    Target("two heads / two models", "two_heads_ratio", 1.7, True, ("two_heads",), ("two_models",)),
    Target("padding ratio", "padding_ratio", 1.1, False),
    Target("echo records/s", "echo_records_per_s", 5_000.0, True, ("echo",)),
    Target("idle p50 ms, exactly once", "idle_p50_ms", 60.0, False, ("idle",)),
    Target(
        "idle p50 ms, at least once",
        "idle_at_least_once_p50_ms",
        25.0,
        False,
        ("idle_at_least_once",),
    ),
    Target("Kafka's memory, MB", "kafka_rss_mb", 400.0, False),
)


COLOURS = {
    Verdict.MET: "green",
    Verdict.MISSED: "red",
    Verdict.DISTURBED: "yellow",
    Verdict.IMPOSSIBLE: "yellow",
}


def with_ratios(figures: Figures) -> dict[str, float | str]:
    """Return the metrics together with the ratios that the targets refer to."""
    engine, reference = float(figures["engine_texts_per_s"]), float(figures["st_texts_per_s"])
    return {
        **figures,
        "engine_ratio": round(engine / reference, 2),
        "engine_f32_ratio": round(float(figures["engine_f32_texts_per_s"]) / reference, 2),
        "two_heads_ratio": round(
            float(figures["two_heads_texts_per_s"]) / float(figures["two_models_texts_per_s"]), 2
        ),
        "replica_ratio": round(float(figures["replica_texts_per_s"]) / engine, 3),
        "exactly_once_ratio": round(float(figures["exactly_once_texts_per_s"]) / engine, 3),
        "at_least_once_ratio": round(float(figures["at_least_once_texts_per_s"]) / engine, 3),
    }


def targets_for(figures: Figures) -> list[Target]:
    """Return the targets that apply; the bf16 target requires an engine that ran in bf16."""
    return [F32, *([BF16] if figures["precision"] == "bf16" else []), *TARGETS]


def tables(figures: Figures) -> list[Table]:
    """Return tables of the rates with their ratios, of the latencies and of the targets."""
    return [_rates(figures), _latencies(figures), _verdicts(figures)]


def _rates(figures: Figures) -> Table:
    title = f"{figures['texts']} texts of {figures['data']}, {figures['cpu']}"
    columns = ("", "per second", "vs. s.-transformers", "vs. engine", "cores used by others")
    table = Table(*columns, title=title)
    reference, engine = float(figures["st_texts_per_s"]), float(figures["engine_texts_per_s"])
    for name, figure in RATE_ROWS:
        rate = float(figures[figure])
        cells = [f"{rate / reference:.2f}", f"{rate / engine:.2f}"]
        if figure == "echo_records_per_s":
            cells = ["", ""]
        label = f"{name}, {figures['precision']}" if figure == "engine_texts_per_s" else name
        row = figure.removesuffix("_texts_per_s").removesuffix("_records_per_s")
        others = float(figures[f"{row}_others_cores"])
        table.add_row(label, f"{rate:,.0f}", *cells, f"{others:.2f}")
    return table


def _latencies(figures: Figures) -> Table:
    table = Table("produced to readable", "p50 ms", "p99 ms", "cores used by others")
    share = float(figures["load_share"])
    for name, prefix in (
        ("idle, exactly once", "idle"),
        ("idle, at least once", "idle_at_least_once"),
        (f"at {share:.0%} of the exactly-once rate", "loaded"),
    ):
        p50, p99 = (float(figures[f"{prefix}_{quantile}_ms"]) for quantile in ("p50", "p99"))
        others = float(figures[f"{prefix}_others_cores"])
        table.add_row(name, f"{p50:,.1f}", f"{p99:,.1f}", f"{others:.2f}")
    return table


def _verdicts(figures: Figures) -> Table:
    table = Table("target", "bound", "measured", "verdict")
    for target in targets_for(figures):
        bound = f"{'>=' if target.at_least else '<='} {target.bound:g}"
        verdict = target.judge(figures)
        measured = f"{float(figures[target.figure]):,.6g}"
        table.add_row(target.name, bound, measured, f"[{COLOURS[verdict]}]{verdict}[/]")
    return table
