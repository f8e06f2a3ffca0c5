"""ShiftLab without a browser."""

import pytest
import traitlets

from frozenkit import (
    ShiftLab,
)
from frozenkit.errors import InputError
from tests.toy import coloured_squares


def test_shiftlab_is_the_bound_of_its_shift(backbone, cache):
    lab = ShiftLab(coloured_squares(40, 0), coloured_squares(40, 1), backbone=backbone, cache=cache)
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
