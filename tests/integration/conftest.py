"""Fixtures of the integration tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.broker import Broker
from tests.integration.harness import Bench


@pytest.fixture
def bench(broker: Broker) -> Iterator[Bench]:
    """Pipelines on the session's broker."""
    bench = Bench(broker.kafka)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def own_bench(own_broker: Broker) -> Iterator[Bench]:
    """Pipelines on a broker that the test may stop and kill.

    Such tests carry ``leaves_sockets``: the client forgets to close the sockets of refused
    connections, which the collector does; here, so that no other test is blamed.
    """
    bench = Bench(own_broker.kafka)
    try:
        yield bench
    finally:
        if not own_broker.process.is_running():
            own_broker.process.start()
        bench.close()
        gc.collect()
