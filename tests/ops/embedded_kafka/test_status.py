"""What is told of the embedded Kafka, running and not."""

from __future__ import annotations

import psutil
import pytest

from ops.cli.status_tables import broker_lines
from ops.embedded_kafka.status import broker_status
from tests.broker import Broker

MIB = 2**20

pytestmark = pytest.mark.kafka


def test_running_broker_is_told_with_its_process_and_then_its_end(own_broker: Broker) -> None:
    now = broker_status(own_broker.process)
    assert now.running
    assert now.bootstrap_servers == own_broker.bootstrap_servers
    assert now.pid is not None
    assert psutil.Process(now.pid).name() == "java"
    assert now.memory_bytes is not None
    assert 100 * MIB < now.memory_bytes < 2_000 * MIB
    assert f"{now.memory_bytes / MIB:.0f} MiB" in broker_lines(now)
    own_broker.process.stop()
    after = broker_status(own_broker.process)
    assert (after.running, after.pid, after.memory_bytes) == (False, None, None)
    assert after.bootstrap_servers == own_broker.bootstrap_servers
    assert "not running" in broker_lines(after)
