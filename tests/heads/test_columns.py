"""Some classes alone, and all of them."""

import torch
from torch.testing import assert_close

from frozenkit.heads.columns import AllClasses, Columns


def test_one_undoes_the_other():
    logits, present = torch.arange(10.0).reshape(2, 5), torch.tensor([0, 3])
    full = AllClasses(present, 5)(Columns(present)(logits))
    assert_close(full[:, present], logits[:, present], rtol=0, atol=0)
    assert (full[:, [1, 2, 4]] == -torch.inf).all()
    assert AllClasses(torch.arange(3), 3)(torch.empty(0, 3)).shape == (0, 3)
