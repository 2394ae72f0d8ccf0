"""ops/embedded_kafka."""
