"""ops/scaling."""
