"""Settings of the platform that must not be combined."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ops.config.settings import ApiSettings, PlatformConfig, conflicts


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_needs_no_tls(host: str) -> None:
    assert ApiSettings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "api.example.com"])
def test_other_machines_would_read_the_tokens(host: str) -> None:
    with pytest.raises(ValidationError, match="could read the tokens"):
        ApiSettings(host=host)
    assert not ApiSettings(host=host, insecure=True).is_loopback
    tls = {"tls_certfile": "cert.pem", "tls_keyfile": "key.pem"}
    assert ApiSettings.model_validate({"host": host, **tls}).tls_keyfile is not None


@pytest.mark.parametrize("alone", ["tls_certfile", "tls_keyfile"])
def test_certificate_and_key_belong_together(alone: str) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        ApiSettings.model_validate({alone: "file.pem"})


def test_scaling_of_a_model_that_is_not_there_is_refused() -> None:
    found = conflicts({"models": [{"name": "m"}], "scaling": {"models": {"m": {}, "n": {}}}})
    assert [*found] == [(("scaling", "models", "n"), "n is not under models (m)")]
    with pytest.raises(ValidationError, match=r"n is not under models \(there are none\)"):
        PlatformConfig.model_validate({"scaling": {"models": {"n": {"max_replicas": 2}}}})
    assert [*conflicts({"scaling": None})] == []
