"""Killed, damaged, refused, raced: every kind of file that is stored. The long forms: ``pytest -m faults``.

What needs many processes runs in one Python of its own, which forks: `in_a_python_of_its_own`.
"""

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from frozenkit.comparison._checkpoint import Checkpoint
from frozenkit.errors import CacheError
from frozenkit.extraction.cache import CachedFeatures, FeatureCache
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint

PRINT = Fingerprint({"of": "store faults"})
SUFFIXES = [".npz", ".safetensors"]
KINDS = ["cache", *SUFFIXES, "checkpoint"]


def a_set(seed=0, n=60, d=40):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return replace(FeatureSet.from_arrays(x, torch.arange(n) % 3, classes=("a", "b", "ü")), fingerprint=PRINT.digest)


class Place:
    """One kind of file in a folder: write a set to it, read it back."""

    def __init__(self, kind, folder):
        self.kind, self.cache = kind, FeatureCache(folder)
        self.path = self.cache.path(PRINT.digest) if kind == "cache" else Path(folder) / f"file{kind}"
        if kind == "checkpoint":
            self.path = Path(folder) / "state"

    def write(self, features, batch_size=8):
        if self.kind == "checkpoint":
            Checkpoint(self.path, "key").write({"features": features.features, "ids": list(features.ids)})
        elif self.kind != "cache":
            save_features(features, self.path)
        else:
            with self.cache._writing([PRINT.digest]) as alone:
                if PRINT.digest not in self.cache:
                    shape = tuple(features.features.shape)
                    part = self.cache._part(features, shape, batch_size, PRINT, alone=alone)
                    with contextlib.closing(part):
                        done = part.finished_rows()
                        for start in range(0, len(features), batch_size):
                            if not done[start : start + batch_size].all():
                                part.write(start, features.features[start : start + batch_size])
                        part.finish()

    def read(self):
        """All that a reader would get, as plain values."""
        if self.kind == "checkpoint":
            content = Checkpoint(self.path, "key").load()
            return content["features"].tolist(), content["ids"]
        found = self.cache.load(PRINT.digest) if self.kind == "cache" else load_features(self.path)
        return found.features.tolist(), found.labels.tolist(), found.classes, found.ids, found.layer, found.fingerprint


def short_and_long(name, short, long):
    return pytest.mark.parametrize(name, [short, pytest.param(long, marks=pytest.mark.faults)])


def in_a_python_of_its_own(call, timeout=600):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path]), "OMP_NUM_THREADS": "1"}
    code = f"import torch; torch.set_num_threads(1); from tests.test_store_faults import *; {call}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forked(work):
    """Runs `work` in a child; its number. The child ends at once: `os.waitpid` tells whether it went well."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)


# --- damaged bytes ---------------------------------------------------------------------------------------------------


def damages(original, count, chance):
    """(what was done, the bytes after it): flips of one bit, cuts, and 512 bytes of zeros."""
    for _ in range(count):
        flipped = bytearray(original)
        flipped[chance.randrange(len(original))] ^= 1 << chance.randrange(8)
        yield "flip", bytes(flipped)
    for _ in range(count):
        yield "cut", original[: chance.randrange(len(original))]
    for _ in range(count):
        at = chance.randrange(len(original) - 512)
        yield "zeros", original[:at] + bytes(512) + original[at + 512 :]


@short_and_long("count", 60, 400)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_reported_or_harmless(kind, count, tmp_path):
    """R2: not one wrong value comes back, from any kind of file."""
    place, features = Place(kind, tmp_path), a_set()
    place.write(features)
    original, whole, outcomes = place.path.read_bytes(), place.read(), Counter()
    for what, content in damages(original, count, random.Random(1)):
        place.path.write_bytes(content)
        try:
            outcomes[what, "harmless" if place.read() == whole else "WRONG"] += 1
        except CacheError:
            outcomes[what, "reported"] += 1
    print(kind, dict(outcomes))
    assert not [what for what, outcome in outcomes if outcome == "WRONG"]
    assert outcomes["cut", "reported"] == count
    assert outcomes["flip", "reported"] > count / 3


# --- killed and refused ----------------------------------------------------------------------------------------------


def kill_at_random(root, kills):
    """Children that write for ever are killed; what they wrote is whole, and goes on."""
    chance = random.Random(2)
    for kind in KINDS:
        told = Counter()
        sets = [a_set(seed, n=400, d=300) for seed in (0, 1)]
        for kill in range(kills):
            folder = Path(root) / f"{kind}-{kill}"
            folder.mkdir()
            neighbour = folder / "file.part"
            neighbour.write_text("someone else's")
            place = Place(kind, folder)
            allowed = []
            for each in sets[: 1 if kind == "cache" else 2]:
                place.write(each)
                allowed.append(place.read())
                if kind == "cache":
                    place.path.unlink()

            def write_for_ever(place=place, kind=kind, sets=sets):
                while True:
                    for each in sets[: 1 if kind == "cache" else 2]:
                        place.write(each)
                        if kind == "cache":
                            place.path.unlink(missing_ok=True)

            child = forked(write_for_ever)
            time.sleep(chance.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if kind == "cache":
                told["there" if place.path.exists() else "part" if list(folder.glob("*.part"))[1:] else "nothing"] += 1
                place.write(sets[0])
            else:
                told["part left" if list(folder.glob("*.part"))[1:] else "clean"] += 1
            assert place.read() in allowed, (kind, kill)
            assert neighbour.read_text() == "someone else's"
            shutil.rmtree(folder)
        print(kind, kills, "kills", dict(told))


@short_and_long("kills", 6, 60)
def test_killed_at_any_moment_old_or_new_is_there_whole(kills, tmp_path):
    """R1: .npz, .safetensors and checkpoints are never lost; the cache goes on where it was."""
    print(in_a_python_of_its_own(f"kill_at_random({str(tmp_path)!r}, {kills})"))


def limit_file_sizes(root, count):
    """Each kind under limits from nothing to all of it: a `CacheError`, and the old file is kept."""
    for kind in KINDS:
        place, old, new = Place(kind, Path(root) / kind), a_set(0), a_set(1)
        place.write(old)
        size, before = place.path.stat().st_size, place.path.read_bytes()
        for i in range(count):
            if kind == "cache":
                place.path.unlink(missing_ok=True)
            limit = size * i // count
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with pytest.raises(CacheError, match="File too large.*Free some space"):
                place.write(new)
            assert kind == "cache" or place.path.read_bytes() == before
            assert not list(place.path.parent.glob("*.part"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        place.write(new)
        assert place.read()[0] == new.features.tolist()
        print(kind, count, "limits")


@short_and_long("count", 5, 100)
def test_a_full_disk_is_a_cache_error_and_the_process_ends_well(count, tmp_path):
    """A disk (here: a limit) that ends anywhere; HDF5 on such a disk raised RuntimeError, and crashed at the exit."""
    print(in_a_python_of_its_own(f"limit_file_sizes({str(tmp_path)!r}, {count})"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_each_refused_call_is_a_cache_error_and_the_next_try_works(kind, number, tmp_path, monkeypatch):
    features = a_set()
    for call in ("open", "pwrite", "fsync", "posix_fallocate", "preadv"):
        for k in range(40):
            folder = tmp_path / f"{call}-{k}"
            folder.mkdir()
            place, count = Place(kind, folder), [0]
            real = getattr(os, call)

            def refuse(*arguments, count=count, k=k, real=real, **more):
                count[0] += 1
                if count[0] == k + 1:
                    raise OSError(number, os.strerror(number))
                return real(*arguments, **more)

            failed = None
            with monkeypatch.context() as patch:
                patch.setattr(os, call, refuse)
                try:
                    place.write(features)
                    place.read()
                except CacheError as error:
                    failed = error
            if count[0] <= k:
                break  # no call is left that could be refused
            assert failed is None or "cannot" in str(failed), failed
            place.write(features)
            assert place.read()[0] == features.features.tolist()


# --- raced without locks ---------------------------------------------------------------------------------------------


def race_without_locks(root, processes, rounds):
    """On a file system without locks: all write the same entry, with batches of different sizes; all get it."""
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse
    features = a_set(n=300, d=50)
    outcomes = Counter()
    for turn in range(rounds):
        place = Place("cache", Path(root) / str(turn))

        def write(batch_size, place=place):
            place.write(features, batch_size)
            assert place.read()[0] == features.features.tolist()

        children = [forked(lambda size=3 + i % 5, write=write: write(size)) for i in range(processes)]
        for child in children:
            outcomes["ok" if os.waitpid(child, 0)[1] == 0 else "FAILED"] += 1
        assert place.cache.verify() == {PRINT.digest: "ok"}
        left = [path for path in place.path.parent.iterdir() if path.suffix == ".part"]
        assert not left
    print(processes, "processes", dict(outcomes))
    assert set(outcomes) == {"ok"}


@short_and_long("rounds", 3, 20)
@pytest.mark.parametrize("processes", [2, 8])
def test_without_locks_all_succeed(processes, rounds, tmp_path):
    """What the warning promises: the work is done twice, and right."""
    print(in_a_python_of_its_own(f"race_without_locks({str(tmp_path)!r}, {processes}, {rounds})"))


@short_and_long("count", 15, 150)
def test_a_shared_cache_damaged_anywhere_is_never_believed(count, tmp_path):
    """What `extract` does with such an entry is in test_extraction; here: it is seen, and one's own comes first."""
    shared, features = Place("cache", tmp_path / "shared"), a_set()
    shared.write(features)
    original, whole = shared.path.read_bytes(), shared.read()
    for _, content in damages(original, count, random.Random(3)):
        shared.path.write_bytes(content)
        own = FeatureCache(tmp_path / "own", shared=tmp_path / "shared")
        if own._verify_entry(PRINT.digest) == "ok":
            assert own.load(PRINT.digest).features.tolist() == whole[0]
        else:
            Place("cache", tmp_path / "own").write(features)
            assert isinstance(own.open(PRINT.digest), CachedFeatures)
            assert own.load(PRINT.digest).features.tolist() == whole[0]
            own.remove(PRINT.digest)
        assert shared.path.read_bytes() == content
