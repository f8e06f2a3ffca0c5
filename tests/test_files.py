"""Plain files: read as they are or refused, written as a whole or not at all."""

import errno
import os

import pytest
import torch

from frozenkit._files import disk_errors, open_regular, read_exactly, write_all, write_sealed, written_aside
from frozenkit.errors import CacheError


def refuse(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


def test_a_file_takes_the_others_place_as_a_whole(tmp_path):
    path, neighbour = tmp_path / "x.safetensors", tmp_path / "x.part"
    path.write_text("old")
    neighbour.write_text("someone else's")
    with written_aside(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert neighbour.read_text() == "someone else's"
    assert {*tmp_path.iterdir()} == {path, neighbour}


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_after_a_refusal_the_old_file_is_there_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "x.npz"
    path.write_text("old")
    monkeypatch.setattr(os, call, refuse(errno.ENOSPC))
    with (
        pytest.raises(CacheError, match="cannot write .*x.npz: No space left on device. Free some space. Choose"),
        disk_errors(path),
        written_aside(path),
    ):
        pass
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(KeyboardInterrupt), written_aside(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CacheError, match="cannot write .*: (File exists|Not a directory)"),
        disk_errors(tmp_path / "file" / "x.npz"),
        written_aside(tmp_path / "file" / "x.npz"),
    ):
        pass


def odd_ones(folder):
    """Name to a path that is there and no plain file."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link to a pipe").symlink_to(folder / "pipe")
    return [folder / "folder", folder / "pipe", folder / "link to a pipe", "/dev/zero"]


def test_pipes_devices_and_folders_are_refused_and_not_waited_for(tmp_path):
    for path in odd_ones(tmp_path):
        with pytest.raises(CacheError, match="is a folder, a pipe or a device, and must be a plain file"):
            open_regular(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "missing", tmp_path / "dangling"):
        with pytest.raises(CacheError, match="does not exist"):
            open_regular(path)
    with pytest.raises(CacheError, match="cannot read .*: embedded null byte. Mend its permissions"):
        open_regular(tmp_path / "a\0b")


def test_reading_what_is_not_there_or_fails_is_a_cache_error(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"abc")
    descriptor = open_regular(tmp_path / "x", os.O_RDWR)
    try:
        assert bytes(read_exactly(descriptor, tmp_path / "x", 1, 2)) == b"bc"
        with pytest.raises(CacheError, match="it ends at byte 3, before its data does"):
            read_exactly(descriptor, tmp_path / "x", 1, 3)
        with pytest.raises(CacheError, match="80000000000000000 bytes of it do not fit into memory"):
            read_exactly(descriptor, tmp_path / "x", 0, 80 * 10**15)
        write_all(descriptor, b"xyz", 1)
        assert (tmp_path / "x").read_bytes() == b"axyz"
        monkeypatch.setattr(os, "preadv", refuse(errno.EIO))
        with pytest.raises(CacheError, match="cannot read .*: Input/output error. Try again"):
            read_exactly(descriptor, tmp_path / "x", 0, 3)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_sealed_file_can_be_read_by_those_who_read_other_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_sealed(tmp_path / "x.safetensors", "probe", 1, {}, {"weight": torch.ones(2)})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
