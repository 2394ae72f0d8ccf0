"""Models that these tests serve."""

from __future__ import annotations

from tests.serve.tiny import make_source, sentiment

__all__ = ["make_source", "sentiment"]
