"""Images on disk."""

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Two classes, dog and cat, of three plain images each."""
    root = tmp_path / "pets"
    for k, name in enumerate(("dog", "cat")):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (6, 5), (50 * i, 100 * k, 7)).save(root / name / f"{i}.png")
    return root
