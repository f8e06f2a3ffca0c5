"""The lock on a key: held by one, gone with its owner, and never taken from under another."""

import os
import signal
import subprocess
import sys
import time

import pytest

from frozenkit.errors import CacheError
from frozenkit.extraction._locks import locked


def test_one_is_alone_and_the_next_finds_it_busy(tmp_path):
    path = tmp_path / "x.lock"
    with locked(path) as first:
        assert path.read_text() == str(os.getpid())
        with locked(path, wait=False) as second:
            assert (first, second) == ("alone", "busy")
        assert path.exists()  # giving back what one never had removes nothing
    assert not path.exists()
    with locked(path, wait=False) as third:
        assert third == "alone"


def test_a_lock_whose_file_was_removed_guards_nothing(tmp_path, monkeypatch):
    """Between opening the file and locking it, its owner may remove it: then the next one makes a new file."""
    import fcntl

    path, real, removed = tmp_path / "x.lock", fcntl.flock, []

    def late(descriptor, how):
        if not removed:
            removed.append(path.unlink())
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path), locked(path, wait=False) as second:
        assert second == "busy"


@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_lock_file_that_cannot_be_one_is_refused(tmp_path, what):
    path = tmp_path / "x.lock"
    path.mkdir() if what == "folder" else path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="cannot write .*Choose another folder"), locked(path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_costs_only_the_number_in_the_lock(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with locked(tmp_path / "x.lock") as state:
        assert state == "alone"


LEADER = """
import os, sys, time
from pathlib import Path
from frozenkit.extraction._locks import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_dead_leaders_child_holds_up_nobody(tmp_path):
    path = tmp_path / "x.lock"
    leader = subprocess.Popen([sys.executable, "-c", LEADER, str(path)], stdout=subprocess.PIPE, text=True)
    child = int(leader.stdout.readline())
    try:
        with locked(path, wait=False) as state:
            assert state == "busy"
        time.sleep(0.2)  # the child has closed what it inherited
        leader.kill()
        leader.wait(10)
        os.kill(child, 0)  # it lives
        with locked(path, wait=False) as state:
            assert state == "alone"
    finally:
        os.kill(child, signal.SIGKILL)
        leader.communicate()
