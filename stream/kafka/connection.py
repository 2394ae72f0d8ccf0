"""Shared by all adapters to the Kafka client: its options, and the mapping of its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.net import KafkaConnectionManager, KafkaNetClient, NetworkSelector

from stream.errors import BrokerRefused, BrokerUnreachable, Fenced, StreamError
from stream.kafka.login import BrokerAddress, LoginRefused, check_login
from stream.settings import KafkaSettings

# A retried request always sleeps this long: with the client's default, every transaction that meets
# the end of the previous one (CONCURRENT_TRANSACTIONS) would wait 100 ms.
RETRY_BACKOFF_MS = 20
# A broker that is available again is noticed within this; the client's default is 30 s.
RECONNECT_BACKOFF_MAX_MS = 1_000
REQUEST_TIMEOUT_MS = 10_000
BOOTSTRAP_TIMEOUT_MS = 10_000
LOGIN_TIMEOUT_S = 3.0
# Partitions that are added to a topic are noticed within this.
METADATA_MAX_AGE_MS = 10_000
# A thread that waits for a broker's answer can be woken, one in a name lookup cannot.
PRODUCER_END_S = 2.0

logger = logging.getLogger(__name__)

REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.AuthorizationError,
    kafka_errors.UnsupportedSaslMechanismError,
)
# The epoch is no longer valid: a successor has started, or the broker has fenced this producer.
# Creating another producer would fence the successor's, and then both would stop.
FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.InvalidProducerEpochError,
)
HINTS = {
    kafka_errors.InconsistentGroupProtocolError: "another application is in the consumer group of "
    "the pipeline's name: stop it, or rename the pipeline",
    kafka_errors.FencedInstanceIdError: "another process has replaced this member: a successor, or "
    "a pipeline of the same name in another installation",
}


def common_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return options for any client: connection, retries and timeouts."""
    return kafka.client_options() | {
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "allow_auto_create_topics": False,
        "kafka_client": _client,
    }


def _client(**options: Any) -> KafkaNetClient:
    """Return the client's network part, with our ``bootstrap``."""
    net = NetworkSelector(**options)
    return KafkaNetClient(net=net, manager=_Connections(net, **options))


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # the client has no types
    """The client's connections; one that fails raises the reason and leaves nothing open."""

    def __init__(self, net: NetworkSelector, **options: Any) -> None:
        super().__init__(net, **options)
        self._selector = net

    def bootstrap(self, *args: Any, **options: Any) -> None:
        """Make the first connection, as the client does.

        Raises:
            LoginRefused: The client has timed out for this reason. Not retriable.
        """
        try:
            super().bootstrap(*args, **options)
        except kafka_errors.KafkaTimeoutError:
            # The client closes neither of them when its constructor fails.
            self.close()
            self._selector.close()
            if self.config["security_protocol"] != "PLAINTEXT":
                servers = [BrokerAddress(b.host, b.port) for b in self.cluster.bootstrap_brokers()]
                check_login(servers, self.config, timeout_s=LOGIN_TIMEOUT_S)
            raise


def end_producer(producer: KafkaProducer) -> None:
    """Close a producer; records that the broker has not acknowledged are abandoned.

    The client's own ``close`` stops at an unanswered record and leaves its thread running, which
    would later send what a successor has sent meanwhile. So that thread is ended first.
    """
    producer._sender.force_close()
    producer._sender.join(PRODUCER_END_S)
    try:
        producer.close(timeout=0)
    except kafka_errors.KafkaError as exc:
        logger.warning("a producer's thread has not ended within %g s: %s", PRODUCER_END_S, exc)


@contextmanager
def broker_errors(doing: str, otherwise: type[StreamError] = BrokerUnreachable) -> Iterator[None]:
    """Raise the client's errors as errors of this package.

    Args:
        doing: The operation and its target, for the message.
        otherwise: Class of errors that are neither a refusal nor fencing.
    Raises:
        BrokerRefused: The broker refused login, TLS or a permission. Not retriable.
        Fenced: Another process has the same transactional id or group instance. Not retriable.
        StreamError: Any other error, as ``otherwise``.
    """
    try:
        yield
    except kafka_errors.KafkaConfigurationError:
        raise  # options that the client refuses are a bug in this code
    except LoginRefused as exc:
        raise BrokerRefused(f"{doing}: {exc}") from exc
    except kafka_errors.KafkaError as exc:
        if _is_caused_by(exc, FENCED):
            raise Fenced(f"{doing}: {exc}{_hint(exc)}") from exc
        if _is_caused_by(exc, REFUSALS):
            raise BrokerRefused(
                f"{doing}: the broker refuses: {exc}. Check security_protocol, sasl_* and ssl_* "
                "under kafka, and the user's permissions."
            ) from exc
        raise otherwise(f"{doing}: {exc}{_hint(exc)}") from exc


def _hint(exc: BaseException) -> str:
    """Return what an error means here, if the client's message does not explain it."""
    found = (hint for kind, hint in HINTS.items() if _is_caused_by(exc, (kind,)))
    return next((f"; {hint}" for hint in found), "")


def _is_caused_by(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Return whether an error is of one of the kinds, or contains such an error.

    After the first error of a transaction, every call of the client raises a general error, with
    the first one among its arguments.
    """
    if isinstance(exc, kinds) or any(isinstance(argument, kinds) for argument in exc.args):
        return True
    return exc.__cause__ is not None and _is_caused_by(exc.__cause__, kinds)
