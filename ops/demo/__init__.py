"""ops/demo."""
