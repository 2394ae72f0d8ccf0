"""The demonstration: train, serve, stream, count, stop. Owns its story, nothing of how."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops import local
from ops.demo_events import DemoEvent, events
from ops.errors import OpsError
from ops.settings import PlatformConfig, RaySettings
from ops.status import status
from ops.terminal import Steps, err, json_line, out
from ops.training import train_with_progress
from serve.settings import ModelSettings
from stream.clients import TopicWriter, read_topic
from stream.records import Record
from stream.settings import KafkaSettings, PipelineSettings

REVIEWS = Path(__file__).parent / "demo_data" / "reviews.jsonl"
EVENTS = 2_400
RATE_PER_S = 150.0
SEED = 7
STREAM_DEADLINE_S = 240.0
SHOWN = 9
REFRESH_S = 0.25

step = Steps()


class Arrival(NamedTuple):
    """A result as the demonstration's own consumer saw it."""

    text: str
    label: str
    score: float
    latency_ms: float


class Tally:
    """What an independent read_committed consumer counted; filled by reading threads."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.predicted = self.dead_letters = 0
        self.latencies_ms: list[float] = []
        self.latest: deque[Arrival] = deque(maxlen=SHOWN)
        self.first_at = self.last_at = 0.0

    def take(self, record: Record, texts: dict[str, str]) -> None:
        """Count a prediction or a dead letter by the place of its input."""
        headers = dict(record.headers)
        self.sources[(headers["bertstream-source"] or b"").decode()] += 1
        self.last_at = time.time()
        self.first_at = self.first_at or self.last_at
        if "bertstream.errors.kind" in headers:
            self.dead_letters += 1
            return
        self.predicted += 1
        value = orjson.loads(record.value or b"{}")
        latency_ms = self.last_at * 1000 - value["source"]["timestamp"]
        self.latencies_ms.append(latency_ms)
        best = value["result"][0]
        text = texts.get(str(value["id"]), "")
        self.latest.append(Arrival(text, best["label"], best["score"], latency_ms))

    def rate(self) -> float:
        """Records per second between the first and the last."""
        span = self.last_at - self.first_at
        return (self.predicted + self.dead_letters) / span if span > 0 else 0.0


def run() -> int:
    """Show the whole; the last line on stdout is what was counted. Returns the exit code."""
    start = time.monotonic()
    folder = Path(".bertstream") / "demo"
    with own_folder(folder):
        step(f"Training a sentiment classifier on {REVIEWS.name}, encoder frozen")
        options = {"data": REVIEWS, "out": folder / "sentiment", "freeze": "encoder"}
        artifact = train_with_progress(options)
        step("Trained: " + ", ".join(f"{m.name} {m.value:.3f}" for m in artifact.card.metrics))
        config = _config(folder)
        state = local.up(config, step)
        step(f"Ray dashboard: {state.dashboard} (token in {folder / 'ray-token'})")
        kafka = state.kafka(config.kafka)
        tally, produced = _stream(kafka, config.pipelines[0])
        now = status(config).pipelines[0]
        summary = _summary(tally, produced, now.engine, now.precision)
        local.down(config.state_dir, step)
    out.print(_how_to_go_on(time.monotonic() - start))
    json_line(orjson.dumps(summary).decode())
    return 0 if not (summary["lost"] or summary["duplicated"]) else 1


def _config(folder: Path) -> PlatformConfig:
    return PlatformConfig(
        models=(ModelSettings(name="sentiment", path=folder / "sentiment"),),
        pipelines=(
            PipelineSettings(
                name="reviews",
                model="sentiment",
                input_topics=("reviews",),
                output_topic="reviews.sentiment",
                telemetry_interval_s=1.0,
            ),
        ),
        # Whatever other cluster runs here is nobody's guest.
        ray=RaySettings(address="local"),
        state_dir=folder,
        operator=False,
    )


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """A fresh folder; whatever happens, nothing that was started in it goes on."""
    if local.down(folder, step):
        step("An earlier demonstration was still running; it was ended")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        local.down(folder, step)
        shutil.rmtree(folder, ignore_errors=True)


def _stream(kafka: KafkaSettings, pipeline: PipelineSettings) -> tuple[Tally, int]:
    """Produce all events, read what comes back, show it; ends when every event is accounted."""
    tally, sent = Tally(), Counter[str]()
    texts: dict[str, str] = {}
    stop = threading.Event()
    readers = [
        threading.Thread(target=_read, args=(kafka, topic, tally, texts, stop), daemon=True)
        for topic in (pipeline.output_topic, pipeline.dead_letters)
    ]
    writer = threading.Thread(
        target=_write, args=(kafka, pipeline.input_topics[0], texts, sent), daemon=True
    )
    for thread in (*readers, writer):
        thread.start()
    deadline = time.monotonic() + STREAM_DEADLINE_S
    with _shown() as show:
        while time.monotonic() < deadline:
            show(tally, sent["records"])
            if not writer.is_alive() and len(tally.sources) >= sent["records"]:
                break
            time.sleep(REFRESH_S)
    time.sleep(1.0)  # a duplicate would come now
    stop.set()
    for thread in readers:
        thread.join(10)
    if not sent["records"]:
        raise OpsError("no event could be produced; see the log of the broker")
    return tally, sent["records"]


def _write(kafka: KafkaSettings, topic: str, texts: dict[str, str], sent: Counter[str]) -> None:
    start = time.monotonic()
    with TopicWriter(kafka, topic) as writer:
        for event in events(EVENTS, SEED):
            texts.update(_text_by_id(event))
            writer.write(event.key, event.value, event.headers)
            sent["records"] += 1
            time.sleep(max(0.0, start + sent["records"] / RATE_PER_S - time.monotonic()))


def _text_by_id(event: DemoEvent) -> dict[str, str]:
    if event.is_bad or event.value is None:
        return {}
    content = orjson.loads(event.value)
    return {str(content["id"]): content["text"]}


def _read(
    kafka: KafkaSettings, topic: str, tally: Tally, texts: dict[str, str], stop: threading.Event
) -> None:
    for record in read_topic(kafka, topic, from_beginning=True, stop=stop):
        tally.take(record, texts)


@contextmanager
def _shown() -> Iterator[Any]:
    """A live view on a terminal; elsewhere a line now and then."""
    if err.is_terminal:
        with Live(console=err, auto_refresh=False) as live:
            yield lambda tally, sent: live.update(_view(tally, sent), refresh=True)
        return
    printed = [0.0]

    def show(tally: Tally, sent: int) -> None:
        if time.monotonic() - printed[0] >= 1.0:
            printed[0] = time.monotonic()
            err.print(_headline(tally, sent), soft_wrap=True)
            for arrival in list(tally.latest)[-2:]:
                err.print(f"    {_row(arrival)}", markup=False, soft_wrap=True)

    yield show


def _view(tally: Tally, sent: int) -> Group:
    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for column in ("label", "score", "latency"):
        table.add_column(column, justify="right", no_wrap=True)
    for arrival in list(tally.latest):
        colour = "green" if arrival.label == "positive" else "red"
        table.add_row(
            Text(arrival.text),
            Text(arrival.label, style=colour),
            f"{arrival.score:.3f}",
            f"{arrival.latency_ms:.0f} ms",
        )
    return Group(Text(_headline(tally, sent), style="bold"), table)


def _headline(tally: Tally, sent: int) -> str:
    done = len(tally.sources)
    return (
        f"produced {sent}  predicted {tally.predicted}  dead letters {tally.dead_letters}  "
        f"lag {max(0, sent - done)}  {tally.rate():.0f} records/s"
    )


def _row(arrival: Arrival) -> str:
    return (
        f"{arrival.label:<9} {arrival.score:.3f} {arrival.latency_ms:5.0f} ms  {arrival.text[:60]}"
    )


def _summary(
    tally: Tally, produced: int, engine: str | None, precision: str | None
) -> dict[str, Any]:
    latencies = sorted(tally.latencies_ms) or [0.0]
    return {
        "produced": produced,
        "predicted": tally.predicted,
        "dead_letters": tally.dead_letters,
        "lost": produced - len(tally.sources),
        "duplicated": sum(count - 1 for count in tally.sources.values()),
        "records_per_s": round(tally.rate(), 1),
        "p50_ms": round(latencies[len(latencies) // 2], 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)], 1),
        "engine": engine,
        "precision": precision,
    }


def _how_to_go_on(seconds: float) -> str:
    return (
        f"\nDone in {seconds:.0f} s; everything that was started is stopped. By hand:\n"
        "  .venv/bin/bertstream train text-classification \\\n"
        "      --data ops/demo_data/reviews.jsonl --out models/sentiment\n"
        "  .venv/bin/bertstream up --config infra/bertstream.example.yaml --detach\n"
        '  echo \'{"text": "What a fine day"}\' | .venv/bin/bertstream produce reviews \\\n'
        "      --config infra/bertstream.example.yaml\n"
        "  .venv/bin/bertstream consume reviews.sentiment --from-beginning --max 1 \\\n"
        "      --config infra/bertstream.example.yaml\n"
        "  .venv/bin/bertstream down --config infra/bertstream.example.yaml\n"
    )
