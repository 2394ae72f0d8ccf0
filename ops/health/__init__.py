"""ops/health."""
