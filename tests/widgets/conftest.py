"""What several labs stand on."""

import pytest

from frozenkit import FeatureCache, HeadLab
from tests.toy import overlapping


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


@pytest.fixture
def lab():
    lab = HeadLab(overlapping(), overlapping(90, seed=1))
    yield lab
    lab.close()
