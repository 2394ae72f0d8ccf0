"""ops/platform."""
