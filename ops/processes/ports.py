"""Checks ports of this machine: whether one is free, and whether Kafka answers on it."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from pathlib import Path

from ops.errors import PortTaken

HOST = "127.0.0.1"
# Below the ports that systems give to outgoing connections (32768 on Linux, 49152 on macOS)
# and above Ray's workers (10002 to 19999): it stays free while the broker is down.
PORT_RANGE = range(20_000, 32_000)
PORT_ATTEMPTS = 100
# A request of Kafka's protocol that any client may send before it logs in: its length, key 18
# (ApiVersions), version 0, a correlation id that the reply repeats, no client id.
CORRELATION_ID = 0x62657274
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, CORRELATION_ID, -1)
ANSWER_HEAD_BYTES = 8


def can_listen(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback interface now."""
    with socket.socket() as candidate:
        # As servers do, so that closed connections that linger do not matter.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
            candidate.listen()
        except OSError:
            return False
    return True


def free_port() -> int:
    """Choose a free port at random within ``PORT_RANGE``.

    Raises:
        PortTaken: None of those tried was free. Not retriable.
    """
    for port in random.sample(PORT_RANGE, PORT_ATTEMPTS):
        if can_listen(port):
            return port
    raise PortTaken(f"no free port found between {PORT_RANGE.start} and {PORT_RANGE.stop - 1}")


def kafka_answers(port: int, ca_file: Path | None, *, timeout_s: float = 2.0) -> bool:
    """Request the API versions and return whether a reply came.

    Args:
        port: Port of the clients' listener.
        ca_file: PEM of the authority, if the listener uses TLS.
        timeout_s: For the connection and for each part of the reply.
    """
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as plain:
            if ca_file is None:
                return _api_versions(plain)
            context = ssl.create_default_context(cafile=ca_file)
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                return _api_versions(secured)
    except OSError:
        return False


def _api_versions(connection: socket.socket) -> bool:
    connection.sendall(API_VERSIONS)
    head = b""
    while len(head) < ANSWER_HEAD_BYTES:
        part = connection.recv(ANSWER_HEAD_BYTES - len(head))
        if not part:
            return False
        head += part
    return head[4:] == struct.pack(">i", CORRELATION_ID)  # after the length
