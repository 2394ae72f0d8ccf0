"""Follows the pipelines' reports on Kafka from a given time on."""

from __future__ import annotations

import logging
import threading
import time

from ops.telemetry.observations import Observations
from stream.errors import StreamError
from stream.kafka.readers import TelemetryReader
from stream.settings import KafkaSettings

logger = logging.getLogger(__name__)

RETRY_S = 1.0
# Reports arrive at once; this only bounds how late the end is noticed.
POLL_S = 2.0


def follow(kafka: KafkaSettings, into: Observations, since_ms: int, stop: threading.Event) -> None:
    """Read the pipelines' reports until ``stop`` is set; resume from the last read on errors."""
    while not stop.is_set():
        try:
            reader = TelemetryReader(kafka, since_ms=since_ms)
        except StreamError as exc:
            logger.warning("telemetry cannot be read, retrying: %s", exc)
            stop.wait(RETRY_S)
            continue
        try:
            while not stop.is_set():
                into.add(reader.poll(POLL_S))
                into.is_current = into.is_current or reader.has_caught_up()
                since_ms = int(time.time() * 1000)
        except StreamError as exc:
            logger.warning("telemetry cannot be read, retrying: %s", exc)
        finally:
            reader.close()
