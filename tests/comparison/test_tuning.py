"""A network as the loop trains it: its schedule, its augmentation, what precision means."""

import pytest
import torch

from frozenkit import load_backbone, load_dataset
from frozenkit.comparison._tuning import WARM_UP, Tuning, TuningSettings, augment
from frozenkit.heads.modules import LinearHead


def tuning(**settings):
    images = load_dataset("emoji-google", limit=43)
    return Tuning(
        load_backbone(image_size=32, device="cpu"), LinearHead(1280, 5), images, images, TuningSettings(**settings)
    )


def test_the_schedule_warms_up_and_falls_to_nothing():
    run = tuning(unfreeze=0, epochs=10, batch_size=5)
    assert run.n_batches == 9
    rates = [run.rate(1.0, epoch, batch) for epoch in range(1, 11) for batch in range(9)]
    top = round(WARM_UP * 90)
    assert rates[:top] == pytest.approx([(i + 1) / top for i in range(top)])
    assert rates[top] == 1.0
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01


def test_training_on_a_cpu_is_fast_only_where_asked_and_native(monkeypatch):
    fast = {}
    for native in (True, False):
        monkeypatch.setattr("frozenkit._devices.has_native_bfloat16", lambda kind, native=native: native)
        fast[native] = [tuning(precision=precision, unfreeze=0).is_fast for precision in ("auto", "exact", "fast")]
    assert fast == {True: [False, False, True], False: [False, False, False]}


def test_augmentation_flips_half_and_shifts_within_an_eighth():
    images = torch.arange(2000 * 3 * 16 * 16, dtype=torch.float32).reshape(2000, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    flipped = augment(images, "flip", generator)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (mirrored | (flipped == images).flatten(1).all(1)).all()
    assert 900 < int(mirrored.sum()) < 1100
    cropped = augment(images[:50], "crop", generator)
    assert cropped.shape == images[:50].shape
    centre = cropped[:, :, 7, 7]
    for one, whole in zip(centre, images[:50], strict=True):
        at = (whole[0] == one[0]).nonzero()[0]
        assert (at - 7).abs().max() <= 3  # two pixels either way, and one for the flip of an even side
