"""Checkpoints: the last whole state, or a reason why not."""

import errno
import os
import zipfile

import pytest
import torch
from torch.testing import assert_close

from frozenkit.comparison._checkpoint import Checkpoint
from frozenkit.errors import CacheError


def state(seed=0):
    weights = torch.randn(20, 7, generator=torch.Generator().manual_seed(seed))
    return {"weights": {"linear": weights}, "history": [{"epoch": 0, "score": 0.5}], "best": None}


def test_what_was_written_last_comes_back(tmp_path):
    saved = Checkpoint(tmp_path / "sub" / "x", "key")
    assert saved.load() is None
    saved.write(state(0))
    saved.write(state(1))
    back = saved.load()
    assert_close(back["weights"]["linear"], state(1)["weights"]["linear"], rtol=0, atol=0)
    assert (back["history"], back["best"]) == (state()["history"], None)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["x"]
    saved.remove()
    assert saved.load() is None


def test_nothing_is_kept_without_a_path():
    saved = Checkpoint(None, "key")
    saved.write(state())
    saved.remove()
    assert saved.load() is None


def test_another_run_is_refused(tmp_path):
    Checkpoint(tmp_path / "x", "key").write(state())
    with pytest.raises(CacheError, match="is of other images, another backbone or other settings. Remove it"):
        Checkpoint(tmp_path / "x", "other").load()


def test_what_carries_no_seal_is_refused(tmp_path):
    torch.save(state() | {"key": "key"}, tmp_path / "x")
    with pytest.raises(CacheError, match="cannot be read .it is cut short, or something else.. Remove it"):
        Checkpoint(tmp_path / "x", "key").load()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CacheError, match="is a folder, a pipe or a device"):
        Checkpoint(tmp_path / "pipe", "key").load()


def test_a_sealed_bomb_is_refused(tmp_path):
    from frozenkit.comparison._checkpoint import _SEAL, _sha256

    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
    with (tmp_path / "x").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.write(_SEAL + _sha256(file, size))
    with pytest.raises(CacheError, match="names more than it holds"):
        Checkpoint(tmp_path / "x", "key").load()


def test_a_full_disk_keeps_the_old_one_and_a_neighbour(tmp_path, monkeypatch):
    saved, neighbour = Checkpoint(tmp_path / "x", "key"), tmp_path / "x.part"
    neighbour.write_text("someone else's")
    saved.write(state(0))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left on device. Free some space"):
        saved.write(state(1))
    monkeypatch.undo()
    assert_close(saved.load()["weights"]["linear"], state(0)["weights"]["linear"], rtol=0, atol=0)
    assert neighbour.read_text() == "someone else's"
    assert {path.name for path in tmp_path.iterdir()} == {"x", "x.part"}
