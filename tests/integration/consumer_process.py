"""A consumer in a process of its own: ``python -m tests.integration.consumer_process JSON``."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from kafka import KafkaProducer

from stream.settings import KafkaSettings, PipelineSettings
from stream.worker import Worker
from tests.integration.harness import DYING_PLACES, FakeModel


def die_inside(place: str, turn: int) -> None:
    """Have this process kill itself in its ``turn``-th commit, at a place in ``DYING_PLACES``."""
    method, is_after = DYING_PLACES[place]
    call, calls = getattr(KafkaProducer, method), itertools.count(1)

    def die(producer: KafkaProducer, *args: Any, **options: Any) -> Any:
        is_last = next(calls) == turn
        if is_last and not is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(producer, *args, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(KafkaProducer, method, die)


# Exit code of a consumer whose loop has ended by itself.
ENDED = 3


def main(argument: str) -> int:
    """Run until told to stop (0) or until the worker ends by itself (3)."""
    logging.basicConfig(level=logging.WARNING)
    wanted = json.loads(argument)
    if wanted["dies"] is not None:
        die_inside(*wanted["dies"])
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    worker = Worker(
        KafkaSettings(bootstrap_servers=wanted["bootstrap_servers"]),
        PipelineSettings.model_validate(wanted["pipeline"]),
        rank=wanted["rank"],
        client=FakeModel(delay_s=wanted["delay_s"]),
    )
    while not told.wait(0.1):
        if worker.state().ended:
            return ENDED
    return 0 if worker.stop(timeout_s=20, leave=True) else 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
