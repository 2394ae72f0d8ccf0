"""ops/access."""
