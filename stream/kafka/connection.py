"""What all three doors to the Kafka client share: its timeouts, and its errors in our words."""

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

# A retried request sleeps this long whole: every transaction that meets the tail of the one
# before (CONCURRENT_TRANSACTIONS) would pay the client's default of 100 ms.
RETRY_BACKOFF_MS = 20
# A broker that comes back is noticed within this, not within the client's default of 30 s.
RECONNECT_BACKOFF_MAX_MS = 1_000
REQUEST_TIMEOUT_MS = 10_000
BOOTSTRAP_TIMEOUT_MS = 10_000
LOGIN_TIMEOUT_S = 3.0
# Partitions that are added to a topic are found within this.
METADATA_MAX_AGE_MS = 10_000
# A thread that waits for a broker to answer is woken; one that looks up a name is not.
PRODUCER_END_S = 2.0

logger = logging.getLogger(__name__)

REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.AuthorizationError,
    kafka_errors.UnsupportedSaslMechanismError,
)
# An epoch that is not valid any more: a successor has begun, or the broker has given this producer
# up. Building another producer would end that successor's, and then both would stop.
FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.InvalidProducerEpochError,
)
HINTS = {
    kafka_errors.InconsistentGroupProtocolError: "another application is in the consumer group of "
    "the pipeline's name: end it, or give the pipeline another name",
    kafka_errors.FencedInstanceIdError: "another process has joined in its place: a successor, or "
    "a pipeline of the same name of another installation",
}


def common_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Options for any client: connection, retries and timeouts."""
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
    """The client's part that connects, with our way of connecting first."""
    net = NetworkSelector(**options)
    return KafkaNetClient(net=net, manager=_Connections(net, **options))


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # the client has no types
    """The client's connections; those that cannot be made say why and leave nothing behind."""

    def __init__(self, net: NetworkSelector, **options: Any) -> None:
        super().__init__(net, **options)
        self._selector = net

    def bootstrap(self, *args: Any, **options: Any) -> None:
        """Connect first, as the client does.

        Raises:
            LoginRefused: The client has tried until its time was over, and this is why.
        """
        try:
            super().bootstrap(*args, **options)
        except kafka_errors.KafkaTimeoutError:
            # The client forgets both where it is given up before it was complete.
            self.close()
            self._selector.close()
            if self.config["security_protocol"] != "PLAINTEXT":
                servers = [BrokerAddress(b.host, b.port) for b in self.cluster.bootstrap_brokers()]
                check_login(servers, self.config, timeout_s=LOGIN_TIMEOUT_S)
            raise


def end_producer(producer: KafkaProducer) -> None:
    """Close a producer; what the broker has not acknowledged is abandoned.

    The client's own ``close`` gives up at a record without an answer and leaves its thread at
    work, which would send later what a successor has sent meanwhile: so that thread ends first.
    """
    producer._sender.force_close()
    producer._sender.join(PRODUCER_END_S)
    try:
        producer.close(timeout=0)
    except kafka_errors.KafkaError as exc:
        logger.warning("a producer's thread has not ended in %g s: %s", PRODUCER_END_S, exc)


@contextmanager
def broker_errors(doing: str, otherwise: type[StreamError] = BrokerUnreachable) -> Iterator[None]:
    """Raise the client's errors as ours.

    Args:
        doing: What was tried and where, for the message.
        otherwise: What an error becomes that is neither a refusal nor fencing.
    Raises:
        BrokerRefused: Login, TLS or permission. Not retriable.
        Fenced: Another holds the same transactional id or group instance. Not retriable.
        StreamError: ``otherwise``.
    """
    try:
        yield
    except kafka_errors.KafkaConfigurationError:
        raise  # settings that the client refuses are a mistake of this code
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
    """What an error means here, where the client's words do not say it."""
    found = (hint for kind, hint in HINTS.items() if _is_caused_by(exc, (kind,)))
    return next((f"; {hint}" for hint in found), "")


def _is_caused_by(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether an error is of a kind, or carries one that is.

    After the first error of a transaction the client raises a general one at every call, and
    puts the first among its arguments.
    """
    if isinstance(exc, kinds) or any(isinstance(argument, kinds) for argument in exc.args):
        return True
    return exc.__cause__ is not None and _is_caused_by(exc.__cause__, kinds)
