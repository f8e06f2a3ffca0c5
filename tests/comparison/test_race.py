"""Races: real training in three lanes, arithmetic by hand, and a backbone that stays as it was."""

import pytest
import torch

from frozenkit import assert_frozen, load_dataset, race
from frozenkit.comparison.race import LANES, Lane, Race
from frozenkit.errors import InputError

BY_HAND = Race(
    (
        Lane("fine-tuned", (12.0, 10.0), (2.0, 1.0)),
        Lane("frozen", (6.0,), (2.0,)),
        Lane("frozen, cached", (0.5,), (2.0,)),
    ),
    19.0,
    100,
    "some, 64 px",
)


def test_ratios_and_break_even_by_hand():
    assert BY_HAND.ratio() == 20
    assert BY_HAND.ratio("frozen") == 12
    assert BY_HAND.seconds_after(4) == {"fine-tuned": 40.0, "frozen": 24.0, "frozen, cached": 21.0}
    assert BY_HAND.break_even("fine-tuned") == 3  # after two: 20 against 20 s; after three: 30 against 20.5
    assert BY_HAND.break_even() == 4
    slow = Race((*BY_HAND.lanes[:2], Lane("frozen, cached", (11.0,), (2.0,))), 1.0, 100, "some")
    assert slow.break_even() is None
    assert "19 s" in repr(BY_HAND)
    assert "<table" in BY_HAND._repr_html_()


def test_all_lanes_train_the_same_and_the_backbone_stays(backbone):
    images = load_dataset("digits", limit=40)
    told = []
    with assert_frozen(backbone):
        found = race(backbone, images, epochs=2, batch_size=16, progress=lambda *step: told.append(step))
    assert tuple(lane.name for lane in found.lanes) == LANES
    frozen, cached, tuned = found["frozen"], found["frozen, cached"], found["fine-tuned"]
    torch.testing.assert_close(frozen.losses, cached.losses, rtol=1e-3, atol=1e-4)  # the same head, whence the features
    assert tuned.losses[1] < frozen.losses[1]  # more parameters, lower loss on what they are fitted to
    assert [step for step in told if step[0] == "frozen"] == [("frozen", d, 80) for d in (16, 32, 40, 56, 72, 80)]
    assert not any(p.requires_grad for p in backbone.module.parameters())


def test_what_progress_raises_ends_the_race(backbone):
    def stop(*_):
        raise KeyboardInterrupt

    with assert_frozen(backbone), pytest.raises(KeyboardInterrupt):
        race(backbone, load_dataset("digits", limit=20), progress=stop)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"batch_size": 0}, {"epochs": 1.5}, {"seed": -1}])
def test_settings_must_be_positive(backbone, settings):
    with pytest.raises(InputError, match="must be a whole number of at least [01], got"):
        race(backbone, load_dataset("digits", limit=20), **settings)
