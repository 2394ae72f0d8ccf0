"""Keys with a pass phrase: opened with the right one, else refused, and nobody is asked."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from stream.kafka.login import LoginRefused, _tls
from stream.settings import KafkaSettings
from stream.tls import KeyLocked, fault_of, load_chain
from tests.certificates import write_certificates

SECRET = "open sesame"


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A certificate with a key that has a pass phrase, in one file."""
    file = write_certificates(tmp_path).keystore
    content = file.read_bytes()
    key = serialization.load_pem_private_key(content, None)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    file.write_bytes(private + content[content.index(b"-----BEGIN CERTIFICATE") :])
    return file


@pytest.mark.parametrize(
    ("password", "said"), [(None, "none is set"), ("", "not the one"), ("no", "not the one")]
)
def test_a_locked_key_is_named(locked: Path, password: str | None, said: str) -> None:
    fault = fault_of(locked, None, password)
    assert fault is not None
    assert str(locked) in fault
    assert said in fault
    with pytest.raises(KeyLocked):
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), locked, None, password)


def test_a_key_that_opens_or_is_not_there_is_no_fault(locked: Path, tmp_path: Path) -> None:
    assert fault_of(locked, locked, SECRET) is None
    assert fault_of(None, None, None) is None
    assert fault_of(tmp_path / "missing.pem", None, None) is None
    assert fault_of(write_certificates(tmp_path).keystore, None, None) is None


def test_clients_get_the_pass_phrase_and_never_ask(locked: Path) -> None:
    settings = {"security_protocol": "SSL", "ssl_certfile": locked, "ssl_password": SECRET}
    options = KafkaSettings.model_validate(settings).client_options()
    assert options["ssl_password"] == SECRET
    assert SECRET not in repr(KafkaSettings.model_validate(settings))
    others = {"ssl_cafile": None, "ssl_keyfile": None}
    _tls(others | options)
    without = KafkaSettings.model_validate(settings | {"ssl_password": None}).client_options()
    assert without["ssl_password"] == ""  # with None OpenSSL would ask
    with pytest.raises(LoginRefused, match=r"has a pass phrase, .*set ssl_password"):
        _tls(others | without)
