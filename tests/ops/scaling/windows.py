"""Windows of telemetry, made up."""

from __future__ import annotations

from typing import Any

from stream.schema import TelemetryRecord


def window(version: str = "1", *, answers: int = 1000, busy_s: float = 10.0) -> TelemetryRecord:
    """Ten seconds of one consumer."""
    fields: dict[str, Any] = dict.fromkeys(TelemetryRecord.model_fields, 0)
    names = ("failures", "rescued", "deleted", "latency", "confidence", "lengths", "labels")
    fields |= {name: {} for name in names}
    fields |= dict.fromkeys(("engine", "precision", "digest"))
    fields |= {"pipeline": "words", "consumer": 0, "model": "m", "version": version}
    fields |= {"start_ms": 0, "end_ms": 10_000, "answers": answers}
    return TelemetryRecord(**fields | {"replica_us": int(busy_s * 1e6)})
