"""Input texts of the benchmarks: AG News if present, otherwise self-written sentences."""

from __future__ import annotations

import csv
import itertools
import os
import random
from pathlib import Path

DATA_VARIABLE = "BERTSTREAM_BENCH_DATA"
AG_NEWS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "ag_news.csv"

SENTENCES = (
    "The parcel came a day early and everything in it was whole.",
    "Nobody answers the phone.",
    "After the second update the screen stayed dark, and it took three calls until somebody "
    "sent a new one.",
    "Great value!",
    "Shares of the shipping company fell by four percent after the strike was announced.",
    "The striker missed twice, then scored in the last minute of extra time.",
    "Researchers measured the river for ten years and found that it carries less sand each spring.",
    "It works as described, no more and no less.",
    "I would not buy it again, although the sound is better than I had expected for the price.",
    "The ministers meet again on Thursday.",
    "A new telescope in the desert will look for planets that pass in front of faint stars.",
    "The room was clean, the staff friendly, and breakfast began too late for our train.",
)


def load_texts(count: int) -> tuple[str, list[str]]:
    """Return texts of realistic, varying lengths, repeated if the source has fewer than ``count``.

    Returns:
        The name of the source and ``count`` texts.
    """
    file = Path(os.environ.get(DATA_VARIABLE, AG_NEWS))
    if DATA_VARIABLE in os.environ or file.exists():
        with file.open(newline="", encoding="utf-8") as handle:
            texts = [f"{title} {description}" for _, title, description in csv.reader(handle)]
        return file.name, list(itertools.islice(itertools.cycle(texts), count))
    return "self-written", demo_texts(count)


def demo_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of one to twelve self-written sentences each."""
    dice = random.Random(seed)
    return [
        " ".join(dice.choices(SENTENCES, k=min(dice.randint(1, 12), dice.randint(1, 12))))
        for _ in range(count)
    ]
