"""``python -m bench``: measure every rate and its reference in one run on a private platform.

Measures sentence-transformers, the engine alone, a replica with JSON in and out, and the platform
from Kafka to Kafka with the same encoder; the pipelines' model adds a head with two labels.
Takes minutes and all cores: other work on the machine distorts the metrics.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console

from bench import report
from bench.disturbance import seconds_in_turns
from bench.engine import (
    Contender,
    build_embedder,
    model_directory,
    open_contender,
    open_reference,
    tokenizer_of,
)
from bench.heads import CALLERS, make_classifier, measure_heads
from bench.installation import Installation, echo_model, installation
from bench.pipeline import ECHO_RECORD_BYTES, Latency, Stage, stage
from bench.texts import load_texts
from serve.contract import BatchReply, CallOptions
from serve.engine.machine import processor_name
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings

# The slower reference computes every fourth of the engine's texts, ordered by length, so that
# both have the same distribution of lengths.
REFERENCE_EVERY = 4
ENGINE_TEXTS = 1_024
MICRO_BATCH = 256
ROW_S = 8.0
MIN_TEXTS, MAX_TEXTS = 1_024, 7_600
ECHO_RECORDS = 40_000
IDLE_RECORDS = 210
LOAD_SHARE = 0.6
LOAD_S = 15.0
TABLE_WIDTH = 110

Figures = dict[str, float | str]


def measure_alone(texts: Sequence[str], classifier: Path, *, repeats: int) -> Figures:
    """Measure reference, engine and replica in this process, round-robin."""
    some = sorted(texts, key=len)[::REFERENCE_EVERY]
    replica = Replica(ModelSettings(name="bench", path=classifier))
    replies: list[BatchReply] = []
    with ExitStack() as stack:
        stack.callback(replica.close)
        threads = stack.enter_context(ThreadPoolExecutor(CALLERS))
        directory = stack.enter_context(model_directory("minilm"))
        best = _contender(directory, EngineSettings(), texts, stack)
        plain = best
        if best.engine.precision != "f32":
            plain = _contender(directory, EngineSettings(precision="f32"), texts, stack)
        reference = open_reference(directory, "cpu")
        calls = micro_batches(texts)

        def answer() -> None:
            options = CallOptions()
            replies.extend(threads.map(lambda values: replica.predict(values, options), calls))

        runs = [lambda: reference(some), best.run, plain.run, answer]
        samples = seconds_in_turns(runs, repeats=repeats)
    stats = [reply.stats for reply in replies]
    counts = (len(some), len(texts), len(texts), len(texts))
    names = ("st", "engine", "engine_f32", "replica")
    figures: Figures = {"engine": best.engine.name, "precision": best.engine.precision}
    for name, count, sample in zip(names, counts, samples, strict=True):
        figures[f"{name}_texts_per_s"] = round(count / sample.value, 1)
        figures[f"{name}_others_cores"] = round(sample.others_cores, 2)
    tokens, padded = (sum(each) for each in zip(*(stat[:2] for stat in stats), strict=True))
    return figures | {"padding_ratio": round(padded / tokens, 3)}


def micro_batches(texts: Sequence[str]) -> list[list[bytes]]:
    """Return texts as JSON records, in batches the size of a pipeline's calls."""
    values = [orjson.dumps({"id": index, "text": text}) for index, text in enumerate(texts)]
    return [values[start : start + MICRO_BATCH] for start in range(0, len(values), MICRO_BATCH)]


def texts_for(engine_texts_per_s: float) -> int:
    """Return the number of texts for which a pipeline's row takes ``ROW_S`` seconds."""
    wanted = int(engine_texts_per_s * ROW_S) // MICRO_BATCH * MICRO_BATCH
    return min(MAX_TEXTS, max(MIN_TEXTS, wanted))


def measure_platform(
    platform: Installation, model: ModelSettings, texts: Sequence[str], *, quick: bool
) -> Figures:
    """Measure from Kafka to Kafka with both delivery guarantees and with the echo model."""
    idle_texts = texts[: IDLE_RECORDS // 4 if quick else IDLE_RECORDS]
    with stage(platform, model, "exactly-once") as exactly_once:
        figures = _measure_exactly_once(exactly_once, texts, idle_texts, quick=quick)
    with stage(platform, model, "at-least-once") as at_least_once:
        rate = at_least_once.work_off(texts).rate
        figures["at_least_once_texts_per_s"] = round(rate.value, 1)
        figures["at_least_once_others_cores"] = round(rate.others_cores, 2)
        figures |= quantiles("idle_at_least_once", at_least_once.idle_ms(idle_texts))
    with stage(platform, echo_model(model.path), "exactly-once") as echo:
        count = ECHO_RECORDS // 4 if quick else ECHO_RECORDS
        backlog = echo.work_off(["echo"] * count, size_bytes=ECHO_RECORD_BYTES)
        figures["echo_records_per_s"] = round(backlog.rate.value, 1)
        figures["echo_others_cores"] = round(backlog.rate.others_cores, 2)
        figures |= quantiles("idle_echo", echo.idle_ms(["echo"] * len(idle_texts)))
        figures["kafka_rss_mb"] = round(max(float(figures["kafka_rss_mb"]), backlog.kafka_rss_mb))
        figures["echo_pipeline_rss_mb"] = round(backlog.pipeline_rss_mb)
    return figures


def quantiles(prefix: str, latency: Latency) -> Figures:
    """Return median and 99th percentile by name, together with the disturbance."""
    p50, p99 = np.percentile(latency.milliseconds, (50, 99))
    return {
        f"{prefix}_p50_ms": round(float(p50), 1),
        f"{prefix}_p99_ms": round(float(p99), 1),
        f"{prefix}_others_cores": round(latency.others_cores, 2),
    }


def main() -> None:
    """Measure, print tables to stderr and one line of JSON to stdout."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    parser.add_argument("--texts", type=int, help="number per pipeline; default enough for 8 s")
    parser.add_argument("--quick", action="store_true", help="run fewer repeats; rough metrics")
    options = parser.parse_args()
    # The product's client warns about every producer that is closed soon after it was opened.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    width = None if sys.stderr.isatty() else TABLE_WIDTH
    console = Console(stderr=True, quiet=options.json, width=width)
    try:
        figures = _measure(console, texts=options.texts, quick=options.quick)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    for table in report.tables(figures):
        console.print(table)
    sys.stdout.write(json.dumps(figures) + "\n")


def _measure(console: Console, *, texts: int | None, quick: bool) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bertstream-bench-") as made:
        classifier = Path(made) / "classifier"
        make_classifier(classifier)
        source, engine_texts = load_texts(ENGINE_TEXTS // 2 if quick else ENGINE_TEXTS)
        console.print("sentence-transformers, engine and replica, round-robin")
        alone = measure_alone(engine_texts, classifier, repeats=1 if quick else 3)
        console.print("two heads on one encoder and two models, round-robin")
        alone |= measure_heads(micro_batches(engine_texts), repeats=1 if quick else 3)
        count = texts or (MIN_TEXTS if quick else texts_for(float(alone["engine_texts_per_s"])))
        model = ModelSettings(name="minilm", path=classifier)
        with installation((model, echo_model(classifier)), console.print) as platform:
            piped = measure_platform(platform, model, load_texts(count)[1], quick=quick)
    about: Figures = {"cpu": processor_name(), "data": source, "texts": count}
    return report.with_ratios(about | alone | piped)


def _measure_exactly_once(
    measured: Stage, texts: Sequence[str], idle_texts: Sequence[str], *, quick: bool
) -> Figures:
    backlog = measured.work_off(texts)
    figures: Figures = {
        "exactly_once_texts_per_s": round(backlog.rate.value, 1),
        "exactly_once_others_cores": round(backlog.rate.others_cores, 2),
        "pipeline_rss_mb": round(backlog.pipeline_rss_mb),
        "kafka_rss_mb": round(backlog.kafka_rss_mb),
        "load_share": LOAD_SHARE,
    }
    figures |= quantiles("idle", measured.idle_ms(idle_texts))
    per_s = LOAD_SHARE * backlog.rate.value
    some = texts[: int(per_s * (LOAD_S / 4 if quick else LOAD_S))]
    return figures | quantiles("loaded", measured.loaded_ms(some, per_s=per_s))


def _contender(
    directory: Path, settings: EngineSettings, texts: Sequence[str], stack: ExitStack
) -> Contender:
    contender = open_contender(
        lambda: build_embedder(directory),
        tokenizer_of(directory),
        settings=settings,
        texts=texts,
        device="cpu",
    )
    stack.callback(contender.engine.close)
    return contender


if __name__ == "__main__":
    main()
