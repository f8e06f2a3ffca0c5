"""What tests in several folders stand on: a network to look at, and one way to draw numbers."""

import pytest
import torch

from frozenkit import load_backbone


@pytest.fixture(scope="module")
def backbone():
    """EfficientNet-Lite0 at 64 pixels, the smallest that gives features worth probing."""
    return load_backbone(image_size=64, device="cpu")


@pytest.fixture
def seeded():
    """The same random numbers in every run, whichever tests ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
