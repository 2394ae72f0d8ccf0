"""ops/cost."""
