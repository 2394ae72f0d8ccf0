"""ops/serving."""
