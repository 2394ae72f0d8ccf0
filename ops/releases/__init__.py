"""ops/releases."""
