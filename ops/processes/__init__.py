"""ops/processes."""
