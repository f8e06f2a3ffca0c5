import hashlib
import importlib.util
import multiprocessing
import os
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import FrozenkitWarning, from_torch, image_folder, list_datasets, load_dataset, shift
from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.images import catalog
from frozenkit.images.dataset import ArraySource, ImageDataset, open_image

KINDS = ("rotate", "blur", "noise", "invert", "contrast", "resolution")
BUNDLED = ("emoji-google", "emoji-twitter", "fashion-mnist")
DIGESTS = {"emoji-google": "78df74f2a78f", "emoji-twitter": "ed0bab01c4cb", "fashion-mnist": "5f5fda5d74aa"}


def pixels(dataset, i=0):
    return np.asarray(dataset[i][0])


def small(labels=(0, 1, 0, 1), classes=("cat", "dog"), name="small", values=None, ids=None):
    values = np.arange(len(labels) * 48, dtype=np.uint8).reshape(-1, 4, 4, 3) if values is None else values
    ids = ids or [f"id{i}" for i in range(len(labels))]
    return ImageDataset(ArraySource(values), labels, classes, ids, name=name)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for k, name in enumerate(("dog", "cat")):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (6, 5), (50 * i, 100 * k, 7)).save(root / name / f"{i}.png")
    return root


# --- bundled sets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "train", "test", "k"),
    [
        ("emoji-google", 600, 257, 5),
        ("emoji-twitter", 600, 257, 5),
        ("emoji", 1200, 514, 5),
        ("fashion-mnist", 4000, 2000, 10),
        ("digits", 1258, 539, 10),
    ],
)
def test_sizes_and_that_train_and_test_are_disjoint(name, train, test, k):
    a, b = load_dataset(name), load_dataset(name, split="test")
    assert (len(a), len(b), len(a.classes)) == (train, test, k)
    assert not set(a.ids) & set(b.ids)
    assert set(a.labels.tolist()) == set(b.labels.tolist()) == set(range(k))
    picture, label = a[0]
    assert (picture.mode, type(label), a.labels.dtype) == ("RGB", int, torch.int64)
    assert list_datasets().loc[name, "images"] == f"{train:,} / {test:,}"
    assert list_datasets().loc[name, "classes"] == k


def test_fashion_is_balanced():
    assert torch.bincount(load_dataset("fashion-mnist").labels).tolist() == [400] * 10
    assert torch.bincount(load_dataset("fashion-mnist", split="test").labels).tolist() == [200] * 10


@pytest.mark.skipif(not catalog._DEBIAN_FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
@pytest.mark.parametrize("part", ["train", "test"])
def test_bundled_fashion_is_a_part_of_the_full_set(part, tmp_path):
    some, full = (
        load_dataset("fashion-mnist", split=part),
        load_dataset("fashion-mnist-full", split=part, root=tmp_path),
    )
    assert len(full) == {"train": 60_000, "test": 10_000}[part]
    where = {name: i for i, name in enumerate(full.ids)}
    for i in range(0, len(some), 97):
        np.testing.assert_array_equal(pixels(some, i), pixels(full, where[some.ids[i]]))
        assert some[i][1] == full[where[some.ids[i]]][1]


@pytest.mark.parametrize("part", ["train", "test"])
def test_both_emoji_styles_hold_the_same_pictures_in_the_same_order(part):
    google, twitter = (load_dataset(f"emoji-{style}", split=part) for style in ("google", "twitter"))
    assert [i.split("/")[1] for i in google.ids] == [i.split("/")[1] for i in twitter.ids]
    torch.testing.assert_close(google.labels, twitter.labels, rtol=0, atol=0)
    assert google.digest != twitter.digest
    assert google.classes == ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
    both = load_dataset("emoji", split=part)
    np.testing.assert_array_equal(pixels(both, len(google)), pixels(twitter))
    assert torch.bincount(both.tasks["style"][0]).tolist() == [len(google)] * 2


def test_every_subcategory_can_be_learnt_and_tested():
    (train, names), (test, _) = (load_dataset("emoji-google", split=s).tasks["subcategory"] for s in ("train", "test"))
    assert set(train.tolist()) == set(test.tolist()) == set(range(len(names)))
    assert int(torch.bincount(train).min()) >= 4
    assert "animal-amphibian" not in names  # one frog, which joined the reptiles


def test_a_subcategory_lies_in_one_category():
    ds = load_dataset("emoji-twitter")
    pairs = set(zip(ds.tasks["subcategory"][0].tolist(), ds.labels.tolist(), strict=True))
    assert len(pairs) == len(ds.tasks["subcategory"][1])


def test_transparency_of_the_emoji_is_white():
    ds = load_dataset("emoji-twitter")
    corners = np.stack([pixels(ds, i)[0, 0] for i in range(50)])
    assert (corners == 255).all(1).mean() > 0.9


def test_what_is_bundled_is_small_and_whole():
    data = Path(catalog.__file__).parent / "bundled"
    files = {p.name: p for p in data.iterdir() if p.suffix in (".webp", ".json")}
    assert set(files) == set(catalog._SHA256)
    assert sum(p.stat().st_size for p in files.values()) < 7_000_000
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == catalog._SHA256[name]
    licences = (data / "LICENSES.md").read_text()
    assert all(word in licences for word in ("Zalando", "Apache-2.0", "CC-BY-4.0", "Twitter", "Google", *files))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_bundle_is_reported_and_never_read(damage, tmp_path, monkeypatch):
    for name in catalog._SHA256:
        content = bytearray((Path(catalog.__file__).parent / "bundled" / name).read_bytes())
        if name == "emoji-google.webp":
            content[len(content) // 2] ^= damage == "flip"
            content = content[: -1 if damage == "cut" else None]
        if not (damage == "gone" and name == "emoji-google.webp"):
            (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(catalog, "_BUNDLED", tmp_path)
    assert len(load_dataset("emoji-twitter")) == 600
    with pytest.raises(DataError, match=r"emoji-google\.webp is not the file that frozenkit came with"):
        load_dataset("emoji-google")


def test_digests_of_the_bundled_sets_do_not_drift():
    """Every cached feature is keyed by them."""
    found = {name: load_dataset(name).digest[:12] for name in BUNDLED}
    assert found == DIGESTS


# --- load_dataset ---------------------------------------------------------------------------------


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match=r"got 'emoji-gogle'\. Did you mean 'emoji-google'\? See list_datasets"):
        load_dataset("emoji-gogle")
    with pytest.raises(InputError, match="`split` must be 'train' or 'test', got 'val'"):
        load_dataset("digits", split="val")


@pytest.mark.parametrize("limit", [5, 6, 7, 50, 101, 599])
def test_limit_is_exact_stratified_and_seeded(limit):
    ds = load_dataset("emoji-google", limit=limit, seed=1)
    assert len(ds) == limit
    assert len(ds.labels.unique()) == 5
    assert ds.ids == load_dataset("emoji-google", limit=limit, seed=1).ids
    assert ds.ids != load_dataset("emoji-google", limit=limit, seed=2).ids


@pytest.mark.parametrize("limit", [257, 258])
def test_a_generous_limit_gives_everything(limit):
    assert len(load_dataset("emoji-google", split="test", limit=limit)) == 257


@pytest.mark.parametrize("limit", [4, 0, -1])
def test_a_limit_below_one_picture_a_class_is_refused(limit):
    with pytest.raises(InputError, match=f"`limit` must be at least one picture a class, 5 here, got {limit}"):
        load_dataset("emoji-google", limit=limit)


def test_what_needs_a_download_says_what_to_do_when_there_is_no_network(tmp_path, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        NotAvailableError, match=r"cifar10 is not in .* and could not be downloaded .*list_datasets"
    ) as e:
        load_dataset("cifar10", root=tmp_path)
    assert "\n" not in str(e.value)


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f'needs {package}: pip install -e ".[data]"')


@pytest.mark.parametrize(
    ("name", "train", "k"),
    [
        ("mnist", [350] * 10, 10),
        pytest.param("textures", [32] * 3, 3, marks=needs("skimage")),
        pytest.param("textiles", [350, 350, 700], 3, marks=needs("conformal_clip_data")),
    ],
)
def test_sets_from_optional_packages(name, train, k):
    a, b = load_dataset(name), load_dataset(name, split="test")
    assert len(a.classes) == k
    assert torch.bincount(a.labels).tolist() == train
    assert not set(a.ids) & set(b.ids)
    assert a[0][0].mode == "RGB"
    assert list_datasets().loc[name, "available"]
    assert list_datasets().loc[name, "images"] == f"{len(a):,} / {len(b):,}"


@pytest.mark.parametrize(
    ("name", "package"), [("textiles", "conformal_clip_data"), ("textures", "skimage"), ("retinal-oct", "medmnist")]
)
def test_a_missing_package_is_named(name, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(NotAvailableError, match=f"{name} comes with the package .*: pip install"):
        load_dataset(name)


def test_the_table_lists_everything():
    table = list_datasets()
    assert set(table.columns) == {"classes", "images", "source", "available"}
    assert set(BUNDLED) | {"digits", "cifar10", "cifar100", "flowers102", "dtd", "retinal-oct"} <= set(table.index)
    assert table.loc[list(BUNDLED), "available"].all()


# --- ImageDataset ---------------------------------------------------------------------------------


def test_digest_depends_on_pixels_labels_classes_ids_and_order():
    values = np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3)
    one_pixel = values.copy()
    one_pixel[2, 0, 0, 0] ^= 1
    variants = [
        small(),
        small(values=one_pixel),
        small(labels=(1, 1, 0, 1)),
        small(classes=("cat", "fox")),
        small(ids=["a", "id1", "id2", "id3"]),
        small(values=values.reshape(4, 2, 8, 3)),
        small().subset([1, 0, 2, 3]),
        small().subset([0, 1, 2]),
    ]
    assert len({v.digest for v in variants}) == len(variants)
    assert small().digest == small(name="another name").digest == small().subset(range(4)).digest
    assert small().digest == small().subset([3, 2, 1, 0]).subset([3, 2, 1, 0]).digest
    assert len(small().digest) == 64


def test_subset_takes_rows_in_the_order_given():
    ds = load_dataset("emoji-google")
    part = ds.subset(torch.tensor([5, -1, 0]))
    assert part.ids == (ds.ids[5], ds.ids[-1], ds.ids[0])
    assert [label for _, label in part] == ds.labels[[5, -1, 0]].tolist() == part.labels.tolist()
    np.testing.assert_array_equal(pixels(part, 1), pixels(ds, 599))
    torch.testing.assert_close(part.tasks["subcategory"][0], ds.tasks["subcategory"][0][[5, -1, 0]], rtol=0, atol=0)
    assert ds.subset(ds.labels.numpy() == 0).labels.unique().tolist() == [0]
    assert len(ds.subset([])) == 0


@pytest.mark.parametrize("indices", [[4], [-5], [0.5], [True, False], [[0], [1]], ["a"]])
def test_subset_refuses_what_is_no_row(indices):
    with pytest.raises(InputError, match="`indices` must be whole numbers below 4, or that many booleans"):
        small().subset(indices)


def test_indexing_ends_where_the_data_ends():
    ds = small()
    assert ds[-1][1] == 1
    assert len(list(ds)) == 4
    with pytest.raises(IndexError):
        ds[4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": (0, 1, 0, 2)}, r"must lie in 0\.\.1 for 2 classes"),
        ({"labels": (0, 1, 0, -1)}, r"must lie in 0\.\.1 for 2 classes"),
        ({"labels": (0, 1, 0.5, 1)}, r"label 2 is 0\.5\. Number the classes first"),
        ({"labels": ("cat", "dog", "cat", "dog")}, "label 0 is 'cat'"),
        ({"labels": torch.tensor([0.0, 1, float("nan"), 1])}, "label 0 is 0.0"),
        ({"labels": np.zeros((4, 1), int)}, r"label 0 is \[0\]"),
        ({"ids": ["a", "b", "c", "a"]}, "`ids` must be unique"),
        ({"ids": ["a", "b", "c"]}, "one entry a picture, got 4, 3"),
    ],
)
def test_parts_must_fit_together(change, message):
    with pytest.raises(InputError, match=message):
        small(**change)


def test_names_from_data_never_become_markup():
    ds = small(classes=("<script>alert(1)</script>", "a' onerror='alert(2)"), name="<img src=x>")
    shown = ds._repr_html_()
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert "' onerror='" not in shown
    assert shown.count("data:image/png;base64,") == 2
    assert repr(small()) == "ImageDataset('small', 4 images, 2 classes)"
    assert "ImageDataset" in small().subset([])._repr_html_()


def _digest_of(pickled):
    return pickle.loads(pickled).digest


def test_pickle_copies_and_other_processes_agree(folder):
    for ds in (small(), image_folder(folder), shift(small(), "noise", 2)):
        pickled = pickle.dumps(ds)
        np.testing.assert_array_equal(pixels(pickle.loads(pickled), 1), pixels(ds, 1))
        assert _digest_of(pickled) == ds.digest
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_digest_of, (pickle.dumps(small()),)) == small().digest


def test_threads_read_what_one_thread_reads(folder):
    for ds in (load_dataset("emoji-google", limit=50), image_folder(folder), shift(small(), "noise", 3)):
        order = list(range(len(ds))) * 8
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(lambda i, ds=ds: pixels(ds, i), order))
        for i, got in zip(order, many, strict=True):
            np.testing.assert_array_equal(got, pixels(ds, i))


def test_what_is_returned_can_be_drawn_on_without_harm():
    ds = small()
    before = pixels(ds).copy()
    ds[0][0].paste((1, 2, 3), (0, 0, 4, 4))
    np.testing.assert_array_equal(pixels(ds), before)


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_of_folders(folder):
    ds = image_folder(folder)
    assert ds.classes == ("cat", "dog")
    assert ds.ids == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert ds.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (ds.name, ds.skipped) == ("pets", ())
    assert ds[1][0].getpixel((0, 0)) == (50, 100, 7)
    assert image_folder(str(folder)).digest == ds.digest


def test_the_digest_covers_file_bytes(folder):
    before = image_folder(folder)
    assert before.digest
    kept = before.digest
    Image.new("RGB", (6, 5), (1, 2, 3)).save(folder / "cat" / "1.png")
    assert image_folder(folder).digest != kept
    (folder / "cat" / "1.png").rename(folder / "cat" / "9.png")
    assert image_folder(folder).ids[2] == "cat/9.png"


def test_hidden_files_and_other_files_are_ignored(folder):
    before = image_folder(folder).digest
    (folder / "cat" / ".hidden.png").write_bytes(b"x")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "readme.png").write_bytes(b"x")
    for name in (".git", "cat/.ipynb_checkpoints"):
        (folder / name).mkdir()
        Image.new("RGB", (2, 2)).save(folder / name / "0-checkpoint.png")
    assert image_folder(folder).digest == before


def test_subfolders_of_a_class_belong_to_it(folder):
    (folder / "cat" / "more").mkdir()
    Image.new("RGB", (2, 2)).save(folder / "cat" / "more" / "0.JPG")
    assert "cat/more/0.JPG" in image_folder(folder).ids


def test_missing_empty_one_class_one_image_are_named(tmp_path, folder):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"0\.png is not a folder"):
        image_folder(folder / "cat" / "0.png")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="void holds no images"):
        image_folder(tmp_path / "void")
    with pytest.raises(DataError, match="cat holds no images"):
        image_folder(folder / "cat")
    (folder / "fox").mkdir()
    with pytest.raises(
        DataError,
        match="fox must hold at least two readable images, but has none. Add images, or",
    ):
        image_folder(folder)
    Image.new("RGB", (2, 2)).save(folder / "fox" / "only.png")
    with pytest.raises(DataError, match=r"fox must hold at least two readable images, but has only 'only\.png'"):
        image_folder(folder)
    for name in ("cat", "fox"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    with pytest.raises(DataError, match="at least two classes to tell apart, but .*pets has only 'dog'"):
        image_folder(folder)


def test_parts_of_a_set_are_not_taken_for_classes(tmp_path, folder):
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"parts of a data set, not classes\. Give them one by one: '.*test' and '.*train'"
    ):
        image_folder(tmp_path / "set")


def _png(width, height):
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "bomb", "huge bomb"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_unreadable_picture_is_named_or_skipped_but_never_lost_silently(kind, suffix, folder):
    good = image_folder(folder)
    bad = folder / "cat" / f"zz.{suffix}"
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(
        {
            "empty": b"",
            "truncated": whole[: len(whole) // 2],
            "text": b"this is no picture",
            "bomb": _png(9_000, 9_000),
            "huge bomb": _png(60_000, 60_000),
        }[kind]
    )
    with pytest.raises(DataError, match=rf"zz\.{suffix}"):
        image_folder(folder)
    with pytest.warns(FrozenkitWarning, match=rf"left out 1 unreadable images: cat/zz\.{suffix}"):
        rest = image_folder(folder, skip_bad=True)
    assert rest.ids == good.ids
    assert rest.digest == good.digest
    assert [name for name, _ in rest.skipped] == [f"cat/zz.{suffix}"]
    assert rest.subset([0, 3]).skipped == rest.skipped


def test_skipping_can_leave_too_few(folder):
    for i in (0, 1):
        (folder / "dog" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)at least two classes .* only 'cat', once .*dog must .* only '2\.png'"):
        image_folder(folder, skip_bad=True)


def test_all_problems_of_a_folder_are_named_in_one_run_and_can_be_skipped_at_once(folder):
    good = image_folder(folder)
    (folder / "cat" / "empty.png").write_bytes(b"")
    (folder / "dog" / "text.jpg").write_bytes(b"text")
    (folder / "fox").mkdir()
    (folder / "owl").mkdir()
    Image.new("RGB", (2, 2)).save(folder / "owl" / "only.png")
    with pytest.raises(DataError, match=r"pets has 4 problems\. With skip_bad=True they are left out\.") as caught:
        image_folder(folder)
    lines = str(caught.value).splitlines()[1:]
    assert [line.removeprefix(f"- {folder}/") for line in lines] == [
        "cat/empty.png is not a readable image: it is empty. Repair or remove it.",
        "dog/text.jpg is not a readable image: it is no image of a known format. Repair or remove it.",
        "fox must hold at least two readable images, but has none. Add images, or remove the folder.",
        "owl must hold at least two readable images, but has only 'only.png'. Add images, or remove the folder.",
    ]
    assert [f"- {problem}" for problem in caught.value.problems] == lines
    assert all(problem.can_skip for problem in caught.value.problems)
    with pytest.warns(FrozenkitWarning, match="left out 2 unreadable images and 2 classes with fewer than two"):
        rest = image_folder(folder, skip_bad=True)
    assert (rest.ids, rest.classes, rest.digest) == (good.ids, good.classes, good.digest)
    assert [name for name, _ in rest.skipped] == ["cat/empty.png", "dog/text.jpg", "fox", "owl"]


def test_a_long_list_of_problems_says_how_many_more(folder):
    for i in range(30):
        (folder / "cat" / f"bad{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match="pets has 30 problems") as caught:
        image_folder(folder)
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).endswith("- … and 10 more")
    assert len(caught.value.problems) == 30


def test_an_unreadable_subfolder_is_named_and_not_skipped(folder, monkeypatch):
    """Seen to fail: six of seven images came, without a word. Root may read all, so the refusal is played."""
    (folder / "cat" / "locked").mkdir()
    Image.new("RGB", (2, 2)).save(folder / "cat" / "locked" / "a.png")
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match="cat/locked cannot be read: Permission denied. Ask for the right"):
            image_folder(folder, skip_bad=skip_bad)


def test_class_names_that_read_alike_are_named(folder):
    for name in ("caf\u00e9", "cafe\u0301"):
        (folder / name).mkdir()
        for i in range(2):
            Image.new("RGB", (2, 2)).save(folder / name / f"{i}.png")
    with pytest.raises(DataError, match=r"reads like another class, 'cafe\\u0301'; this one is 'caf\\xe9'. Merge or"):
        image_folder(folder, skip_bad=True)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_names_that_are_not_utf8_can_be_printed_and_written(folder):
    os.rename(folder / "dog", os.fsencode(folder) + b"/d\xf6g")  # noqa: PTH104
    os.rename(folder / "cat" / "0.png", os.fsencode(folder) + b"/cat/\xff.png")  # noqa: PTH104
    ds = image_folder(folder)
    assert ds.classes == ("cat", r"d\xf6g")
    assert r"cat/\xff.png" in ds.ids
    "\n".join([*ds.classes, *ds.ids, repr(ds), ds._repr_html_(), ds.digest]).encode()
    assert ds[2][0].size == ds[3][0].size == (6, 5)


def test_postscript_by_any_name_never_reaches_an_interpreter(folder, tmp_path, monkeypatch):
    """Seen to fail: PIL hands PostScript to Ghostscript, whatever the file's name."""
    from frozenkit.widgets.teachlab import _decoded

    trace, tools = tmp_path / "ran", tmp_path / "tools"
    tools.mkdir()
    fake = f"#!/bin/sh\ntouch {trace}\nexit 1\n"
    (tools / "gs").write_text(fake)
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked up anew
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
    (folder / "cat" / "evil.png").write_bytes(content)
    with pytest.raises(DataError, match=r"evil\.png is not a readable image: it is no image of a known format"):
        image_folder(folder)
    with pytest.raises(DataError, match="could not be read as an image: it is no image of a known format. PNG, JPEG"):
        _decoded(content)
    assert not trace.exists()
    with suppress(Exception), Image.open(folder / "cat" / "evil.png") as file:  # the broken variant
        file.load()
    assert trace.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_file_replaced_by_a_pipe_or_a_device_is_named_without_waiting(folder):
    ds = image_folder(folder)
    file = folder / "cat" / "0.png"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=r"cat/0\.png is not a readable image: it is no regular file"):
        ds[0]
    with pytest.raises(DataError, match=r"cat/0\.png is not a readable image: it is no regular file"):
        _ = ds.digest
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is no regular file"):
        ds[0]


def test_a_file_too_large_to_be_an_image_is_not_read(folder):
    with (folder / "cat" / "0.png").open("wb") as file:
        file.truncate(1 << 31)  # takes no room on the disk
    with pytest.raises(DataError, match=r"0\.png is not a readable image: it has 2,147,483,648 bytes, more than 1,073"):
        open_image(folder / "cat" / "0.png")


def test_the_digest_is_read_again_only_where_a_file_changed(folder, monkeypatch):
    ds = image_folder(folder)
    for file in folder.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    monkeypatch.setattr("frozenkit.images.dataset.time.time_ns", lambda: 1 << 62)  # much later
    kept, read = ds.digest, []
    monkeypatch.setattr("frozenkit.images.dataset._read", lambda path: read.append(path.name) or b"")
    assert ds.digest == kept
    assert not read
    os.utime(folder / "dog" / "1.png", (2e9, 2e9))
    _ = ds.digest
    assert read == ["1.png"]


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_large_deep_images_take_little_more_than_themselves(mode, tmp_path):
    import tracemalloc

    side = 3000
    dtype = np.uint16 if mode == "I;16" else np.float32
    Image.fromarray(np.full((side, side), 300, dtype)).save(tmp_path / "a.tif")
    tracemalloc.start()
    got = open_image(tmp_path / "a.tif")
    peak = tracemalloc.get_traced_memory()[1] / side**2
    tracemalloc.stop()
    assert got.getpixel((9, 9)) == (1, 1, 1)
    assert peak < 16  # bytes per pixel as NumPy sees them; whole copies in float64 took 24 and more


def test_a_picture_that_goes_bad_later_is_named(folder):
    ds = image_folder(folder)
    (folder / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"cat/0\.png"):
        ds[0]
    with pytest.raises(DataError, match=r"cat/0\.png can no longer be read"):
        _ = ds.digest
    assert ds[1][1] == 0  # one bad image does not cost the others


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
class TestLinks:
    @pytest.mark.parametrize("what", ["file", "folder inside a class", "class folder", "dangling"])
    def test_out_of_the_folder_are_refused(self, what, folder, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        Image.new("RGB", (2, 2)).save(outside / "secret.png")
        place, target = {
            "file": (folder / "cat" / "link.png", outside / "secret.png"),
            "folder inside a class": (folder / "cat" / "link", outside),
            "class folder": (folder / "fox", outside),
            "dangling": (folder / "cat" / "link.png", outside / "gone.png"),
        }[what]
        place.symlink_to(target)
        with pytest.raises(DataError, match="is a link that leads out of"):
            image_folder(folder)

    def test_a_class_folder_that_leads_out_is_not_walked(self, folder, tmp_path, monkeypatch):
        (tmp_path / "outside").mkdir()
        (folder / "fox").symlink_to(tmp_path / "outside")
        seen, real = [], os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: seen.append(os.fspath(path)) or real(path))
        with pytest.raises(DataError, match=r"pets/fox is a link that leads out of the folder\. Copy the images"):
            image_folder(folder)
        assert not [path for path in seen if "fox" in path or "outside" in path]

    def test_inside_are_followed(self, folder):
        (folder / "cat" / "link.png").symlink_to(folder / "cat" / "0.png")
        assert len(image_folder(folder)) == 7

    def test_to_nothing_are_named(self, folder):
        (folder / "cat" / "link.png").symlink_to(folder / "cat" / "gone.png")
        with pytest.raises(DataError, match=r"link\.png is not a readable image"):
            image_folder(folder)

    def test_to_themselves_are_refused(self, folder):
        (folder / "cat" / "link.png").symlink_to(folder / "cat" / "link.png")
        with pytest.raises(DataError, match=r"link\.png"):
            image_folder(folder)


# --- kinds of pictures ----------------------------------------------------------------------------


def saved(path, picture, **options):
    picture.save(path, **options)
    return np.asarray(open_image(path))


def test_transparency_is_white_in_every_mode(tmp_path):
    clear = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert saved(tmp_path / "a.png", clear)[0, 0].tolist() == [255] * 3
    assert saved(tmp_path / "b.png", half)[0, 0].tolist() == [127] * 3
    assert saved(tmp_path / "c.png", half.convert("LA"))[0, 0].tolist() == [127] * 3
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([9, 9, 9, 0, 128, 255])
    assert saved(tmp_path / "d.png", palette)[0, 0].tolist() == [0, 128, 255]
    assert saved(tmp_path / "e.png", palette, transparency=1)[0, 0].tolist() == [255] * 3
    assert saved(tmp_path / "f.png", palette, transparency=bytes([255, 0]))[0, 0].tolist() == [255] * 3
    assert saved(tmp_path / "g.png", Image.new("L", (2, 2), 40), transparency=40)[0, 0].tolist() == [255] * 3
    # The broken variant: plain conversion shows what the artist hid.
    assert clear.convert("RGB").getpixel((0, 0)) == (200, 0, 0)


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    ramp = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    got = saved(tmp_path / "a.png", Image.fromarray(ramp))
    np.testing.assert_array_equal(got[0, :, 0], [0, 0, 1, 128, 255])
    dark = saved(tmp_path / "b.tif", Image.fromarray(np.full((2, 2), 200, np.uint16)))
    np.testing.assert_array_equal(dark, np.full((2, 2, 3), 1))  # dark stays dark
    deep = saved(tmp_path / "c.tif", Image.fromarray(np.array([[0, 65535]], np.int32)))
    np.testing.assert_array_equal(deep[0, :, 0], [0, 255])


def test_floating_point_pictures(tmp_path):
    got = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))
    np.testing.assert_array_equal(got[0, :, 0], [0, 128, 255])
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="finite numbers"):
        open_image(tmp_path / "b.tif")


def test_cmyk_one_bit_and_grey(tmp_path):
    got = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    np.testing.assert_allclose(got[4, 4].astype(int), [255, 0, 0], atol=3)
    assert saved(tmp_path / "b.png", Image.new("1", (2, 2), 1))[0, 0].tolist() == [255] * 3
    assert saved(tmp_path / "c.png", Image.new("L", (2, 2), 77))[0, 0].tolist() == [77] * 3


def test_a_photograph_is_turned_the_way_the_camera_was_held(tmp_path):
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (0, 0, 16, 4))  # white above black
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    got = saved(tmp_path / "a.jpg", picture, exif=exif, quality=100)
    assert got.shape == (16, 8, 3)
    assert got[8, 7].min() > 200 > 55 > got[8, 0].max()


def test_one_pixel_and_one_row(tmp_path):
    assert saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3))).tolist() == [[[1, 2, 3]]]
    assert saved(tmp_path / "b.png", Image.new("RGB", (300, 1))).shape == (1, 300, 3)


def test_reading_leaves_no_file_open(folder):
    for i in range(6):
        image_folder(folder)[i]  # an open file would be a ResourceWarning, and so an error


# --- from_torch -----------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    def __init__(self, *pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def test_from_torch_takes_what_datasets_give():
    grey = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]])
    expected = np.array([[0, 128], [255, 64]], np.uint8)
    for picture in (grey, grey[0], grey.double(), (grey * 255).round().to(torch.uint8), (grey * 255).round().long()):
        ds = from_torch(Pairs((picture, 0), (Image.new("L", (2, 2)), torch.tensor(1))))
        np.testing.assert_array_equal(pixels(ds)[..., 0], expected)
        assert ds.labels.tolist() == [0, 1]
        assert ds.classes == ("0", "1")
    colour = torch.rand(3, 4, 5)
    got = pixels(from_torch(Pairs((colour, 0)), classes=["cat"]))
    np.testing.assert_array_equal(got, (colour * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.full((3, 2, 2), 1.5), r"picture 0 must lie in \[0, 1\]; undo its normalisation"),
        (torch.full((3, 2, 2), float("nan")), r"picture 0 must lie in \[0, 1\]"),
        (torch.full((3, 2, 2), 256), r"picture 0 must lie in 0\.\.255, got 256\.\.256"),
        (torch.zeros(4, 2, 2), r"must be \(1 or 3, h, w\), got shape \(4, 2, 2\)"),
        (np.zeros((2, 2, 3), np.uint8), r"got shape \(2, 2, 3\)"),
    ],
)
def test_from_torch_names_the_picture_that_does_not_fit(picture, message):
    with pytest.raises(DataError, match=message):
        from_torch(Pairs((picture, 0)))


def test_from_torch_refuses_labels_that_are_no_classes_and_nothing_at_all():
    with pytest.raises(InputError, match="label 1 is 'dog'"):
        from_torch(Pairs((torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2), "dog")))
    with pytest.raises(DataError, match="at least one picture, got none"):
        from_torch(Pairs())
    with pytest.raises(InputError, match=r"must lie in 0\.\.0 for 1 classes"):
        from_torch(Pairs((torch.zeros(1, 2, 2), 1)), classes=["cat"])


def test_random_augmentation_is_refused():
    class Noisy(Pairs):
        def __getitem__(self, index):
            return torch.rand(3, 4, 4), 0

    with pytest.raises(DataError, match="picture 0 changes each time it is read"):
        from_torch(Noisy((0, 0)))


# --- shift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shift_keeps_labels_grows_with_severity_and_is_deterministic(kind):
    ds = load_dataset("emoji-google", limit=10)
    assert shift(ds, kind, 0) is ds
    distance, digests = [0.0], {ds.digest}
    for severity in range(1, 6):
        moved = shift(ds, kind, severity)
        assert (moved.ids, moved.classes, moved.tasks.keys()) == (ds.ids, ds.classes, ds.tasks.keys())
        torch.testing.assert_close(moved.labels, ds.labels, rtol=0, atol=0)
        assert all(moved[i][0].size == ds[i][0].size for i in range(10))
        np.testing.assert_array_equal(pixels(moved, 3), pixels(shift(ds, kind, severity), 3))
        distance.append(np.mean([np.abs(pixels(moved, i).astype(float) - pixels(ds, i)).mean() for i in range(10)]))
        digests.add(moved.digest)
    assert distance == sorted(distance)
    assert len(digests) == 6


def test_a_picture_is_shifted_alike_wherever_it_stands():
    ds = load_dataset("emoji-google", limit=10)
    for kind in KINDS:
        np.testing.assert_array_equal(
            pixels(shift(ds.subset([7, 2]), kind, 2), 1), pixels(shift(ds, kind, 2).subset([2]), 0)
        )


def test_shift_amounts_are_those_documented():
    flat = small(values=np.full((4, 100, 100, 3), 120, np.uint8))
    noise = pixels(shift(flat, "noise", 2)).astype(float) - 120
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 40], atol=1)
    np.testing.assert_array_equal(pixels(shift(flat, "invert", 5)), 135)
    np.testing.assert_array_equal(pixels(shift(flat, "invert", 1)), 123)
    half = np.zeros((4, 100, 100, 3), np.uint8)
    half[:, :50] = 200
    np.testing.assert_array_equal(np.unique(pixels(shift(small(values=half), "contrast", 5))), [90, 110])
    assert len(np.unique(pixels(shift(small(values=half), "blur", 1))[:, 0, 0])) > 4
    np.testing.assert_array_equal(pixels(shift(flat, "resolution", 5)), 120)
    assert not (pixels(shift(flat, "noise", 1), 0) == pixels(shift(flat, "noise", 1), 1)).all()  # by id


@pytest.mark.parametrize("size", [(1, 1), (1, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_pictures_can_be_shifted(kind, size):
    assert shift(small(values=np.full((4, *size, 3), 9, np.uint8)), kind, 5)[0][0].size == size[::-1]


def test_shift_errors():
    with pytest.raises(UnknownNameError, match=r"got 'blurr'\. Did you mean 'blur'"):
        shift(small(), "blurr", 1)
    for severity in (-1, 6, 1.5):
        with pytest.raises(InputError, match=r"`severity` must be a whole number from 0 to 5"):
            shift(small(), "blur", severity)
