"""An empty cache in a folder of its own."""

import pytest

from frozenkit import FeatureCache


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")
