"""What a benchmark run says: figures, ratios, and whether each target was met. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table

Figures = Mapping[str, float | str]

RATE_ROWS = (
    ("sentence-transformers f32", "st_texts_per_s"),
    ("engine alone, f32", "engine_f32_texts_per_s"),
    ("engine alone", "engine_texts_per_s"),
    ("replica, JSON in and out", "replica_texts_per_s"),
    ("Kafka to Kafka, exactly once", "exactly_once_texts_per_s"),
    ("Kafka to Kafka, at least once", "at_least_once_texts_per_s"),
    ("Kafka to Kafka, echo model, exactly once", "echo_records_per_s"),
)


class Target(NamedTuple):
    """A figure and the bound it shall keep."""

    name: str
    figure: str
    bound: float
    at_least: bool

    def is_met(self, figures: Figures) -> bool:
        """Whether the figure keeps the bound."""
        value = float(figures[self.figure])
        return value >= self.bound if self.at_least else value <= self.bound


F32 = Target("engine f32 / sentence-transformers", "engine_f32_ratio", 1.5, True)
BF16 = Target("engine bf16 / sentence-transformers", "engine_ratio", 5.0, True)
TARGETS = (
    Target("exactly once / engine alone", "exactly_once_ratio", 0.85, True),
    Target("padding ratio", "padding_ratio", 1.1, False),
    Target("echo records/s", "echo_records_per_s", 5_000.0, True),
    Target("idle p50 ms, exactly once", "idle_p50_ms", 60.0, False),
    Target("idle p50 ms, at least once", "idle_at_least_once_p50_ms", 25.0, False),
    Target("Kafka's memory, MB", "kafka_rss_mb", 400.0, False),
)


def with_ratios(figures: Figures) -> dict[str, float | str]:
    """The figures and the ratios that the targets are about."""
    engine, reference = float(figures["engine_texts_per_s"]), float(figures["st_texts_per_s"])
    return {
        **figures,
        "engine_ratio": round(engine / reference, 2),
        "engine_f32_ratio": round(float(figures["engine_f32_texts_per_s"]) / reference, 2),
        "replica_ratio": round(float(figures["replica_texts_per_s"]) / engine, 3),
        "exactly_once_ratio": round(float(figures["exactly_once_texts_per_s"]) / engine, 3),
        "at_least_once_ratio": round(float(figures["at_least_once_texts_per_s"]) / engine, 3),
    }


def targets_for(figures: Figures) -> list[Target]:
    """The targets that apply: the one for bf16 only where the processor computes in it."""
    return [F32, *([BF16] if figures["precision"] == "bf16" else []), *TARGETS]


def tables(figures: Figures) -> list[Table]:
    """Rates with their ratios, latencies and memory, and the targets."""
    return [_rates(figures), _latencies(figures), _verdicts(figures)]


def _rates(figures: Figures) -> Table:
    title = f"{figures['texts']} texts of {figures['data']}, {figures['cpu']}"
    table = Table("", "per second", "to s.-transformers", "to the engine", title=title)
    reference, engine = float(figures["st_texts_per_s"]), float(figures["engine_texts_per_s"])
    for name, figure in RATE_ROWS:
        rate = float(figures[figure])
        cells = [f"{rate / reference:.2f}", f"{rate / engine:.2f}"]
        if figure == "echo_records_per_s":
            cells = ["", ""]
        label = f"{name}, {figures['precision']}" if figure == "engine_texts_per_s" else name
        table.add_row(label, f"{rate:,.0f}", *cells)
    return table


def _latencies(figures: Figures) -> Table:
    table = Table("produced to readable", "p50 ms", "p99 ms")
    share = float(figures["load_share"])
    for name, prefix in (
        ("idle, exactly once", "idle"),
        ("idle, at least once", "idle_at_least_once"),
        (f"at {share:.0%} of the exactly-once rate", "loaded"),
    ):
        p50, p99 = (float(figures[f"{prefix}_{quantile}_ms"]) for quantile in ("p50", "p99"))
        table.add_row(name, f"{p50:,.1f}", f"{p99:,.1f}")
    return table


def _verdicts(figures: Figures) -> Table:
    table = Table("target", "bound", "measured", "")
    for target in targets_for(figures):
        bound = f"{'>=' if target.at_least else '<='} {target.bound:g}"
        verdict = "[green]met[/]" if target.is_met(figures) else "[red]missed[/]"
        table.add_row(target.name, bound, f"{float(figures[target.figure]):,.4g}", verdict)
    return table
