"""ShiftLab without a browser."""

import pytest
import torch
import traitlets
from PIL import Image

from frozenkit import (
    ShiftLab,
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


def test_shiftlab_is_the_bound_of_its_shift(backbone, cache):
    lab = ShiftLab(pictures(40, 0), pictures(40, 1), backbone=backbone, cache=cache)
    assert lab.result.terms["half the divergence"] == 0.0
    assert lab.before == lab.after
    lab.severity = 5
    lab.kind = "invert"
    lab.wait(60)
    assert lab.answer["severity"] == 5
    shown = {bound["severity"]: bound for bound in lab.answer["bounds"]}
    assert set(shown) == {0, 5}
    assert shown[5]["sum"] == pytest.approx(sum(shown[5]["terms"].values()))
    assert lab.before != lab.after
    lab.severity = 0
    assert lab.answer["severity"] == 0
    with pytest.raises(InputError, match="has not been looked at"):
        lab.bound_at(3)
    with pytest.raises(InputError, match="from 0 to 5"):
        lab.severity = 6
    with pytest.raises(traitlets.TraitError):
        lab.kind = "melt"
    lab.close()
