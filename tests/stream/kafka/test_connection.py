"""The client is whole, and its errors come in our words, also where it hides them."""

from __future__ import annotations

import crc32c
import pytest
from kafka import errors as kafka_errors
from kafka.record import util

from stream.errors import BrokerRefused, BrokerUnreachable, CommitFailed, Fenced, StreamError
from stream.kafka.connection import broker_errors

FENCED = kafka_errors.ProducerFencedError()


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        (FENCED, Fenced),
        (kafka_errors.FencedInstanceIdError(), Fenced),
        (kafka_errors.InvalidProducerEpochError(), Fenced),
        (kafka_errors.KafkaError("a previous request has failed", FENCED), Fenced),
        (kafka_errors.TopicAuthorizationFailedError(), BrokerRefused),
        (
            kafka_errors.KafkaError("failed", kafka_errors.SaslAuthenticationFailedError()),
            BrokerRefused,
        ),
        (kafka_errors.KafkaTimeoutError("late"), BrokerUnreachable),
        (kafka_errors.KafkaError("anything else"), BrokerUnreachable),
    ],
)
def test_error_is_told_in_our_words(raised: Exception, ours: type[StreamError]) -> None:
    with pytest.raises(ours, match="doing it") as caught, broker_errors("doing it"):
        raise raised
    assert type(caught.value) is ours


def test_cause_is_looked_at_too() -> None:
    with pytest.raises(Fenced), broker_errors("doing it", CommitFailed):
        raise kafka_errors.KafkaError("wrapped") from FENCED


def test_client_has_the_fast_checksum() -> None:
    """Without it, the client computes every byte's in Python and reads a quarter as much."""
    assert util.crc32c_c is crc32c.crc32c


def test_other_errors_become_what_the_caller_says() -> None:
    with pytest.raises(CommitFailed), broker_errors("doing it", CommitFailed):
        raise kafka_errors.KafkaError("lost")
