"""A consumer in a process of its own: ``python -m tests.integration.consumer_process JSON``."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading

from stream.settings import KafkaSettings, PipelineSettings
from stream.worker import Worker
from tests.integration.harness import FakeModel


def main(argument: str) -> int:
    """Run until told to stop (0) or until the worker ends by itself (3)."""
    logging.basicConfig(level=logging.WARNING)
    wanted = json.loads(argument)
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
            return 3
    return 0 if worker.stop(timeout_s=20, leave=True) else 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
