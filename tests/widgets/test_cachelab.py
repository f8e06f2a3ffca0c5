"""CacheLab without a browser."""

import pytest
import torch
from PIL import Image

from frozenkit import (
    CacheLab,
    assert_frozen,
    from_torch,
)
from frozenkit.errors import InputError


def pictures(n, seed, colours=("red", "blue")):
    """Squares of two colours, with noise: easy, and quick."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        base = torch.tensor(Image.new("RGB", (1, 1), colours[i % len(colours)]).getpixel((0, 0)))
        noisy = (base + torch.randint(-60, 60, (24, 24, 3), generator=generator)).clamp(0, 255).to(torch.uint8)
        made.append((Image.fromarray(noisy.numpy()), i % len(colours)))
    return from_torch(made, classes=tuple(colours))


def test_cachelab_races_for_real_and_stops(backbone):
    lab = CacheLab(pictures(32, 0), backbone, n=32, epochs=1)
    assert "race=not run yet" in repr(lab)
    with assert_frozen(backbone):
        lab._on_message(lab, {"start": True}, [])
        lab.wait(120)
    assert lab.error == ""
    assert lab.answer["ratio"] == pytest.approx(lab.result.ratio())
    assert all(lane["seconds"] > 0 for lane in lab.answer["lanes"])
    lab.start()
    lab.stop()
    lab.wait(60)
    assert lab.result is None
    with pytest.raises(InputError, match=r"2\.\.32"):
        lab.n = 33
    with pytest.raises(InputError, match=r"1\.\.10"):
        lab.epochs = 0
    lab.close()
