"""The tuning loop's parts: its schedule and its augmentation."""

import pytest
import torch

from frozenkit import load_backbone, load_dataset, split
from frozenkit.comparison._loop import WARM_UP, augmented


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet-lite0", image_size=32, device="cpu")


@pytest.fixture(scope="module")
def sets():
    pictures = load_dataset("emoji-google", limit=72)
    rows = split(pictures.labels, fractions=(0.6, 0.2, 0.2), seed=0)
    return [pictures.subset(part) for part in rows]


def test_the_schedule_warms_up_and_falls_to_nothing(backbone, sets):
    from frozenkit.comparison._loop import Tuning
    from frozenkit.heads.modules import LinearHead

    part = sets[0]
    run = Tuning(
        load_backbone(image_size=32, device="cpu"),
        LinearHead(1280, 5),
        part,
        part,
        0,
        10,
        5,
        "eval",
        "none",
        "exact",
        0,
    )
    run.restart(1.0)
    rates = [run.rate(step) for step in range(run.steps)]
    top = round(WARM_UP * run.steps)
    assert rates[:top] == pytest.approx([(i + 1) / top for i in range(top)])
    assert rates[top] == 1.0
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01


def test_augmentation_flips_half_and_shifts_within_an_eighth():
    images = torch.arange(2000 * 3 * 16 * 16, dtype=torch.float32).reshape(2000, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    flipped = augmented(images, "flip", generator)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (mirrored | (flipped == images).flatten(1).all(1)).all()
    assert 900 < int(mirrored.sum()) < 1100
    cropped = augmented(images[:50], "crop", generator)
    assert cropped.shape == images[:50].shape
    centre = cropped[:, :, 7, 7]
    for one, whole in zip(centre, images[:50], strict=True):
        at = (whole[0] == one[0]).nonzero()[0]
        assert (at - 7).abs().max() <= 3  # two pixels either way, and one for the flip of an even side
