"""Brokers that do not let us in say why; those that are away are left to the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stream.errors import BrokerRefused
from stream.kafka import connection
from stream.kafka.admin import Admin
from stream.kafka.connection import common_options
from stream.kafka.login import BrokerAddress, LoginRefused, check_login
from stream.kafka.sink import PlainProducer
from stream.kafka.topic_io import read_topic
from stream.settings import KafkaSettings
from tests.broker import Broker
from tests.certificates import write_certificates

pytestmark = pytest.mark.kafka

DEADLINE_S = 20.0
WRONG_PASSWORD = {"sasl_password": SecretStr("not-the-one")}


def server(kafka: KafkaSettings) -> BrokerAddress:
    host, _, port = kafka.bootstrap_servers.partition(":")
    return BrokerAddress(host, int(port))


def options(kafka: KafkaSettings) -> dict[str, Any]:
    unset = dict.fromkeys(("ssl_cafile", "ssl_certfile", "ssl_keyfile"))
    return unset | common_options(kafka)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (WRONG_PASSWORD, "does not let app in: .*Check sasl_username and sasl_password"),
        ({"sasl_username": "nobody"}, "does not let nobody in"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "set sasl_mechanism to SCRAM-SHA-512"),
        ({"ssl_cafile": "other.pem"}, "certificate of 127.0.0.1:.* is not trusted.*ssl_cafile"),
        ({"ssl_cafile": "none.pem"}, "ssl_cafile .*none.pem cannot be used: .*No such file"),
        ({"ssl_cafile": "empty.pem"}, "ssl_cafile .*empty.pem cannot be used"),
    ],
)
def test_refusal_names_what_to_correct(
    secure_broker: Broker, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    write_certificates(tmp_path).ca.rename(tmp_path / "other.pem")
    (tmp_path / "empty.pem").touch()
    if "ssl_cafile" in change:
        change = {"ssl_cafile": tmp_path / change["ssl_cafile"]}
    wrong = secure_broker.kafka.model_copy(update=change)
    with pytest.raises(LoginRefused, match=told) as caught:
        check_login([server(wrong)], options(wrong), timeout_s=DEADLINE_S)
    assert "not-the-one" not in str(caught.value)


def test_right_login_and_absent_brokers_are_passed_over(secure_broker: Broker) -> None:
    right, away = secure_broker.kafka, BrokerAddress("127.0.0.1", 1)
    check_login([server(right)], options(right), timeout_s=DEADLINE_S)
    wrong = right.model_copy(update=WRONG_PASSWORD)
    check_login([away], options(wrong), timeout_s=DEADLINE_S)
    with pytest.raises(LoginRefused):
        check_login([away, server(wrong)], options(wrong), timeout_s=DEADLINE_S)


def test_server_that_never_answers_costs_no_more_than_the_timeout(secure_broker: Broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = [BrokerAddress(*silent.getsockname())] * 100
        check_login(servers, options(secure_broker.kafka), timeout_s=0.2)


def test_login_where_none_is_wanted(broker: Broker, secure_broker: Broker) -> None:
    servers = {"bootstrap_servers": broker.bootstrap_servers}
    wrong = secure_broker.kafka.model_copy(update=servers | {"security_protocol": "SASL_PLAINTEXT"})
    with pytest.raises(LoginRefused, match="set security_protocol to PLAINTEXT"):
        check_login([server(wrong)], options(wrong), timeout_s=DEADLINE_S)


@pytest.mark.parametrize(
    "connect",
    [
        lambda kafka: Admin(kafka, deadline_s=1.0),
        PlainProducer,
        lambda kafka: next(read_topic(kafka, "any", from_beginning=True)),
    ],
    ids=["admin", "producer", "consumer"],
)
def test_every_client_is_refused_and_leaves_no_thread(
    secure_broker: Broker, monkeypatch: pytest.MonkeyPatch, connect: Callable[[KafkaSettings], Any]
) -> None:
    monkeypatch.setattr(connection, "BOOTSTRAP_TIMEOUT_MS", 500)
    before = threading.active_count()
    with pytest.raises(BrokerRefused, match="does not let app in"):
        connect(secure_broker.kafka.model_copy(update=WRONG_PASSWORD))
    assert threading.active_count() == before
