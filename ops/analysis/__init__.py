"""ops/analysis."""
