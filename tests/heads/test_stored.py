"""Heads as JSON and tensors: only what computes the same again is stored."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit.errors import InputError
from frozenkit.heads.modules import LinearHead
from frozenkit.heads.stored import build_head, describe_head


def test_a_description_is_json_and_shares_no_memory_with_what_is_built():
    head = LinearHead(4, 2)
    said, tensors = describe_head(head)
    again = build_head(json.loads(json.dumps(said)), tensors)
    with torch.no_grad():
        again.linear.weight.zero_()
    assert head.linear.weight.abs().sum() > 0
    assert not again.training


def test_an_edited_forward_is_not_stored_as_what_it_was():
    head = LinearHead(4, 2)
    head.forward = lambda x: head.linear(x) ** 2
    with pytest.raises(InputError, match="computes something else than its class, LinearHead, and its tensors say"):
        describe_head(head)
    hooked = LinearHead(4, 2)
    hooked.linear.register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(InputError, match="computes something else"):
        describe_head(hooked)


class Square(nn.Module):
    def forward(self, x):
        return x**2


def test_one_part_may_be_of_ones_own_class():
    head = nn.Sequential(nn.Linear(3, 2), Square())
    said, tensors = describe_head(head)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert_close(build_head(said, tensors, Square())(x), head(x), rtol=0, atol=0)
    with pytest.raises(InputError, match="one part of a class that is not frozenkit's, got Square, Square"):
        describe_head(nn.Sequential(Square(), nn.Linear(3, 2), Square()))


def test_a_subclass_is_a_class_of_ones_own():
    class Mine(LinearHead):
        def forward(self, x):
            return super().forward(x) * 2

    assert describe_head(Mine(3, 2))[0] == {"class": "Mine", "own": True}
