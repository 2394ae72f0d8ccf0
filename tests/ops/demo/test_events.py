"""The demonstration's events: many, varied, a few bad, and the same every time."""

from __future__ import annotations

import json
from collections import Counter

from ops.demo.events import BAD, events
from serve.contract import CallOptions, Failure
from serve.reading import Reader
from serve.task import Input


def test_events_are_varied_and_only_the_bad_ones_cannot_be_read() -> None:
    made = list(events(2_400, 7))
    texts = [json.loads(event.value)["text"] for event in made if not event.is_bad]  # type: ignore[arg-type]
    assert len(set(texts)) > 0.9 * len(texts)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 8
    assert max(lengths) >= 200
    assert len({event.key for event in made}) > 100
    reader = Reader(CallOptions(), [Input("text")])
    for event in made:
        unreadable = event.value is None or isinstance(reader.read(event.value), Failure)
        assert unreadable == event.is_bad


def test_every_kind_of_bad_event_occurs() -> None:
    bad = Counter(event.value for event in events(2_400, 7) if event.is_bad)
    assert set(bad) == set(BAD)


def test_same_seed_same_events() -> None:
    assert list(events(300, 1)) == list(events(300, 1))
    assert list(events(300, 1)) != list(events(300, 2))
