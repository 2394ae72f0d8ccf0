"""ops/sql."""
