"""The embedded broker against real clients: one life, several lives, and unkind ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from pydantic import SecretStr, ValidationError

from ops.embedded_kafka import broker_config
from ops.embedded_kafka.broker import EmbeddedBroker, cluster_id
from ops.embedded_kafka.broker_config import BrokerSettings
from ops.errors import BrokerNotStarted, BrokerStartFailed, PortTaken
from ops.processes.ports import free_port, kafka_answers
from tests.broker import Broker, NewTopic, processes_of, running_broker

pytestmark = pytest.mark.kafka


def produce(broker: Broker, topic: str, values: list[bytes]) -> None:
    with KafkaProducer(**broker.kafka.client_options()) as producer:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(timeout=20)


def consume(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(auto_offset_reset="earliest", **broker.kafka.client_options())
    consumer.assign([TopicPartition(topic, 0)])
    values: list[bytes] = []
    ends = time.monotonic() + 20
    while len(values) < count and time.monotonic() < ends:
        for records in consumer.poll(timeout_ms=500).values():
            values += [record.value for record in records]
    consumer.close()
    return values


def test_no_cluster_id_looks_like_an_option() -> None:
    ids = {cluster_id(UUID(bytes=bytes([first]) + bytes(15))) for first in range(256)}
    assert {len(one) for one in ids} == {22}
    assert not any(one.startswith("-") for one in ids)


def test_records_come_back(broker: Broker, topic_name: NewTopic) -> None:
    topic = broker.create_topic(topic_name())
    produce(broker, topic, [b"one", b"two"])
    assert consume(broker, topic, 2) == [b"one", b"two"]


def test_a_running_broker_is_left_alone(own_broker: Broker) -> None:
    pid = own_broker.process.pid
    again = EmbeddedBroker(own_broker.process.settings)
    assert again.start() == own_broker.bootstrap_servers
    assert again.pid == pid


def test_stop_and_kill_keep_port_and_records(own_broker: Broker) -> None:
    topic = own_broker.create_topic("kept")
    for number, end in enumerate((own_broker.process.stop, own_broker.process.kill)):
        produce(own_broker, topic, [b"%d" % number])
        end()
        assert not own_broker.process.is_running()
        assert own_broker.process.start() == own_broker.bootstrap_servers
        assert consume(own_broker, topic, number + 1) == [b"%d" % n for n in range(number + 1)]


def test_it_is_found_and_ended_by_another_process(own_broker: Broker) -> None:
    settings = own_broker.process.settings
    code = (
        "import sys, pathlib; from ops.embedded_kafka.broker import EmbeddedBroker\n"
        "from ops.embedded_kafka.broker_config import BrokerSettings\n"
        "EmbeddedBroker(BrokerSettings(data_dir=pathlib.Path(sys.argv[1]))).stop()"
    )
    subprocess.run([sys.executable, "-c", code, str(settings.data_dir)], check=True, timeout=120)
    assert not own_broker.process.is_running()
    assert processes_of(settings.data_dir) == []


def test_it_is_in_a_session_of_its_own(own_broker: Broker) -> None:
    pid = own_broker.process.pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)


def test_its_process_carries_the_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTSTREAM_INSTANCE", "marked")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1m")
    with running_broker(BrokerSettings(data_dir=tmp_path / "marked")) as marked:
        environment = psutil.Process(marked.process.pid).environ()
    assert environment["BERTSTREAM_INSTANCE"] == "marked"
    assert "JAVA_TOOL_OPTIONS" not in environment


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
        taken = EmbeddedBroker(BrokerSettings(data_dir=tmp_path / "taken", port=port))
        with pytest.raises(PortTaken, match=rf"port {port}.*set another port"):
            taken.start()
        assert not kafka_answers(port, None, timeout_s=0.2)
    assert processes_of(tmp_path) == []


def test_a_stale_pid_is_no_broker(tmp_path: Path) -> None:
    broker = EmbeddedBroker(BrokerSettings(data_dir=tmp_path))
    stale = f'{{"port": {free_port()}, "pid": {os.getpid()}, "created": 1.0}}'
    (tmp_path / "broker.json").write_text(stale)
    assert not broker.is_running()
    broker.stop()  # and does not end the process that has the number now
    assert broker.pid is None


def test_a_death_at_start_shows_the_log(tmp_path: Path) -> None:
    data = tmp_path / "broken" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=99\n")
    broken = EmbeddedBroker(BrokerSettings(data_dir=tmp_path / "broken"))
    with pytest.raises(
        BrokerStartFailed, match=r"(?s)died during startup.*meta.properties.*broker.log"
    ):
        broken.start()
    broken.stop()


def test_no_address_before_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(BrokerNotStarted, match=str(tmp_path)):
        _ = EmbeddedBroker(BrokerSettings(data_dir=tmp_path)).bootstrap_servers


def test_login_and_tls(secure_broker: Broker, topic_name: NewTopic) -> None:
    topic = secure_broker.create_topic(topic_name())
    produce(secure_broker, topic, [b"secret"])
    assert consume(secure_broker, topic, 1) == [b"secret"]


def test_a_wrong_password_is_refused(secure_broker: Broker) -> None:
    right = secure_broker.kafka
    KafkaAdminClient(**right.client_options()).close()
    wrong = right.model_copy(update={"sasl_password": SecretStr("not-the-one")})
    # Not SaslAuthenticationFailedError: the client tries again until its time is over.
    with pytest.raises(KafkaTimeoutError):
        KafkaAdminClient(**wrong.client_options(), bootstrap_timeout_ms=1_500)


def test_plaintext_is_refused_where_tls_is_wanted(secure_broker: Broker) -> None:
    port = int(secure_broker.bootstrap_servers.rpartition(":")[2])
    assert kafka_answers(port, secure_broker.kafka.ssl_cafile)
    assert not kafka_answers(port, None)


def test_the_file_with_the_password_is_private(secure_broker: Broker) -> None:
    config = secure_broker.process.settings.data_dir / "server.properties"
    assert "app-secret-1" in config.read_text()
    assert config.stat().st_mode & 0o077 == 0


def test_sasl_ssl_wants_users_and_certificates(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="also needs users, keystore_file and ca_file"):
        BrokerSettings(data_dir=tmp_path, security="sasl_ssl")


def test_what_happened_years_ago_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention counts a record's age from its own time: events of 2019 were gone unread."""
    often = {"log.retention.check.interval.ms": "200", "log.initial.task.delay.ms": "100"}
    monkeypatch.setattr(broker_config, "PROPERTIES", {**broker_config.PROPERTIES, **often})
    with running_broker(BrokerSettings(data_dir=tmp_path / "retention")) as own:
        topic = own.create_topic("events")
        short = own.create_topic("short", retention_ms="1000")
        with KafkaProducer(**own.kafka.client_options()) as producer:
            for name in (topic, short):
                producer.send(name, b"event", timestamp_ms=1_546_300_800_000).get(timeout=20)
        consumer = KafkaConsumer(**own.kafka.client_options())
        events, shorts = TopicPartition(topic, 0), TopicPartition(short, 0)
        ends = time.monotonic() + 60
        while consumer.beginning_offsets([shorts])[shorts] == 0:
            assert time.monotonic() < ends, "the broker deletes nothing at all"
        # Both are looked at in one round, in no order that is promised: the next one has been.
        with KafkaProducer(**own.kafka.client_options()) as producer:
            producer.send(short, b"event", timestamp_ms=1_546_300_800_000).get(timeout=20)
        while consumer.beginning_offsets([shorts])[shorts] == 1:
            assert time.monotonic() < ends, "the broker deletes nothing any more"
        assert consumer.beginning_offsets([events])[events] == 0
        consumer.close()
