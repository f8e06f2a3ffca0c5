"""The store: what is written comes back bit for bit, or an error says why not."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from frozenkit.errors import CacheError, CacheMissError, FrozenkitWarning, InputError
from frozenkit.extraction import _file as storage_module
from frozenkit.extraction.cache import CachedFeatures, FeatureCache, round_through
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint, Origin
from tests.extraction.stored import PRINT, a_set, store


@pytest.mark.parametrize("tokens", [None, 5])
def test_what_goes_in_comes_out(cache, tokens):
    fs = a_set(tokens=tokens)
    store(cache, fs)
    back = cache.load(fs.fingerprint)
    assert_close(back.features, fs.features, rtol=0, atol=0)
    assert_close(back.labels, fs.labels, rtol=0, atol=0)
    assert (back.classes, back.ids, back.layer, back.fingerprint) == (fs.classes, fs.ids, fs.layer, fs.fingerprint)


def test_sets_without_labels_come_back(cache, tmp_path):
    fs = FeatureSet.from_arrays(a_set().features, layer="l")
    save_features(fs, path := tmp_path / "x.safetensors")
    fs = replace(fs, fingerprint=PRINT.digest)
    store(cache, fs)
    for back in (load_features(path), cache.load(PRINT.digest)):
        assert back.labels is None
        assert_close(back.features, fs.features, rtol=0, atol=0)
    assert [y for _, y in cache.open(PRINT.digest).batches(30)] == [None, None]


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_storage_types_round_as_torch_does(tmp_path, kind):
    cache = FeatureCache(tmp_path, storage=kind)
    fs = a_set()
    store(cache, fs)
    expected = fs.features.to(getattr(torch, kind)).float()
    assert_close(cache.load(fs.fingerprint).features, expected, rtol=0, atol=0)
    assert_close(round_through(fs.features, kind), expected, rtol=0, atol=0)


def test_overflow_of_float16_is_refused():
    big = torch.tensor([[65520.0]])
    with pytest.raises(CacheError, match="must fit float16, whose largest value is 65504, but reach 65520. Use"):
        round_through(big, "float16")
    assert_close(round_through(big, "bfloat16"), big, rtol=0.01, atol=0)


def test_rows_come_in_the_order_asked_for(cache):
    fs = a_set()
    store(cache, fs)
    cached = cache.open(fs.fingerprint)
    index = [49, 3, 4, 5, 3, 0]
    assert_close(cached.rows(index), fs.features[index], rtol=0, atol=0)
    assert_close(cached[-1][0], fs.features[-1], rtol=0, atol=0)
    for indices in ([50], [-51], [0.5], [True, False], [[0]], ["a"], None):
        for features in (cached, fs):  # one behaviour
            with pytest.raises(InputError, match="`indices` "):
                features.rows(indices)
    for indices in ([-1, 0], fs.labels == 1, np.array([3]), range(2), []):
        assert_close(cached.rows(indices), fs.rows(indices), rtol=0, atol=0)
    with pytest.raises(IndexError):
        cached[50]


@pytest.mark.parametrize("size", [1, 49, 50, 51])
def test_batches_are_all_rows_in_order(cache, size):
    fs = a_set()
    store(cache, fs)
    x, y = zip(*cache.open(fs.fingerprint).batches(size), strict=True)
    assert_close(torch.cat(x), fs.features, rtol=0, atol=0)
    assert_close(torch.cat(y), fs.labels, rtol=0, atol=0)


@pytest.mark.parametrize("lazy", [True, False])
def test_no_rows_are_one_empty_batch_which_tells_the_width(tmp_path, lazy):
    save_features(a_set()[:0], tmp_path / "none.safetensors")
    features = CachedFeatures(tmp_path / "none.safetensors")
    ((x, y),) = (features if lazy else features.load()).batches()
    assert (x.shape, y.shape) == ((0, *features.shape[1:]), (0,))


def test_indexing_what_has_no_labels_says_so(tmp_path):
    save_features(FeatureSet.from_arrays(torch.eye(3)), tmp_path / "unlabelled.safetensors")
    cached = CachedFeatures(tmp_path / "unlabelled.safetensors")
    for read in (lambda: cached[0], lambda: cached.__getitems__([0, 1])):
        with pytest.raises(InputError, match="`features` must have labels, got CachedFeatures"):
            read()
    assert_close(cached.rows([1]), torch.eye(3)[1:2], rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_dataloader_reads_from_the_open_file(cache, workers):
    fs = a_set()
    store(cache, fs)
    cached = cache.open(fs.fingerprint)
    cached.rows([0])  # opened before the workers fork
    loader = torch.utils.data.DataLoader(
        cached, batch_size=8, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    assert_close(torch.cat([x for x, _ in loader]), fs.features, rtol=0, atol=0)


def test_survives_pickling(cache):
    store(cache, a_set())
    cached = cache.open(PRINT.digest)
    cached.rows([0])
    assert_close(pickle.loads(pickle.dumps(cached)).rows([7]), cached.rows([7]), rtol=0, atol=0)


def test_a_miss_is_an_error_and_why_names_the_ingredient(cache):
    store(cache, a_set())
    other = Fingerprint({**PRINT.ingredients, "pooling": "max"})
    with pytest.raises(CacheMissError, match="nothing is stored under"):
        cache.load(other.digest)
    assert cache.why(other) == {"pooling": ("max", "mean")}
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        cache.path("../../etc/passwd")


def test_entries_size_remove_and_clear(cache):
    store(cache, a_set())
    second = Fingerprint({**PRINT.ingredients, "dataset": "other"})
    store(cache, a_set(fingerprint=second.digest), fingerprint=second)
    entries = cache.entries()
    assert sorted(entries["dataset"]) == ["noise", "other"]
    assert set(entries["state"]) == {"ok"}
    assert cache.size == sum(p.stat().st_size for p in cache.root.glob("*.safetensors"))
    assert repr(cache).startswith("FeatureCache(2 entries")
    assert cache.clear(name="other") == 1
    assert second.digest not in cache
    assert cache.clear(older_than_days=1) == 0
    cache.remove(PRINT.digest)
    assert cache.clear() == 0


def test_foreign_files_in_the_folder_are_left_alone(cache):
    store(cache, a_set())
    save_features(a_set(), cache.root / "mine.safetensors")
    assert cache.verify() == {PRINT.digest: "ok"}
    assert len(cache.entries()) == 1
    assert cache.clear() == 1
    assert (cache.root / "mine.safetensors").exists()


def test_default_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FROZENKIT_HOME", str(tmp_path))
    assert FeatureCache().root == tmp_path / "cache"
    monkeypatch.delenv("FROZENKIT_HOME")
    assert "frozenkit" in str(FeatureCache().root)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_an_unfinished_file_is_invisible_and_carried_on(cache):
    fs = a_set()
    store(cache, fs, upto=24)
    assert PRINT.digest not in cache
    part = cache._part(fs, tuple(fs.features.shape), 8, PRINT)
    assert part.finished_rows().tolist() == [True] * 24 + [False] * 26
    part.close()
    assert cache._unfinished_batch_size([PRINT.digest]) == 8


def test_other_batch_boundaries_begin_anew(cache):
    fs = a_set()
    store(cache, fs, upto=24)
    part = cache._part(fs, tuple(fs.features.shape), 10, PRINT)
    assert not part.finished_rows().any()
    part.close()


def test_a_shared_cache_is_read_and_never_written(tmp_path, monkeypatch):
    features = a_set()
    store(FeatureCache(tmp_path / "class"), features)
    (file,) = (tmp_path / "class").glob("*.safetensors")
    before = file.read_bytes()
    monkeypatch.setenv("FROZENKIT_SHARED_CACHE", str(tmp_path / "class"))
    own = FeatureCache(tmp_path / "mine")
    assert features.fingerprint in own
    torch.testing.assert_close(own.load(features.fingerprint).features, features.features, rtol=0, atol=0)
    assert not (tmp_path / "mine").exists()
    store(own, features)  # one's own comes first
    assert own.open(features.fingerprint).path == own.path(features.fingerprint)
    own.remove(features.fingerprint)
    own.clear()
    assert file.read_bytes() == before
    file.write_bytes(before[:-10])
    with pytest.raises(CacheError):
        own.open(features.fingerprint)


def test_read_only_folder_says_so_before_any_work(tmp_path):
    target = tmp_path / "file"
    target.write_text("not a folder")
    with (
        pytest.raises(CacheError, match=r"cannot write .*Choose another folder .*\$FROZENKIT_HOME"),
        FeatureCache(target / "cache")._writing([PRINT.digest]),
    ):
        pass


@pytest.mark.skipif(
    not hasattr(os, "posix_fallocate") or os.geteuid() != 0, reason="mounting a small disk needs root on Linux"
)
def test_full_disk_says_so_before_any_work(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        cache = FeatureCache(tmp_path)
        with pytest.raises(CacheError, match="No space left on device. Free some space"):
            cache._part(a_set(), (50, 100_000), 8, PRINT)
        assert PRINT.digest not in cache
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


WRITER = """
import sys, time, torch
from frozenkit.extraction.cache import FeatureCache
from tests.extraction.test_cache import PRINT, a_set
cache, fs = FeatureCache(sys.argv[1]), a_set(n=400)
with cache._writing([PRINT.digest]):
    if PRINT.digest not in cache:
        part = cache._part(fs, (400, 7), 8, PRINT)
        done = part.finished_rows()
        for start in range(0, 400, 8):
            if not done[start : start + 8].all():
                part.write(start, fs.features[start : start + 8])
                print(start, flush=True)
                time.sleep(float(sys.argv[2]))
        part.finish()
print("sum", cache.load(PRINT.digest).features.sum().item(), flush=True)
"""


def writer(root, pause):
    script = textwrap.dedent(WRITER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(pause)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_killed_and_resumed_computes_no_finished_batch_twice(tmp_path):
    """R1 in its short form: kill −9 in the middle, resume, bit-identical."""
    first = writer(tmp_path, 0.01)
    seen = [int(first.stdout.readline()) for _ in range(20)]
    first.send_signal(signal.SIGKILL)
    seen += [int(line) for line in first.communicate()[0].split()]
    second = writer(tmp_path, 0)
    lines = second.communicate()[0].split("\n")
    again = [int(line) for line in lines if line.isdigit()]
    assert not set(seen[:-1]) & set(again)  # the last one may have been cut before it was finished
    assert sorted({*seen, *again}) == list(range(0, 400, 8))
    assert_close(FeatureCache(tmp_path).load(PRINT.digest).features, a_set(n=400).features, rtol=0, atol=0)


def test_others_wait_for_the_leader_and_take_over_when_it_dies(tmp_path):
    """R4 in its short form."""
    leader = writer(tmp_path, 0.05)
    seen = [int(leader.stdout.readline()) for _ in range(5)]
    followers = [writer(tmp_path, 0.001) for _ in range(2)]
    time.sleep(1)
    leader.send_signal(signal.SIGKILL)
    seen += [int(line) for line in leader.communicate()[0].split()]
    outputs = [f.communicate(timeout=60)[0].split("\n") for f in followers]
    work = [int(line) for lines in outputs for line in lines if line.isdigit()]
    assert len(work) == len(set(work))  # one of the two, not both
    assert sorted({*seen, *work}) == list(range(0, 400, 8))
    assert len({line for lines in outputs for line in lines if line.startswith("sum")}) == 1


def test_waiting_is_said(cache, monkeypatch):
    import threading

    inside, leave = threading.Event(), threading.Event()

    def hold():
        with cache._writing([PRINT.digest]):
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    threading.Timer(2.5, leave.set).start()
    with pytest.warns(FrozenkitWarning, match=f"waiting for process {os.getpid()}"), cache._writing([PRINT.digest]):
        pass
    holder.join()


def test_a_file_system_without_locks_works_with_one_warning(cache, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(FrozenkitWarning, match="file system without locks") as caught, cache._writing([PRINT.digest]):
        store(cache, a_set())
    assert len(caught) == 1
    assert PRINT.digest in cache


# --- single files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("task", ["classes", "regression", "tokens"])
def test_save_and_load(tmp_path, suffix, task):
    fs = a_set(tokens=3 if task == "tokens" else None, fingerprint="f")
    if task == "regression":
        fs = replace(fs, labels=torch.randn(50, 2), classes=())
    path = tmp_path / f"features{suffix}"
    save_features(fs, path)
    back = load_features(path)
    assert_close(back.features, fs.features, rtol=0, atol=0)
    assert_close(back.labels, fs.labels, rtol=0, atol=0)
    assert (back.classes, back.ids, back.layer, back.fingerprint) == (fs.classes, fs.ids, fs.layer, fs.fingerprint)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_foreign_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"something else" * 50)
    with pytest.raises(CacheError, match="damaged|not written by save_features"):
        load_features(path)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", features=np.array([{"a": 1}], dtype=object), labels=np.zeros(1), about="{}")
    with pytest.raises(CacheError, match="allow_pickle"):
        load_features(tmp_path / "x.npz")


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors or \.npz, got 'x.pt'"):
        save_features(a_set(), tmp_path / "x.pt")
    with pytest.raises(InputError, match="must end in"):
        load_features(tmp_path / "x.pt")
    with pytest.raises(CacheError, match="does not exist"):
        load_features(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["v1.2", "notes", "x.Npz", "x.npz.bak", ".npz", "x.h5"])
def test_only_a_known_suffix_counts_as_one(tmp_path, name):
    with pytest.raises(InputError, match="must end in"):
        save_features(a_set(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saving_over_a_file_leaves_its_neighbours_alone(tmp_path, suffix):
    path, neighbour = tmp_path / f"x{suffix}", tmp_path / "x.part"
    neighbour.write_text("someone else's")
    for seed in (0, 1):
        save_features(a_set(seed=seed), path)
    assert_close(load_features(path).features, a_set(seed=1).features, rtol=0, atol=0)
    assert neighbour.read_text() == "someone else's"
    assert {*tmp_path.iterdir()} == {path, neighbour}


def test_only_feature_sets_are_saved(cache, tmp_path):
    store(cache, a_set())
    with pytest.raises(InputError, match="must be a FeatureSet, got CachedFeatures. Stored ones have `.load"):
        save_features(cache.open(PRINT.digest), tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("n", "d"), [(0, 7), (5, 0), (1, 1)])
def test_sets_without_rows_or_width_come_back(tmp_path, suffix, n, d):
    save_features(a_set(n=n, d=d), path := tmp_path / f"x{suffix}")
    back = load_features(path)
    assert back.features.shape == (n, d)
    assert back.labels.tolist() == a_set(n=n).labels.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_needs_a_gradient_or_half_precision_is_saved(tmp_path, suffix):
    fs = a_set()
    fs = replace(fs, features=fs.features.bfloat16().requires_grad_(), fingerprint="f")
    save_features(fs, path := tmp_path / f"x{suffix}")
    assert_close(load_features(path).features.float(), fs.features.detach().float(), rtol=0, atol=0)


def test_a_bomb_in_npz_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((10**6, 4)), labels=np.zeros(10**6), about="{}")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(CacheError, match="it is compressed, or names more than the file can hold"):
        load_features(tmp_path / "x.npz")


def test_an_array_in_npz_that_names_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    import io
    import zipfile

    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 2)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("features", "labels", "about"):
            archive.writestr(f"{name}.npy", array.getvalue())
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(CacheError, match="features.npy names more, or less, than it holds"):
        load_features(tmp_path / "x.npz")


def test_anothers_safetensors_and_npz_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", weight=np.zeros(3))
    with pytest.raises(CacheError, match="is damaged or not a feature file: its header is none of ours"):
        load_features(tmp_path / "x.safetensors")
    with pytest.raises(CacheError, match="was not written by save_features: it must hold features, labels and about"):
        load_features(tmp_path / "x.npz")


def test_pipes_and_folders_are_refused(tmp_path):
    for suffix in (".npz", ".safetensors"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"folder{suffix}").mkdir()
        for name in ("pipe", "folder"):
            with pytest.raises(CacheError, match="is a folder, a pipe or a device"):
                load_features(tmp_path / f"{name}{suffix}")
        with pytest.raises(CacheError, match="cannot write .*: Is a directory. Choose another folder"):
            save_features(a_set(), tmp_path / f"folder{suffix}")
    assert not list(tmp_path.glob("*.part"))


ABOUT = {"classes": ["a", "b", "c"], "ids": [str(i) for i in range(6)], "layer": "l", "fingerprint": "f"}
ODD_VALUES = [None, 7, "abc", [], [1, 2, 3], ["a"], {"a": 1}, [["a"], "b", "c"], ["a"] * 6, True, [None] * 6]


def fuzzed_abouts():
    """What `about` may hold instead: each part missing, and of each odd kind; and no dictionary at all."""
    for name in ABOUT:
        yield {key: value for key, value in ABOUT.items() if key != name}
        yield from (
            {**ABOUT, name: value} for value in ODD_VALUES if type(value) is not type(ABOUT[name]) or value == []
        )
    yield from ODD_VALUES


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_whatever_a_file_says_about_itself_it_is_loaded_or_refused(tmp_path, monkeypatch, suffix):
    """Signed nonsense: an error of ours, never a KeyError or TypeError."""
    from frozenkit.extraction import saved as saved_module

    fs = replace(FeatureSet.from_arrays(torch.randn(6, 2), torch.arange(6) % 3), fingerprint="f")
    path, real = tmp_path / f"x{suffix}", json.dumps
    refused = 0
    for about in fuzzed_abouts():
        with monkeypatch.context() as patch:
            if suffix == ".safetensors":
                patch.setattr(
                    storage_module.json,
                    "dumps",
                    lambda value, about=about, **more: real(
                        {**about, "ingredients": {}}
                        if isinstance(about, dict) and "classes" in value
                        else about
                        if "classes" in value
                        else value,
                        **more,
                    ),
                )
            else:
                signed = (
                    {**about, "sha256": saved_module._sha256(about, fs.features, fs.labels)}
                    if isinstance(about, dict)
                    else about
                )
                patch.setattr(
                    saved_module.json,
                    "dumps",
                    lambda value, signed=signed, **more: real(signed if "sha256" in value else value, **more),
                )
            save_features(fs, path)
        if suffix == ".safetensors" and isinstance(about, dict) and about.get("fingerprint") != "f":
            continue  # there, the header has it
        with pytest.raises(CacheError):
            load_features(path)
        refused += 1
    assert refused > 30


# --- odd things in the folder ----------------------------------------------------------------------------------------


def names_of_ours():
    return (f"{i:x}" * 64 for i in range(1, 16))


@pytest.fixture
def crowded(cache):
    """A cache with one sound entry, and what else may come to lie in its folder."""
    store(cache, a_set())
    names = names_of_ours()
    for suffix in (".safetensors", ".part"):
        (cache.root / f"{next(names)}{suffix}").mkdir()
        os.mkfifo(cache.root / f"{next(names)}{suffix}")
        (cache.root / f"{next(names)}{suffix}").symlink_to(cache.root / "nowhere")
    for name in (
        "download.part",
        "mine.safetensors",
        "notes.txt",
        f"{'a' * 63}.part",
        f"{'b' * 64}.lock",
        f"{'c' * 64}.x.part",
    ):
        (cache.root / name).write_text("someone else's")
    return cache


def test_odd_entries_neither_crash_nor_hang_nor_go(crowded):
    ours = crowded.path(PRINT.digest)
    others = {*crowded.root.iterdir()} - {ours}
    assert crowded.verify() == {PRINT.digest: "ok"}
    assert crowded.entries()["state"].tolist() == ["ok"]
    assert repr(crowded).startswith("FeatureCache(1 entry")
    assert crowded.size == ours.stat().st_size
    assert crowded.why(Fingerprint({**PRINT.ingredients, "pooling": "max"})) == {"pooling": ("max", "mean")}
    for name in names_of_ours():
        assert name not in crowded
        with pytest.raises(CacheMissError):
            crowded.load(name)
    assert crowded.clear(name="noise") == 1
    assert crowded.clear() == 0
    assert {*crowded.root.iterdir()} == others


def test_an_entry_that_cannot_be_read_is_listed_and_cleared(cache, monkeypatch):
    store(cache, a_set())
    real = os.open

    def refuse(path, *more):
        if str(path).endswith(".safetensors"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        for state in (cache.verify()[PRINT.digest], cache.entries()["state"][0]):
            assert "Permission denied. Mend its permissions" in state
        assert cache.why(PRINT) == {}
        assert cache.clear() == 1
    assert PRINT.digest not in cache


def test_an_entry_that_goes_while_it_is_looked_at_is_no_damage(cache, monkeypatch):
    store(cache, a_set())
    listed = cache._files()
    cache.remove(PRINT.digest)
    monkeypatch.setattr(FeatureCache, "_files", lambda *_: listed)
    assert cache.verify() == {}
    assert "does not exist" in cache.entries()["state"][0]
    assert cache.why(PRINT) == {}


def test_clear_takes_unfinished_parts_and_entries_from_the_future(cache):
    store(cache, a_set())
    other = Fingerprint({**PRINT.ingredients, "dataset": "other"})
    store(cache, a_set(fingerprint=other.digest), fingerprint=other, upto=24)
    third = Fingerprint({**PRINT.ingredients, "dataset": "third"})
    store(cache, a_set(fingerprint=third.digest), fingerprint=third)
    store(cache, a_set(fingerprint=third.digest), fingerprint=third, upto=24)  # entry and part: one, not two
    for path in cache.root.iterdir():
        os.utime(path, (time.time() + 10**6,) * 2)
    assert cache.clear(older_than_days=1) == 0
    assert cache.clear(name="other") == 1
    assert cache.clear() == 2
    assert list(cache.root.iterdir()) == []


@pytest.mark.parametrize("days", [float("nan"), -1, float("inf")])
def test_clear_refuses_ages_that_are_none(cache, days):
    store(cache, a_set())
    with pytest.raises(InputError, match="`older_than_days` must be a finite number of at least 0, got"):
        cache.clear(older_than_days=days)
    assert PRINT.digest in cache


def test_what_is_being_written_is_not_taken_away(cache):
    fs = a_set()
    with cache._writing([PRINT.digest]):
        part = cache._part(fs, tuple(fs.features.shape), 8, PRINT)
        for start in range(0, len(fs), 8):
            part.write(start, fs.features[start : start + 8])
        cache.remove(PRINT.digest)
        assert cache.clear() == 0
        assert [path.suffix for path in sorted(cache.root.iterdir())] == [".lock", ".part"]
        part.finish()
        part.close()
    assert cache.verify() == {PRINT.digest: "ok"}
    assert list(cache.root.iterdir()) == [cache.path(PRINT.digest)]


def test_without_locks_each_has_a_file_of_its_own(cache):
    fs = a_set()
    store(cache, fs, upto=16)  # another's, which may be alive
    before = (cache.root / f"{PRINT.digest}.part").read_bytes()
    shape = tuple(fs.features.shape)
    first, second = (cache._part(fs, shape, 8, PRINT, alone=False) for _ in range(2))
    assert not first.finished_rows().any()
    for part in (first, second):
        for start in range(0, len(fs), 8):
            part.write(start, fs.features[start : start + 8])
    for part in (first, second):
        part.finish()
        part.close()
    cache._part(fs, shape, 8, PRINT, alone=False).close()  # given up: nothing could go on from it
    assert_close(cache.load(PRINT.digest).features, fs.features, rtol=0, atol=0)
    assert {path.name for path in cache.root.iterdir()} == {f"{PRINT.digest}.safetensors", f"{PRINT.digest}.part"}
    assert (cache.root / f"{PRINT.digest}.part").read_bytes() == before
    assert cache.size > len(before)


def test_a_worker_never_reads_a_file_that_took_the_place_of_the_one_opened(tmp_path):
    """Seen to fail: rows of the new file came with the labels of the old one."""
    save_features(a_set(), path := tmp_path / "x.safetensors")
    cached = CachedFeatures(path)
    rows, sent = cached.rows([3]), pickle.dumps(cached)
    assert_close(pickle.loads(sent).rows([3]), rows, rtol=0, atol=0)
    save_features(a_set(seed=1, fingerprint="another"), path)
    assert_close(cached.rows([3]), rows, rtol=0, atol=0)
    with pytest.raises(CacheError, match="holds other features than when it was opened. Open it again"):
        pickle.loads(sent).rows([3])


def test_a_disk_without_room_for_a_lock_can_be_emptied(cache, monkeypatch):
    store(cache, a_set())
    real = os.open

    def full(path, flags, *rest, **more):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    assert cache.clear() == 1
    assert not list(cache.root.iterdir())


def test_more_rows_than_memory_holds_are_refused(cache, monkeypatch):
    store(cache, a_set())
    cached = cache.open(PRINT.digest)

    def none_left(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("frozenkit.extraction.cache.torch.empty", none_left)
    with pytest.raises(CacheError, match="cannot read .*: 50 rows do not fit into memory. Read fewer at a time"):
        cached.rows(range(50))


def test_a_name_with_nul_is_refused(tmp_path):
    with pytest.raises(CacheError, match="a file's name holds no NUL"):
        save_features(a_set(), tmp_path / "a\0b.safetensors")


@pytest.fixture
def without_locks(monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.filterwarnings("ignore:.*without locks")
@pytest.mark.parametrize("how", [lambda cache: cache.clear(), lambda cache: cache.remove(PRINT.digest)])
def test_without_locks_what_is_being_written_is_not_taken_away(cache, without_locks, how):
    """Seen to fail: the part went, and all the work of the extraction with it."""
    fs = a_set()
    with cache._writing([PRINT.digest]) as alone:
        part = cache._part(fs, tuple(fs.features.shape), 50, PRINT, alone=alone)
        assert not how(cache)
        part.write(0, fs.features)
        part.finish()
    assert cache.verify() == {PRINT.digest: "ok"}
    assert how(cache) in (1, None)
    assert list(cache.root.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*without locks")
def test_without_locks_a_killed_ones_part_goes_after_a_day(cache, without_locks):
    """Seen to fail: nobody carried it on, and nobody removed it."""
    fs, left = a_set(), []
    for name, age in (("1-0123abcd", 2 * 86_400), ("2-0123abcd", 60)):
        left.append(cache.root / f"{PRINT.digest}.{name}.part")
        cache.root.mkdir(exist_ok=True)
        left[-1].write_bytes(b"killed")
        os.utime(left[-1], (time.time() - age,) * 2)
    with cache._writing([PRINT.digest]) as alone:
        cache._part(fs, tuple(fs.features.shape), 8, PRINT, alone=alone).close()
    assert list(cache.root.iterdir()) == left[1:]
    os.utime(left[1], (time.time() - 2 * 86_400,) * 2)
    assert cache.clear() == 1
    assert list(cache.root.iterdir()) == []


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_saved_features_still_say_how_they_were_made(tmp_path, suffix):
    origin = Origin("resnet18", 64, "mean", "fast", "pets", 50, "image_folder('pets')")
    save_features(replace(a_set(), origin=origin), path := tmp_path / f"x{suffix}")
    assert load_features(path).origin == origin
    save_features(a_set(), path)
    assert load_features(path).origin is None
