"""ops/service."""
