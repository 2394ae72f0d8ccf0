"""ops/telemetry."""
