"""Sends a consumer's state to the consumers topic, in its own thread.

The loop cannot: while it hangs, or waits for a route or a model, it commits no telemetry. Does not
use a Kafka client: a producer comes from a factory.
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
        """Close the connection."""
        ...


class Heartbeat:
    """Sends a record every few seconds until stopped; retries while the broker is unavailable."""

    def __init__(
        self,
        state: Callable[[], ConsumerRecord],
        producer_factory: Callable[[], Producer],
        *,
        interval_s: float,
    ) -> None:
        """Start at once.

        Args:
            state: Returns the consumer's state; called from the heartbeat's thread.
            producer_factory: Connects; raises StreamError if it cannot.
            interval_s: Time between two records.
        """
        self._state = state
        self._factory = producer_factory
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = SEND_TIMEOUT_S) -> bool:
        """Send the final state and end; return False if that took too long."""
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
                # Readers notice missing heartbeats; the loop reports its own errors.
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
