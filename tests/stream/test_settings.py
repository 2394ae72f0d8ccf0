"""What settings refuse, and what they say to the client."""

from __future__ import annotations

import pickle
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.contract import CallOptions
from stream.settings import KafkaSettings, PipelineSettings

PIPELINE = {"name": "p", "model": "m", "input_topics": ["in"], "output_topic": "out"}
LOGIN = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "secret-1"}


def test_a_login_must_be_complete() -> None:
    for missing in LOGIN:
        rest = {key: value for key, value in LOGIN.items() if key != missing}
        with pytest.raises(ValidationError, match=f"SASL_SSL also needs {missing}"):
            KafkaSettings.model_validate({"security_protocol": "SASL_SSL"} | rest)


def test_a_password_is_not_shown() -> None:
    kafka = KafkaSettings.model_validate({"security_protocol": "SASL_PLAINTEXT"} | LOGIN)
    assert "secret-1" not in repr(kafka)
    assert kafka.client_options()["sasl_plain_password"] == "secret-1"


def test_options_of_a_plain_connection() -> None:
    assert KafkaSettings(bootstrap_servers="a:1,b:2").client_options() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_options_of_tls() -> None:
    options = KafkaSettings(security_protocol="SSL", ssl_cafile=Path("/ca.pem")).client_options()
    assert options["ssl_cafile"] == "/ca.pem"
    assert options["ssl_check_hostname"] is True
    assert "ssl_certfile" not in options
    assert "sasl_mechanism" not in options


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Upper"),
        ("name", ""),
        ("model", "a_b"),
        ("input_topics", []),
        ("output_topic", "a b"),
        ("output_topic", "x" * 250),
        ("delivery", "at-most-once"),
        ("max_batch_records", 0),
        ("window", 0),
        ("session_timeout_ms", 5_999),
        ("transaction_timeout_ms", 0),
        ("model_deadline_s", 0),
        ("fields", {"text": 1}),
        ("fields", "text"),
        ("long_text", "cut"),
        ("window_stride", -1),
        ("parameters", {"date": date(2026, 1, 1)}),
        ("unknown", 1),
    ],
)
def test_what_a_pipeline_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        PipelineSettings.model_validate(PIPELINE | {field: value})


def test_names_that_follow_from_others() -> None:
    pipeline = PipelineSettings.model_validate(PIPELINE)
    assert pipeline.dead_letters == "out.dead-letters"
    assert pipeline.app_name == "pipeline-p"
    named = PipelineSettings.model_validate(PIPELINE | {"dead_letter_topic": "dlq"})
    assert named.dead_letters == "dlq"


def test_a_replica_is_told_how_to_read() -> None:
    pipeline = PipelineSettings.model_validate(
        PIPELINE
        | {"format": "text", "fields": {"text": "body"}, "long_text": "window"}
        | {"window_stride": 16, "parameters": {"top_k": None, "thresholds": {"a": 0.5}}}
    )
    assert pipeline.call_options() == CallOptions(
        format="text",
        fields={"text": "body"},
        long_text="window",
        window_stride=16,
        parameters={"top_k": None, "thresholds": {"a": 0.5}},
    )


def test_options_that_are_not_set_are_those_of_a_plain_call() -> None:
    assert PipelineSettings.model_validate(PIPELINE).call_options() == CallOptions()


def test_fields_and_parameters_survive_the_way_to_another_process() -> None:
    maps = {"fields": {"text": "body"}, "parameters": {"top_k": 3, "labels": ["a", {"b": 0.5}]}}
    pipeline = PipelineSettings.model_validate(PIPELINE | maps)
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline
    assert PipelineSettings.model_validate_json(pipeline.model_dump_json()) == pipeline
    other = PipelineSettings.model_validate(PIPELINE | maps | {"parameters": {"top_k": 4}})
    assert other != pipeline
