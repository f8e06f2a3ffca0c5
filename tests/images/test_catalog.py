"""Sets by name: whole, disjoint, stratified, and named where they are missing."""

import hashlib
import importlib.util
import re
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from frozenkit import list_datasets, load_dataset
from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.images import catalog
from tests.toy import pixels

BUNDLED = ("emoji-google", "emoji-twitter", "fashion-mnist")
DIGESTS = {"emoji-google": "78df74f2a78f", "emoji-twitter": "ed0bab01c4cb", "fashion-mnist": "5f5fda5d74aa"}


@pytest.mark.parametrize(
    ("name", "train", "test", "k"),
    [
        ("emoji-google", 600, 257, 5),
        ("emoji-twitter", 600, 257, 5),
        ("emoji", 1200, 514, 5),
        ("fashion-mnist", 4000, 2000, 10),
        ("photos", 207, 103, 8),
        ("drawings", 248, 106, 8),
        ("digits", 1258, 539, 10),
    ],
)
def test_sizes_and_that_train_and_test_are_disjoint(name, train, test, k):
    a, b = load_dataset(name), load_dataset(name, split="test")
    assert (len(a), len(b), len(a.classes)) == (train, test, k)
    assert not set(a.ids) & set(b.ids)
    assert set(a.labels.tolist()) == set(b.labels.tolist()) == set(range(k))
    image, label = a[0]
    assert (image.mode, type(label), a.labels.dtype) == ("RGB", int, torch.int64)
    assert list_datasets().loc[name, "images"] == f"{train:,} / {test:,}"
    assert list_datasets().loc[name, "classes"] == k


def test_fashion_is_balanced():
    assert torch.bincount(load_dataset("fashion-mnist").labels).tolist() == [400] * 10
    assert torch.bincount(load_dataset("fashion-mnist", split="test").labels).tolist() == [200] * 10


def test_drawings_have_the_classes_of_the_photographs():
    photos, drawings = load_dataset("photos"), load_dataset("drawings")
    assert drawings.classes == photos.classes
    shown = (load_dataset("drawings"), load_dataset("drawings", split="test"))
    of = {name: ds.classes[label] for ds in shown for name, label in zip(ds.ids, ds.labels.tolist(), strict=True)}
    assert (of["google/penguin"], of["twitter/penguin"], of["google/hammer"]) == ("bird", "bird", "tool")
    emoji = load_dataset("emoji")
    where = {name: i for i, name in enumerate(emoji.ids)}
    for i in (0, len(drawings) - 1):  # the very images of the emoji
        np.testing.assert_array_equal(pixels(drawings, i), pixels(emoji, where[drawings.ids[i]]))
    assert set(drawings.tasks["style"][0].tolist()) == {0, 1}


def test_each_photograph_has_author_licence_and_source():
    about = catalog._bundled_json("photos.json")
    licences = {
        "public domain",
        "CC0-1.0",
        "CC-BY-2.0",
        "CC-BY-3.0",
        "CC-BY-SA-2.5",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "GFDL",
        "GPL-2.0-or-later",
    }
    assert set(about["licences"]) == licences
    text = (catalog._BUNDLED / "LICENSES.md").read_text()
    count = Counter("CC-BY" if name.startswith("CC-BY") else name for name in about["licences"])
    free = count["public domain"] + count["CC0-1.0"]
    told = f"Of the {about['count']}, {free} are in the public domain or CC0, {count['CC-BY']} under a Creative Commons"
    assert told in " ".join(text.split())
    assert f"{count['GFDL']} under the GFDL and {count['GPL-2.0-or-later']} under the GPL" in " ".join(text.split())
    for key in ("names", "labels", "scenes", "authors", "licences", "sources"):
        assert len(about[key]) == about["count"], key
    assert all(about["authors"])
    assert all(source.startswith("http") for source in about["sources"])
    assert len(set(about["names"])) == about["count"]


def test_the_background_of_a_photograph_hardly_gives_its_class_away():
    train, test = load_dataset("photos"), load_dataset("photos", split="test")
    scenes, names = train.tasks["background"]
    assert names == ("cut-out", "scene")
    likeliest = {s: int(torch.bincount(train.labels[scenes == s]).argmax()) for s in (0, 1)}
    found = torch.tensor([likeliest[s] for s in test.tasks["background"][0].tolist()])
    share, majority = ((x == test.labels).float().mean() for x in (found, torch.zeros_like(test.labels)))
    assert share - majority < 0.05


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
def test_both_emoji_styles_hold_the_same_images_in_the_same_order(part):
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
    sizes = {name: path.stat().st_size for name, path in files.items()}
    photographs = sizes.pop("photos.webp") + sizes.pop("photos.json")
    assert (photographs < 4_000_000, sum(sizes.values()) < 7_000_000) == (True, True)
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


@pytest.mark.parametrize("limit", ["20", 2.5, True, 0, -1, [20]])
def test_a_limit_that_is_no_number_of_images_is_refused(limit):
    with pytest.raises(InputError, match=f"`limit` must be a whole number of at least 1, got {re.escape(repr(limit))}"):
        load_dataset("emoji-google", limit=limit)


@pytest.mark.parametrize("name", [None, ["digits"], 3])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(InputError, match="`name` must be text, got .* See list_datasets"):
        load_dataset(name)


@pytest.mark.parametrize("limit", [2, 4])
def test_a_limit_below_one_image_a_class_is_refused(limit):
    with pytest.raises(InputError, match=f"`limit` must be at least one image a class, 5 here, got {limit}"):
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


def test_the_table_lists_everything():
    table = list_datasets()
    assert set(table.columns) == {"classes", "images", "source", "available"}
    assert set(BUNDLED) | {"digits", "cifar10", "cifar100", "flowers102", "dtd", "retinal-oct"} <= set(table.index)
    assert table.loc[list(BUNDLED), "available"].all()


def test_what_makes_the_bundled_images_writes_where_they_are_read():
    made = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_bundle.py"))["BUNDLED"]
    assert made.samefile(Path(catalog.__file__).parent / "bundled")


def test_a_dataset_knows_the_code_that_loads_it_again(tmp_path):
    import frozenkit

    loaded = [
        load_dataset("digits"),
        load_dataset("digits", limit=20, seed=3),
        load_dataset("emoji-google", split="test", limit=10_000, root=tmp_path),
    ]
    assert loaded[1].code == "load_dataset('digits', limit=20, seed=3)"
    for dataset in loaded:
        assert eval(dataset.code, vars(frozenkit)).digest == dataset.digest
    assert load_dataset("digits")[:10].code == ""
