"""Tells the consumers topic how a consumer stands, beside the loop: a loop that hangs, or waits
for a route or a model, commits no telemetry.

Knows no Kafka client: a producer comes from a factory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from stream.control import ControlProducer
from stream.errors import StreamError
from stream.schema import ConsumerRecord
from stream.topics import CONSUMERS_TOPIC

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S = 5.0


class Producer(ControlProducer, Protocol):
    """Sends single records."""

    def close(self) -> None:
        """End the connection."""
        ...


class Heartbeat:
    """Sends a record every few seconds until stopped; a broker that is away is tried again."""

    def __init__(
        self,
        state: Callable[[], ConsumerRecord],
        producer_factory: Callable[[], Producer],
        *,
        interval_s: float,
    ) -> None:
        """Start at once.

        Args:
            state: How the consumer stands; from any thread.
            producer_factory: Connects; StreamError where it cannot.
            interval_s: Between two records.
        """
        self._state = state
        self._factory = producer_factory
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = SEND_TIMEOUT_S) -> bool:
        """Send how it ended, and end; False where that took too long."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        producer: Producer | None = None
        last = False
        while not last:
            last = self._stopping.is_set()
            try:
                producer = producer or self._factory()
                self._beat(producer)
            except StreamError as exc:
                # Whoever reads sees that nothing comes; the loop tells its own trouble.
                logger.debug("no heartbeat: %s", exc)
                if producer is not None:
                    producer.close()
                producer = None
            if not last:
                self._stopping.wait(self._interval_s)
        if producer is not None:
            producer.close()

    def _beat(self, producer: Producer) -> None:
        record = self._state()
        producer.send_and_wait(
            CONSUMERS_TOPIC,
            key=f"{record.pipeline}/{record.consumer}".encode(),
            value=record.to_bytes(),
            timeout_s=SEND_TIMEOUT_S,
        )
