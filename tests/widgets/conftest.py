"""What several labs stand on."""

import pytest

from frozenkit import FeatureCache


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)
