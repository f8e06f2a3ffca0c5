"""Heads begin with random weights: the same in every run."""

import pytest


@pytest.fixture(autouse=True)
def _seeded(seeded):
    """Draw as `seeded` does in every test of this folder."""
