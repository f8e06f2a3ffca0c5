"""Digests and fingerprints."""

import pytest
import torch
from torch import nn

from frozenkit.fingerprint import Fingerprint, digest_module, digest_tensor

INGREDIENTS = {"dataset": "digits", "layer": "blocks.6", "image_size": 96, "pooling": "mean"}


@pytest.mark.parametrize("name", INGREDIENTS)
def test_every_ingredient_counts(name):
    changed = {**INGREDIENTS, name: 97 if name == "image_size" else "other"}
    assert Fingerprint(changed).digest != Fingerprint(INGREDIENTS).digest
    assert list(Fingerprint(changed).differences(Fingerprint(INGREDIENTS))) == [name]


def test_order_of_ingredients_does_not_count():
    assert Fingerprint(dict(reversed(INGREDIENTS.items()))).digest == Fingerprint(INGREDIENTS).digest


def test_a_missing_ingredient_is_a_difference():
    fewer = {k: v for k, v in INGREDIENTS.items() if k != "pooling"}
    assert Fingerprint(fewer).differences(Fingerprint(INGREDIENTS)) == {"pooling": (None, "mean")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_digest_sees_one_bit_in_any_dtype(dtype):
    a, b = torch.zeros(5, dtype=dtype), torch.zeros(5, dtype=dtype)
    b[3] = 1
    assert digest_tensor(a) != digest_tensor(b)
    assert digest_tensor(a) == digest_tensor(a.clone())


def test_digest_sees_shape_dtype_and_layout_free_values():
    assert digest_tensor(torch.zeros(2, 3)) != digest_tensor(torch.zeros(3, 2))
    assert digest_tensor(torch.zeros(2)) != digest_tensor(torch.zeros(2, dtype=torch.int32))
    x = torch.arange(6.0).reshape(2, 3)
    assert digest_tensor(x.T) == digest_tensor(x.T.contiguous())
    assert digest_tensor(torch.tensor(1.0)) != digest_tensor(torch.tensor(2.0))


def test_module_digest_sees_buffers_and_settings_that_are_no_weights():
    norm = nn.BatchNorm2d(3)
    before = digest_module(norm)
    norm.running_mean[1] += 1e-7
    assert digest_module(norm) != before
    assert digest_module(nn.AvgPool2d(2)) != digest_module(nn.AvgPool2d(3))
