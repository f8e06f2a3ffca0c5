"""CacheLab without a browser."""

import pytest

from frozenkit import (
    CacheLab,
    assert_frozen,
)
from frozenkit.errors import InputError
from tests.toy import coloured_squares


def test_cachelab_races_for_real_and_stops(backbone):
    lab = CacheLab(coloured_squares(32, 0), backbone, n=32, epochs=1)
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
