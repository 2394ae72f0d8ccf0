"""ops/catalogue."""
