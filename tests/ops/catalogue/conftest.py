"""A registry that these tests share."""

from __future__ import annotations

from tests.ops.catalogue.registered import make_model, registry, retention, store

__all__ = ["make_model", "registry", "retention", "store"]
