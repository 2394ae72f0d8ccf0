"""Finds out why a broker refuses a connection, after the client has timed out.

The client drops the error that a broker sends just before it closes a connection, so a wrong
password looks like an unavailable broker; after an untrusted certificate it retries until its
timeout. Sockets here are plain and blocking, the requests are the client's own. One of the
adapters to the Kafka client.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from kafka import errors as kafka_errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from stream.tls import KeyLocked, load_chain

CHUNK_BYTES = 4096
# The connection ended midway, as when a broker stops.
GONE = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


class LoginRefused(kafka_errors.KafkaError):  # type: ignore[misc]  # the client has no types
    """A broker refuses the connection; the message has the reason and what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


class BrokerAddress(NamedTuple):
    """Address on which a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def check_login(
    servers: list[BrokerAddress], options: Mapping[str, Any], *, timeout_s: float
) -> None:
    """Log in to the first reachable server; do nothing if none is reachable.

    Args:
        options: Client options ``security_protocol``, ``ssl_*`` and ``sasl_*``.
        timeout_s: Timeout for all servers together.
    Raises:
        LoginRefused: The login, the certificate or a local file is wrong. Not retriable.
    """
    ends = time.monotonic() + timeout_s
    for server in servers:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            return
        try:
            _log_in(server, options, timeout_s=left_s)
        except ssl.SSLError as exc:
            if not isinstance(exc, GONE):
                raise LoginRefused(_tls_refusal(server, exc)) from exc
        except (OSError, ValueError):
            continue  # unavailable, or another protocol: the caller reports that
        else:
            return


def _log_in(server: BrokerAddress, options: Mapping[str, Any], *, timeout_s: float) -> None:
    protocol = options["security_protocol"]
    context = _tls(options) if protocol.endswith("SSL") else None
    connection = socket.create_connection(server, timeout=timeout_s)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname=server.host)
    with closing(connection):
        conversation = _Conversation(connection)
        if protocol.startswith("SASL"):
            _authenticate(conversation, server, options)
        else:
            # A broker that requires a client certificate reports it only with its first answer.
            conversation.ask(ApiVersionsRequest(version=0))


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return a TLS context like the client's: trusted authorities and own certificate."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = options["ssl_check_hostname"]
        if options["ssl_cafile"]:
            context.load_verify_locations(options["ssl_cafile"])
        else:
            context.load_default_certs()
        if options["ssl_certfile"]:
            password = options["ssl_password"] or None
            load_chain(context, options["ssl_certfile"], options["ssl_keyfile"], password)
    except KeyLocked as exc:
        raise LoginRefused(f"{exc}: set ssl_password") from exc
    except OSError as exc:
        names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        files = ", ".join(f"{name} {options[name]}" for name in names if options[name])
        raise LoginRefused(f"{files} cannot be used: {exc}") from exc
    return context


def _authenticate(
    conversation: _Conversation, server: BrokerAddress, options: Mapping[str, Any]
) -> None:
    name, user = options["sasl_mechanism"], options["sasl_plain_username"]
    answer = conversation.ask(SaslHandshakeRequest(mechanism=name, version=1))
    if answer.error_code:
        offered = ", ".join(answer.mechanisms)
        other = f"set sasl_mechanism to {offered}"
        none = f"set security_protocol to {options['security_protocol'].removeprefix('SASL_')}"
        raise LoginRefused(f"{server} accepts no login by {name}: {other if offered else none}")
    mechanism = get_sasl_mechanism(name)(host=server.host, **options)
    while not mechanism.is_done():
        answer = conversation.ask(SaslAuthenticateRequest(mechanism.auth_bytes(), version=1))
        if answer.error_code:
            raise LoginRefused(
                f"{server} does not let {user} in: {answer.error_message}. Check sasl_username "
                "and sasl_password"
            )
        mechanism.receive(answer.auth_bytes)


class _Conversation:
    """Alternating requests and answers on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._protocol = KafkaProtocol(client_id="bertstream-login")

    def ask(self, request: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            OSError: The connection ended or timed out.
        """
        self._protocol.send_request(request)
        self._connection.sendall(self._protocol.send_bytes())
        answers: list[Any] = []
        while not answers:
            chunk = self._connection.recv(CHUNK_BYTES)
            if not chunk:
                raise ConnectionResetError("the broker closed the connection")
            answers = self._protocol.receive_bytes(chunk)
        return answers[0][1]


def _tls_refusal(server: BrokerAddress, exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {server} is not trusted: {exc.verify_message}. Set ssl_cafile to "
            "its authority's, and in bootstrap_servers name the broker as the certificate does"
        )
    return f"{server} accepts no TLS connection: {exc}. Check security_protocol and ssl_*"
