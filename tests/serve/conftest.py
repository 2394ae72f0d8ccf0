"""Models that several test files serve: the packaged one, and tiny ones with random weights.

What loads torch is imported where a model is made: the fast tests do without.
"""

from __future__ import annotations

import pytest

from serve.artifact import Artifact
from tests.serve.tiny import MakeSource, make_source, sentiment

__all__ = ["features", "make_source", "minilm", "sentiment"]


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The packaged all-MiniLM-L6-v2 as a sealed model directory."""
    from serve.importing import import_model

    out = tmp_path_factory.mktemp("models") / "minilm"
    return import_model(None, out, task="feature-extraction")


@pytest.fixture(scope="session")
def features(make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A tiny encoder of 3 layers with random weights, sealed; the normalised mean."""
    from serve.importing import import_model

    out = tmp_path_factory.mktemp("models") / "features"
    return import_model(str(make_source(classifies=False)), out, task="feature-extraction")
