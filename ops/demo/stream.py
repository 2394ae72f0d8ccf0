"""The demonstration: train, serve, stream, count, stop. Owns the sequence and the view of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.cli.terminal import StepPrinter, err, json_line, out
from ops.cli.training import train_with_progress
from ops.config.settings import PlatformConfig, RaySettings
from ops.demo.load import DEADLINE_S, Arrival, DemoLoad
from ops.platform import bring_up
from ops.platform.status import status
from serve.settings import ModelSettings
from stream.settings import KafkaSettings, PipelineSettings

REVIEWS = Path(__file__).parent / "data" / "reviews.jsonl"
LINE_EVERY_S = 2.0
REFRESH_S = 0.25

step = StepPrinter()


def run() -> int:
    """Run the demonstration, print its counts as the last line on stdout, return the exit code."""
    start = time.monotonic()
    folder = Path(".bertstream") / "demo"
    model = ModelSettings(name="sentiment", path=folder / "sentiment")
    config = demo_config(folder, model, operator=False)
    with own_folder(folder), ThreadPoolExecutor(1) as pool:
        # Kafka and Ray start during training, because starting leaves the processor partly idle.
        starting = pool.submit(bring_up.up, config, step, apps=False)
        step(f"Training a sentiment classifier on {REVIEWS.name}, encoder frozen")
        options = {"data": REVIEWS, "out": folder / "sentiment", "freeze": "encoder"}
        artifact = train_with_progress(options)
        step("Trained: " + ", ".join(f"{m.name} {m.value:.3f}" for m in artifact.card.metrics))
        starting.result()
        state = bring_up.up(config, step)
        step(f"Ray dashboard: {state.dashboard} (token in {folder / 'ray-token'})")
        kafka = state.kafka(config.kafka)
        counted = _stream(kafka, config.pipelines[0])
        now = status(config).pipelines[0]
        summary = counted | {"engine": now.engine, "precision": now.precision}
        bring_up.down(config.state_dir, step)
    out.print(_summary_line(summary), soft_wrap=True)
    out.print(_how_to_go_on(time.monotonic() - start))
    json_line(orjson.dumps(summary).decode())
    return 0 if not (summary["lost"] or summary["duplicated"]) else 1


def demo_config(folder: Path, model: ModelSettings, **others: Any) -> PlatformConfig:
    """Return a platform with its own Kafka and Ray: one model and the pipeline ``reviews``."""
    reviews = PipelineSettings(
        name="reviews",
        model=model.name,
        input_topics=("reviews",),
        output_topic="reviews.sentiment",
        telemetry_interval_s=0.5,
    )
    # Another cluster that runs here must not be used.
    ray = RaySettings(address="local")
    return PlatformConfig(
        models=(model,), pipelines=(reviews,), ray=ray, state_dir=folder, **others
    )


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Provide an empty folder, and always stop everything that was started in it."""
    if bring_up.down(folder, step):
        step("An earlier demonstration was still running; it was stopped")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        bring_up.down(folder, step)
        shutil.rmtree(folder, ignore_errors=True)


def _stream(kafka: KafkaSettings, pipeline: PipelineSettings) -> dict[str, Any]:
    """Run the load and show it until every event is accounted for; return the counts."""
    with DemoLoad(kafka, pipeline) as load, _shown() as show:
        ends = time.monotonic() + DEADLINE_S
        while not load.is_over():
            if time.monotonic() > ends:
                break  # missing events count as lost
            show(load)
            time.sleep(REFRESH_S)
        show(load)
        time.sleep(1.0)  # a duplicate would arrive now
    return load.summary()


@contextmanager
def _shown() -> Iterator[Callable[[DemoLoad], None]]:
    """Show a live view on a terminal; elsewhere print lines at intervals, each result once."""
    if err.is_terminal:
        with Live(console=err, auto_refresh=False) as live:
            yield lambda load: live.update(_view(load), refresh=True)
        return
    printed_at = 0.0
    last: tuple[str, Arrival | None] = ("", None)

    def show(load: DemoLoad) -> None:
        nonlocal printed_at, last
        newest = load.counts.latest[-1] if load.counts.latest else None
        now = (_headline(load), newest)
        if now == last or (time.monotonic() - printed_at < LINE_EVERY_S and load.lag):
            return
        err.print(now[0], soft_wrap=True)
        if newest is not None and newest != last[1]:
            err.print(f"    {_row(newest)}", markup=False, soft_wrap=True)
        printed_at, last = time.monotonic(), now

    yield show


def _view(load: DemoLoad) -> Group:
    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for column in ("label", "score", "latency"):
        table.add_column(column, justify="right", no_wrap=True)
    for arrival in list(load.counts.latest):
        colour = "green" if arrival.label == "positive" else "red"
        table.add_row(
            Text(arrival.text),
            Text(arrival.label, style=colour),
            f"{arrival.score:.3f}",
            f"{arrival.latency_ms:.0f} ms",
        )
    return Group(Text(_headline(load), style="bold"), table)


def _headline(load: DemoLoad) -> str:
    counts = load.counts
    return (
        f"{load.phase}: produced {load.sent}  predicted {counts.predicted}  "
        f"dead letters {counts.dead_letters}  lag {load.lag}"
    )


def _row(arrival: Arrival) -> str:
    return (
        f"{arrival.label:<9} {arrival.score:.3f} {arrival.latency_ms:5.0f} ms  {arrival.text[:60]}"
    )


def _summary_line(counted: dict[str, Any]) -> str:
    steady, burst = counted["steady"], counted["burst"]
    drained_s = burst["drained_s"]
    drained = (
        "was not drained in time" if drained_s is None else f"was drained in {drained_s:.0f} s"
    )
    return (
        f"\nThis machine reached {counted['measured_per_s']:.0f} records/s. At "
        f"{steady['records_per_s']:.0f} records/s the latency was {steady['p50_ms']:.0f} ms "
        f"(p99 {steady['p99_ms']:.0f} ms).\nA burst that raised the lag to {burst['peak_lag']} "
        f"{drained}, alongside the steady load."
    )


def _how_to_go_on(seconds: float) -> str:
    return (
        f"\nDone in {seconds:.0f} s; everything that was started is stopped. To do it by hand:\n"
        "  .venv/bin/bertstream train text-classification \\\n"
        "      --data ops/demo/data/reviews.jsonl --out models/sentiment\n"
        "  .venv/bin/bertstream up --config infra/bertstream.example.yaml --detach\n"
        '  echo \'{"text": "What a fine day"}\' | .venv/bin/bertstream produce reviews \\\n'
        "      --config infra/bertstream.example.yaml\n"
        "  .venv/bin/bertstream consume reviews.sentiment --from-beginning --max 1 \\\n"
        "      --config infra/bertstream.example.yaml\n"
        "  .venv/bin/bertstream down --config infra/bertstream.example.yaml\n"
    )
