"""ops/config."""
