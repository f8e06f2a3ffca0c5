"""The file of features: safetensors to others; to us whole or an error. No flip, cut or made-up header gets by."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from frozenkit.errors import CacheError
from frozenkit.extraction import _file as storage_module
from frozenkit.extraction._file import PartFile
from frozenkit.extraction.cache import CachedFeatures, FeatureCache
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint
from tests.extraction.stored import PRINT, a_set, store


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("n", [1, 49, 50])
def test_files_open_in_plain_safetensors(tmp_path, kind, n):
    fs = a_set(n)
    store(cache := FeatureCache(tmp_path, storage=kind), fs)
    tensors = load_file(cache.path(fs.fingerprint))
    assert_close(tensors["features"], fs.features.to(getattr(torch, kind)), rtol=0, atol=0)
    assert_close(tensors["labels"], fs.labels, rtol=0, atol=0)
    about = json.loads(bytes(tensors["about"].tolist()))
    assert about["ingredients"] == PRINT.ingredients
    assert about["ids"] == list(fs.ids)


def test_a_torn_row_is_not_finished(cache):
    """What a power cut leaves: the checksum reached the disk, half of the row did not."""
    fs = a_set()
    store(cache, fs, upto=24)
    part = PartFile.resume(cache.path(PRINT.digest), PRINT.digest)
    at = part.header.blocks["features"][0] + 5 * part.header.row_bytes
    os.pwrite(part._descriptor, b"\0" * 10, at)
    assert part.finished_rows().nonzero()[0].tolist() == [i for i in range(24) if i != 5]
    part.close()


def test_every_flipped_byte_is_detected_or_harmless(cache):
    """R2 in its short form: 200 seeded flips; not one wrong row, label, id or class is returned."""
    fs = a_set()
    store(cache, fs)
    path = cache.path(PRINT.digest)
    original = path.read_bytes()
    random = np.random.RandomState(0)
    detected = 0
    for place in random.choice(len(original), 200, replace=False):
        damaged = bytearray(original)
        damaged[place] ^= 1 << random.randint(8)
        path.write_bytes(damaged)
        try:
            back = cache.load(PRINT.digest)
        except CacheError:
            detected += 1
            continue
        assert_close(back.features, fs.features, rtol=0, atol=0)
        assert_close(back.labels, fs.labels, rtol=0, atol=0)
        assert (back.classes, back.ids, back.layer) == (fs.classes, fs.ids, fs.layer)
    assert detected > 20  # the rest fell into the header's padding
    path.write_bytes(original)
    assert cache.verify() == {PRINT.digest: "ok"}


def test_without_the_row_checksum_a_flip_would_pass(cache, monkeypatch):
    """The test of the test: with the check switched off, a wrong row is returned."""
    fs = a_set()
    store(cache, fs)
    part = CachedFeatures(cache.path(PRINT.digest))
    at = part._open().header.blocks["features"][0]
    damaged = bytearray(cache.path(PRINT.digest).read_bytes())
    damaged[at] ^= 1
    cache.path(PRINT.digest).write_bytes(damaged)
    with pytest.raises(CacheError, match="row 0 does not match its checksum"):
        cache.load(PRINT.digest)
    assert "row 0" in cache.verify()[PRINT.digest]
    file = storage_module.FeatureFile(cache.path(PRINT.digest))
    monkeypatch.setattr(storage_module, "_checksums", lambda _h, start, data: file._checksums[start:])
    assert (cache.load(PRINT.digest).features != fs.features).any()
    file.close()


def test_rows_that_changed_places_are_detected(cache):
    store(cache, a_set())
    path = cache.path(PRINT.digest)
    header = cache.open(PRINT.digest)._open().header
    data = bytearray(path.read_bytes())
    a, b = (
        slice(
            header.blocks["features"][0] + i * header.row_bytes,
            header.blocks["features"][0] + (i + 1) * header.row_bytes,
        )
        for i in (3, 9)
    )
    data[a], data[b] = data[b], data[a]
    sums = np.frombuffer(data, "<u4", 50, header.blocks["checksums"][0])
    sums[[3, 9]] = sums[[9, 3]]
    path.write_bytes(data)
    with pytest.raises(CacheError, match="row 3"):
        cache.load(PRINT.digest)


@pytest.mark.parametrize("keep", [0, 100, 5000, -1])
def test_truncated_files_are_damaged(cache, keep):
    store(cache, a_set())
    path = cache.path(PRINT.digest)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CacheError, match="damaged"):
        cache.load(PRINT.digest)


def test_another_version_is_not_read_as_current(cache):
    store(cache, a_set())
    resealed(cache.path(PRINT.digest), layout=5)
    with pytest.raises(CacheError, match="was written in layout 5, this version reads 4. Extract it again"):
        cache.load(PRINT.digest)


OLD = Path(__file__).parent / "version_0_1"  # files that the two layouts of version 0.1 wrote
OLD_PRINT = Fingerprint({"of": "version 0.1"})


@pytest.mark.parametrize("layout", ["early", "late"])
def test_an_old_entry_is_named_and_makes_room(cache, layout):
    cache.root.mkdir()
    old = shutil.copy(OLD / layout / "entry.h5", cache.path(OLD_PRINT.digest).with_suffix(".h5"))
    said = "h5 was written by frozenkit 0.1, which this version does not read. Extract its features again"
    with pytest.raises(CacheError, match=rf"{said}\.$"):
        cache.open(OLD_PRINT.digest)
    with pytest.raises(CacheError, match=rf"{said}, or read its `features` and `labels` with h5py, make a set"):
        load_features(old)
    assert cache.outdated() == [cache.path(OLD_PRINT.digest).with_suffix(".h5")]
    assert cache.verify() == {}  # it is never returned
    assert "frozenkit 0.1" in cache.entries()["state"][0]
    assert cache.size > 4096
    store(cache, a_set(n=6, fingerprint=OLD_PRINT.digest), fingerprint=OLD_PRINT)
    assert len(cache.load(OLD_PRINT.digest)) == 6
    assert cache.verify() == {OLD_PRINT.digest: "ok"}
    assert cache.clear() == 1
    assert list(cache.root.iterdir()) == []


def test_an_old_file_beside_an_entry_hides_no_damage_and_goes_alone(cache):
    store(cache, a_set(n=6, fingerprint=OLD_PRINT.digest), fingerprint=OLD_PRINT)
    new, old = cache.path(OLD_PRINT.digest), cache.path(OLD_PRINT.digest).with_suffix(".h5")
    shutil.copy(OLD / "late" / "entry.h5", old)
    os.utime(old, (0, 0))  # what was there before
    assert cache.verify() == {OLD_PRINT.digest: "ok"}
    sound, at = new.read_bytes(), cache.open(OLD_PRINT.digest)._open().header.blocks["features"][0]
    new.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    assert "row 0 does not match its checksum" in cache.verify()[OLD_PRINT.digest]
    new.write_bytes(sound)
    assert cache.remove_outdated() == 1
    assert cache.outdated() == []
    assert len(cache.load(OLD_PRINT.digest)) == 6
    assert cache.remove_outdated() == 0


def test_another_programs_h5_is_not_called_ours(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    with pytest.raises(CacheError, match="x.h5 is damaged or not a feature file: its header is none of ours"):
        load_features(tmp_path / "x.h5")


@pytest.mark.parametrize("layout", ["early", "late"])
def test_old_saved_features_are_read_or_refused_with_what_to_do(layout):
    said = "safetensors was written by frozenkit 0.1, which .* with safetensors.torch.load_file, make a set of them"
    with pytest.raises(CacheError, match=said):
        load_features(path := OLD / layout / "saved.safetensors")
    tensors = load_file(path)  # what the message says works
    right = FeatureSet.from_arrays(tensors["features"], tensors["labels"])
    if layout == "early":
        with pytest.raises(CacheError, match="carries no sha256: .* Extract the features, and save them, again"):
            load_features(OLD / layout / "saved.npz")
    else:
        assert_close(load_features(OLD / layout / "saved.npz").features, right.features, rtol=0, atol=0)


def resealed(path, **changes):
    """A sound feature file whose header was changed and signed again, as anyone can."""
    content = bytearray(path.read_bytes())
    header = storage_module.Header.from_bytes(bytes(content[:4096]), path)
    static = [content[start : start + length] for start, length in map(header.blocks.get, ("labels", "about"))]
    try:
        changed = replace(header, **{"digest": "", **changes})
        block = replace(changed, digest=storage_module._digest(changed, *static)).to_bytes()
    except Exception:  # of what has no table: then the table of before
        text = json.loads(content[8:4096])
        text["__metadata__"]["frozenkit"] = json.dumps(json.loads(text["__metadata__"]["frozenkit"]) | changes)
        block = (4088).to_bytes(8, "little") + json.dumps(text).encode().ljust(4088)
    content[:4096] = block
    path.write_bytes(content)
    return path


def sealed(path, **changes):
    save_features(a_set(fingerprint="f"), path)
    return resealed(path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (10**13, 2)},  # 80 TB
        {"shape": (50, 10**13)},
        {"labels_shape": (10**13,)},
        {"labels_shape": (50, 10**13)},
        {"labels_shape": (50, 10**13), "labels_type": "float32"},
        {"labels_shape": (49,)},
        {"labels_shape": ()},
        {"labels_shape": [50] + [1] * 70},
        {"about_bytes": 8 * 10**13},
        {"about_bytes": -1},
        {"about_bytes": 1.5},
        {"batch_size": True},
        {"shape": (50, -7)},
        {"shape": (50,)},
        {"shape": ()},
        {"shape": (True, 7)},
        {"shape": ("ab", 7)},
        {"labels_type": "object"},
        {"labels_type": "complex64"},
        {"labels_type": ["int64"]},
        {"labels_type": ""},
        {"storage": "gzip"},
        {"storage": "float64"},
        {"fingerprint": None},
        {"fingerprint": "\udcff"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_header_that_names_what_the_file_cannot_hold_is_refused(tmp_path, changes):
    with pytest.raises(CacheError, match="is damaged( or not a feature file: its header|: [0-9]+ bytes)"):
        load_features(sealed(tmp_path / "x.safetensors", **changes))


def test_a_table_that_points_elsewhere_is_refused(tmp_path):
    """What another reader of safetensors would get from this file must be what we get."""
    save_features(a_set(fingerprint="f"), path := tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes())
    text = content[8:4096].replace(b'"shape": [50, 7]', b'"shape": [7, 50]').replace(b"[50, 7], [", b"[50, 7], [")
    assert text != content[8:4096]
    content[8:4096] = text
    path.write_bytes(content)
    with pytest.raises(CacheError, match="is damaged or not a feature file: its header contradicts itself"):
        load_features(path)


@pytest.mark.parametrize(
    "text", [b"[]", b'{"format": 3}', b"[" * 3000, b"7", b"\xff", b'{"__metadata__": {"frozenkit": 7}}']
)
def test_a_header_that_is_no_header_is_refused(tmp_path, text):
    (tmp_path / "x.safetensors").write_bytes(((4088).to_bytes(8, "little") + text).ljust(5000))
    with pytest.raises(CacheError, match="is damaged or not a feature file: its header is none of ours"):
        load_features(tmp_path / "x.safetensors")


def test_a_rename_that_worked_and_was_reported_as_failed_counts(cache, monkeypatch):
    """A network file system repeats a request whose answer was lost; the second one finds nothing to rename."""
    from pathlib import Path

    real = Path.replace

    def twice(self, target):
        real(self, target)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", twice)
    store(cache, a_set())
    assert cache.verify() == {PRINT.digest: "ok"}


def test_a_part_that_someone_removed_is_said(cache):
    fs = a_set()
    part = cache._part(fs, tuple(fs.features.shape), 50, PRINT)
    part.write(0, fs.features)
    (cache.root / f"{PRINT.digest}.part").unlink()
    with pytest.raises(CacheError, match="cannot write .*No such file or directory"):
        part.finish()
    part.close()
