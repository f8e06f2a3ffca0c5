"""Float32 as float32, on this torch and on those before 2.9."""

from types import SimpleNamespace

import torch

from frozenkit._devices import full_float32


def test_the_switches_of_torch_before_2_9_are_turned_and_given_back(monkeypatch):
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(allow_tf32=True))  # no cudnn.conv there
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")

    def switches():
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    try:
        with full_float32():
            assert switches() == (False, "highest")
        assert switches() == (True, "medium")
    finally:
        torch.set_float32_matmul_precision(before)
