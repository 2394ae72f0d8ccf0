"""ops/api."""
