"""Events for the demonstration, combined at random from phrases that are written here.

The same count and seed give the same events.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import orjson

USERS = 200
BAD_EVERY = 80
THINGS = (
    "the kettle",
    "this backpack",
    "the hotel room",
    "the second volume",
    "the update",
    "my new headset",
    "the soup of the day",
    "the ferry ride",
    "this drill",
    "the language course",
    "the winter jacket",
    "the support line",
    "the garden chair",
    "the train app",
    "the cheese plate",
    "the night lamp",
    "the bicycle lock",
    "the city tour",
    "this spreadsheet",
    "the coffee mill",
)
PRAISE = (
    "works better than I had hoped",
    "made my whole week",
    "is worth every cent",
    "arrived early and in perfect shape",
    "feels solid and well thought out",
    "surprised us in the best way",
    "is exactly what we were looking for",
    "has become part of every morning",
    "was a joy from the first minute",
    "saved us hours of work",
    "is quiet, quick and easy to clean",
    "tasted wonderful",
)
BLAME = (
    "broke on the second day",
    "was a waste of money",
    "never did what the box promises",
    "arrived late and scratched",
    "feels cheap and falls apart",
    "made us regret the whole trip",
    "crashes whenever it matters",
    "smelled so bad that we sent it back",
    "was cold, bland and far too expensive",
    "cost us an evening and our patience",
    "is loud, slow and a pain to clean",
    "was ignored by everyone we asked for help",
)
OPENERS = (
    "Honestly,",
    "After three weeks,",
    "To be fair,",
    "My sister and I agree:",
    "Short version:",
    "For the record,",
    "I rarely write reviews, but",
    "As a regular customer I can say that",
    "Compared with the one before,",
    "Two friends warned me;",
    "On a rainy Tuesday",
)
ASIDES = (
    "We used it twice a day and took notes.",
    "The manual is short and has pictures.",
    "My neighbour asked where we had bought it.",
    "It stood by the window most of the time.",
    "The children had opinions of their own about it.",
    "Delivery took four days this time.",
    "I paid with a voucher from last spring.",
    "There was a queue, as there always is.",
    "The colour is a little darker than in the picture.",
    "We will see how it does in winter.",
)
CLOSERS = {
    True: ("I would buy it again.", "Warmly recommended.", "Thank you!", "Five stars from us."),
    False: ("Never again.", "I want my money back.", "Stay away.", "One star is one too many."),
}
BAD = (
    b"this line is no JSON at all",
    b'{"id": "no-text", "user": "u1"}',
    b'{"id": "wrong-type", "text": 42}',
    b'{"id": "empty", "text": "   "}',
    None,
    b'{"id": "bytes", "text": "\xff\xfe"}',
)


class DemoEvent(NamedTuple):
    """One record to produce.

    Attributes:
        key: Name of the user.
        value: JSON with ``id``, ``user`` and ``text``; None for a tombstone.
        is_bad: True if it has no prediction and becomes a dead letter.
    """

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    is_bad: bool


def events(count: int, seed: int) -> Iterator[DemoEvent]:
    """Yield events of three to some hundred words, one in ``BAD_EVERY`` of them bad."""
    chance = random.Random(seed)
    for number in range(count):
        key = f"user-{chance.randrange(USERS):03d}"
        headers = [("demo-number", str(number).encode())]
        if number % BAD_EVERY == BAD_EVERY - 1:
            value = BAD[number // BAD_EVERY % len(BAD)]
            yield DemoEvent(key.encode(), value, headers, is_bad=True)
            continue
        content = {"id": f"event-{number:05d}", "user": key, "text": _text(chance)}
        yield DemoEvent(key.encode(), orjson.dumps(content), headers, is_bad=False)


def _text(chance: random.Random) -> str:
    """Return one opinion; most are a sentence or two, some are much longer."""
    praises = chance.random() < 0.5
    opinions = PRAISE if praises else BLAME
    if chance.random() < 0.15:
        return f"{chance.choice(THINGS)} {chance.choice(opinions)}"
    sentences = []
    for _ in range(min(30, 1 + int(chance.expovariate(0.4)))):
        opening = f"{chance.choice(OPENERS)} " if chance.random() < 0.5 else ""
        thing = chance.choice(THINGS)
        subject = thing if opening else thing[0].upper() + thing[1:]
        sentences.append(f"{opening}{subject} {chance.choice(opinions)}.")
        if chance.random() < 0.5:
            sentences.append(chance.choice(ASIDES))
    sentences.append(chance.choice(CLOSERS[praises]))
    return " ".join(sentences)
