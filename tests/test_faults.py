"""Killed, torn, flipped, raced: what a real machine does to a cache. The long forms: ``pytest -m faults``."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from frozenkit import FeatureCache, FeatureSet, extract_layers, load_backbone, load_dataset
from frozenkit.errors import CacheError
from frozenkit.extraction._file import PartFile
from frozenkit.fingerprint import Fingerprint

PRINT = Fingerprint({"of": "faults"})
LAYERS = ["blocks.2", "global_pool"]
PAGE = 4096


def short_and_long(name, short, long):
    return pytest.mark.parametrize(name, [short, pytest.param(long, marks=pytest.mark.faults)])


EXTRACT = """
import sys
import torch
from frozenkit import FeatureCache, extract_layers, load_backbone, load_dataset
torch.set_num_threads(1)
data, backbone = load_dataset("emoji-google", limit=160), load_backbone(image_size=64, device="cpu")
backbone.digest
print("ready", flush=True)
features = extract_layers(backbone, data, layers=["blocks.2", "global_pool"], precision="exact", batch_size=8,
                   cache=FeatureCache(sys.argv[1]), progress=lambda done, total: print(done, flush=True))
print("sum", *(float(f.features.double().sum()) for f in features.values()), flush=True)
"""


def extracting(root):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", EXTRACT, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def in_one_thread(cache=None, progress=False):
    """The same extraction here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data, backbone = load_dataset("emoji-google", limit=160), load_backbone(image_size=64, device="cpu")
        settings = {"layers": LAYERS, "precision": "exact", "batch_size": 8, "progress": progress}
        return extract_layers(backbone, data, cache=cache, **settings)
    finally:
        torch.set_num_threads(threads)


@short_and_long("kills", 2, 50)
def test_killed_at_any_moment_and_resumed_bit_for_bit(kills, tmp_path):
    """R1: no finished batch is computed twice, and nothing shows that anything happened."""
    whole, chance = in_one_thread(), random.Random(0)
    for kill in range(kills):
        cache = FeatureCache(tmp_path / str(kill))
        process = extracting(cache.root)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        told = [int(line) for line in process.communicate()[0].splitlines() if line.isdigit()]
        steps = []
        again = in_one_thread(cache, progress=lambda done, total, steps=steps: steps.append(done))
        before = steps[0] if len(steps) and steps[0] % 8 == 0 else 0
        assert before >= max(told, default=0), f"kill {kill}: {told[-1]} images were done, {before} taken over"
        for layer in LAYERS:
            torch.testing.assert_close(again[layer].features, whole[layer].features, rtol=0, atol=0)
        assert set(cache.verify().values()) == {"ok"}


def recorded(cache, features, monkeypatch):
    """The bytes of a fresh part file, and every write that follows, as (offset, bytes)."""
    writes, real = [], os.pwrite

    def record(descriptor, data, offset):
        writes.append((offset, bytes(data)))
        return real(descriptor, data, offset)

    part = cache._part(features, tuple(features.features.shape), 8, PRINT)
    path = cache.path(PRINT.digest).with_suffix(".part")
    empty = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", record)
        for start in range(0, len(features), 8):
            part.write(start, features.features[start : start + 8])
    part.close()
    path.unlink()
    return empty, writes


def pages(writes):
    """Writes cut where pages end: what may reach the disk one without the other."""
    for offset, data in writes:
        done = 0
        while done < len(data):
            length = min(len(data) - done, PAGE - (offset + done) % PAGE)
            yield offset + done, data[done : done + length]
            done += length


@short_and_long("stride", 13, 1)
@pytest.mark.parametrize("order", ["as written", "any"])
def test_cut_at_every_page_no_wrong_row_is_taken_for_finished(stride, order, tmp_path, monkeypatch):
    """R1: the writer's calls, replayed up to each page boundary, and in any order, as a disk is free to do."""
    x = torch.randn(64, 1290, generator=torch.Generator().manual_seed(0))  # rows that straddle pages
    labels, ids = torch.arange(64) % 3, tuple(map(str, range(64)))
    features = replace(FeatureSet.from_arrays(x, labels, classes=("a", "b", "c"), ids=ids), fingerprint=PRINT.digest)
    cache = FeatureCache(tmp_path)
    empty, writes = recorded(cache, features, monkeypatch)
    parts = list(pages(writes))
    assert len(parts) > 80
    path = cache.path(PRINT.digest)
    for state in range(0, len(parts) + 1, stride):
        if order == "any":
            random.Random(state).shuffle(parts)
        content = bytearray(empty)
        for offset, data in parts[:state]:
            content[offset : offset + len(data)] = data
        path.with_suffix(".part").write_bytes(content)
        part = PartFile.resume(path, PRINT.digest)
        done = part.finished_rows()
        for row in np.flatnonzero(done):
            at = part.header.blocks["features"][0] + int(row) * part.header.row_bytes
            stored = torch.frombuffer(content, dtype=torch.float32, offset=at, count=1290)
            torch.testing.assert_close(stored, x[row], rtol=0, atol=0)
        if state == len(parts):
            assert done.all()
        for start in range(0, 64, 8):
            if not done[start : start + 8].all():
                part.write(start, x[start : start + 8])
        part.finish()
        part.close()
        torch.testing.assert_close(cache.load(PRINT.digest).features, x, rtol=0, atol=0)
        path.unlink()


@pytest.mark.faults
def test_two_hundred_flips_of_a_real_entry(tmp_path):
    """R2: each is reported or harmless; no wrong row is returned."""
    cache = FeatureCache(tmp_path)
    right = in_one_thread(cache)["blocks.2"]
    path = cache.path(right.fingerprint)
    original, chance, reported = path.read_bytes(), random.Random(1), 0
    for _ in range(200):
        damaged = bytearray(original)
        damaged[chance.randrange(len(original))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            back = cache.load(right.fingerprint)
        except CacheError:
            reported += 1
            continue
        torch.testing.assert_close(back.features, right.features, rtol=0, atol=0)
        assert (back.ids, back.classes, back.labels.tolist()) == (right.ids, right.classes, right.labels.tolist())
    assert reported > 100


@short_and_long("processes", 3, 8)
def test_many_processes_one_key_and_the_leader_dies(processes, tmp_path):
    """R4: one extraction's work in all, the same answer everywhere, and nobody waits for the dead."""
    leader = extracting(tmp_path)
    seen = []
    while sum(line.isdigit() and int(line) > 0 for line in seen) < 3:
        seen.append(leader.stdout.readline().strip())
    followers = [extracting(tmp_path) for _ in range(processes - 1)]
    leader.kill()
    seen += leader.communicate()[0].split()
    outputs = [follower.communicate(timeout=120)[0].splitlines() for follower in followers]
    answers = {line for lines in outputs for line in lines if line.startswith("sum")}
    assert len(answers) == 1
    assert all(any(line.startswith("sum") for line in lines) for lines in outputs)
    steps = [[int(line) for line in lines if line.isdigit()] for lines in outputs]
    workers = [done for done in steps if len(done) > 1]  # the others were told once: all is there
    assert len(workers) <= 1, workers
