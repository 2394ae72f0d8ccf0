"""ops/policy."""
