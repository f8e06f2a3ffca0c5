"""from_huggingface: images and labels of every type that their datasets have, read once, from memory and from disk."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from PIL import Image

from frozenkit import extract, fit_probe, from_huggingface, from_torch
from frozenkit.errors import DataError, InputError, UnknownNameError
from tests.toy import pixels

VALUES = np.random.RandomState(0).randint(0, 256, (6, 12, 10, 3), np.uint8)
IMAGES = [Image.fromarray(values) for values in VALUES]
NAMES = ["cat", "dog", "owl"]


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def make(label=None, feature=None, images=IMAGES, of=None):
    columns = {"image": images} | ({} if label is None else {"label": label})
    features = {"image": of or datasets.Image()} | ({} if label is None else {"label": feature})
    return Dataset.from_dict(columns, features=Features(features))


CLASSES = make([0, 1, 2, 0, 1, 2], ClassLabel(names=NAMES))


# --- images -----------------------------------------------------------------------------------------


def image_columns(folder):
    paths = [str(folder / f"{i}.png") for i in range(6)]
    for image, path in zip(IMAGES, paths, strict=True):
        image.save(path)
    yield "images", make()
    yield "bytes", make(images=[encoded(image) for image in IMAGES], of=Value("binary"))
    yield "paths", make(images=paths, of=Value("string"))
    yield "paths as images", make(images=paths)
    for kind in ("torch", "numpy", "pandas", "arrow"):
        yield kind, make().with_format(kind)
    make().save_to_disk(folder / "saved")
    yield "from disk", datasets.load_from_disk(folder / "saved")


def test_images_of_every_kind_are_the_same_images(tmp_path):
    digests = set()
    for kind, dataset in image_columns(tmp_path):
        ds = from_huggingface(dataset, label=None)
        assert (ds.labels, ds.classes, ds.ids[:2]) == (None, (), ("Dataset/0", "Dataset/1")), kind
        for i in range(6):
            np.testing.assert_array_equal(pixels(ds, i), VALUES[i])
        digests.add(ds.digest)
        copied = pickle.loads(pickle.dumps(ds))
        assert copied.digest == ds.digest
        np.testing.assert_array_equal(pixels(copied, 5), VALUES[5])
    assert len(digests) == 1
    assert from_huggingface(make(images=IMAGES[::-1]), label=None).digest not in digests
    assert from_huggingface(make().select(range(5)), label=None).digest not in digests


def test_images_follow_the_rules_of_files():
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn clockwise
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=turned)
    clear = encoded(Image.new("RGBA", (2, 2), (200, 0, 0, 0)))
    ds = from_huggingface(make(images=[{"bytes": buffer.getvalue()}, {"bytes": clear}]), label=None)
    assert pixels(ds).shape == (16, 8, 3)
    assert pixels(ds, 1)[0, 0].tolist() == [255] * 3


def test_rows_may_be_chosen_shuffled_and_read_by_threads():
    ds = from_huggingface(CLASSES.shuffle(seed=1).select([4, 0, 2]))
    order = CLASSES.add_column("row", list(range(6))).shuffle(seed=1).select([4, 0, 2])["row"][:]
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda i: pixels(ds, i), list(range(3)) * 20))
    for i, got in zip(list(range(3)) * 20, many, strict=True):
        np.testing.assert_array_equal(got, VALUES[order[i]])
    assert ds.labels.tolist() == [row % 3 for row in order]


def test_each_image_is_read_once_by_an_extraction(backbone, monkeypatch):
    read = []
    real = Dataset.__getitem__

    def counting(self, key):
        if isinstance(key, int):
            read.append(key)
        return real(self, key)

    monkeypatch.setattr(Dataset, "__getitem__", counting)
    ds = from_huggingface(CLASSES)
    assert read == []
    features = extract(backbone, ds, layer="blocks.2", progress=False)
    assert sorted(read) == list(range(6))
    monkeypatch.undo()
    expected = extract(backbone, from_torch(list(zip(IMAGES, CLASSES["label"]))), layer="blocks.2", progress=False)
    torch.testing.assert_close(features.features, expected.features, rtol=0, atol=0)
    direct = extract(backbone, CLASSES, layer="blocks.2", progress=False)
    assert (direct.ids, direct.fingerprint) == (features.ids, features.fingerprint)
    assert fit_probe(direct).classes == tuple(NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bytes": b"", "path": "a.png"}, r"image 0 \(a\.png\) is not a readable image: it is empty\. Leave it out"),
        ({"bytes": b"text"}, "image 0 is not a readable image: it is no image of a known format"),
        ({"path": "nowhere/a.png"}, r"nowhere/a\.png is not a readable image: No such file"),
        ({"path": "hf://datasets/a/b.png"}, "image 0 lies at 'hf://datasets/a/b.png', which is not on this machine"),
        (None, "image 0 is missing: its row holds none"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(content, message):
    ds = from_huggingface(make(images=[content, {"bytes": encoded(IMAGES[0])}]), label=None)
    with pytest.raises(DataError, match=message):
        ds[0]
    assert ds[1][0].size == (10, 12)


def test_a_file_that_changed_after_it_was_digested_is_refused(tmp_path):
    IMAGES[0].save(tmp_path / "a.png")
    ds = from_huggingface(make(images=[str(tmp_path / "a.png")]), label=None)
    before = ds.digest
    IMAGES[1].save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has changed since the dataset was digested"):
        ds[0]
    assert ds.digest == before
    assert from_huggingface(make(images=[str(tmp_path / "a.png")]), label=None).digest != before


# --- labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "feature", "classes", "expected"),
    [
        ([0, 1, 2, 0, 1, 2], ClassLabel(names=NAMES), NAMES, torch.tensor([0, 1, 2, 0, 1, 2])),
        (["b", "a", "b", "c", "a", "b"], Value("string"), "abc", torch.tensor([1, 0, 1, 2, 0, 1])),
        ([0, 2, 1, 0, 0, 1], Value("int32"), "012", torch.tensor([0, 2, 1, 0, 0, 1])),
        ([True, False] * 3, Value("bool"), ["False", "True"], torch.tensor([1, 0, 1, 0, 1, 0])),
        ([0.5, 1, -2, 3, 4, 5], Value("float64"), (), torch.tensor([0.5, 1, -2, 3, 4, 5])),
        ([[0.5, 1.0]] * 6, Sequence(Value("float32")), (), torch.tensor([[0.5, 1.0]] * 6)),
        ([[0], [], [1, 2], [2], [0, 2], []], Sequence(ClassLabel(names=NAMES)), NAMES, None),
        ([["cat"], [], ["owl", "dog"], ["owl"], ["cat", "owl"], []], Sequence(Value("string")), NAMES, None),
    ],
)
@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_labels_of_every_kind(values, feature, classes, expected, kind):
    if expected is None:
        expected = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0, 0, 0]]).bool()
    ds = from_huggingface(make(values, feature).with_format(kind))
    assert ds.classes == tuple(classes)
    torch.testing.assert_close(ds.labels, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "feature", "error", "message"),
    [
        ([-1] * 6, ClassLabel(names=NAMES), InputError, "'label' holds none. Give label=None"),
        ([None] * 6, ClassLabel(names=NAMES), InputError, "'label' holds none"),
        ([0, -1, 0, None, 1, 1], ClassLabel(names=NAMES), DataError, "2 of 6 have none, row 1 the first"),
        (["a", None, "b", "a", "a", "a"], Value("string"), DataError, "1 of 6 have none, row 1 the first"),
        ([0, -1, 0, 2, 1, 1], Value("int64"), DataError, r"class indices from 0 on, got -1\.\.2"),
        ([0, 1, float("nan"), 2, 1, 1], Value("float32"), DataError, "row 2 has NaN"),
        ([[0], [5], [], [], [], []], Sequence(Value("int64")), InputError, r"datasets\.Sequence\(datasets\.ClassLabel"),
        ([[0.5], [], [], [], [], []], Sequence(Value("float32")), InputError, "'label' holds (List|Sequence)"),
        ([["a"], [None], [], [], [], []], Sequence(Value("string")), DataError, "row 1 has None"),
        ([{"a": 1}] * 6, {"a": Value("int64")}, InputError, "must name a column of classes or numbers, but 'label'"),
    ],
)
def test_labels_that_fit_nothing_are_named(values, feature, error, message):
    with pytest.raises(error, match=message):
        from_huggingface(make(values, feature))


def test_names_of_rows_come_from_split_or_column():
    named = CLASSES.add_column("file", list("abcdef"))
    assert from_huggingface(named, ids="file").ids == tuple("abcdef")
    with pytest.raises(InputError, match="`ids` must be unique"):
        from_huggingface(named, ids="label")
    parts = DatasetDict({"train": CLASSES}), CLASSES.train_test_split(0.5, seed=0)
    assert from_huggingface(parts[1]["test"]).ids[0] in ("test/0", "Dataset/0")


# --- what is no such dataset ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (DatasetDict(train=CLASSES, test=CLASSES), r"one split, got several: 'train', 'test'.*dataset\['train'\]\)"),
        (
            datasets.IterableDatasetDict(test=CLASSES.to_iterable_dataset()),
            r"got several: 'test'\. .*dataset\['test'\]",
        ),
        (CLASSES.to_iterable_dataset(), r"must have rows by number, got a stream\. Load it with streaming=False"),
        (CLASSES.with_transform(lambda rows: rows), r"must be without a transform, .*with_format\(None\)"),
        ("cifar10", r"got str 'cifar10'\. By name: datasets\.load_dataset\(name, split='train'\)"),
        ([(IMAGES[0], 0)], r"got list of length 1\. .* of torch: from_torch\(dataset\)"),
        (Dataset, "got the class Dataset"),
        (None, "got None"),
    ],
)
def test_what_is_no_split_in_rows_is_told_so(dataset, message):
    with pytest.raises(InputError, match=message):
        from_huggingface(dataset)


def test_extract_passes_the_advice_on(backbone):
    with pytest.raises(InputError, match=r"one split, got several: 'train'"):
        extract(backbone, DatasetDict(train=CLASSES))
    with pytest.raises(InputError, match=r"row 0 is dict of length 2\. Of Hugging Face's datasets: from_huggingface"):
        from_torch(CLASSES)


def test_columns_that_do_not_fit_are_named():
    cifar = CLASSES.rename_columns({"image": "img", "label": "fine_label"})
    with pytest.raises(UnknownNameError, match=r"`image` must be a known name, got 'image'\. Did you mean 'img'\?"):
        from_huggingface(cifar)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'fine_label'\? Images without labels are label=None"):
        from_huggingface(cifar, image="img")
    for options in ({"image": None}, {"ids": "file"}, {"label": 3}, {"image": ["image"]}):
        with pytest.raises(UnknownNameError, match=f"`{next(iter(options))}` must be a known name"):
            from_huggingface(CLASSES, **options)
    with pytest.raises(InputError, match="`image` must name a column of images, .* but 'label' holds ClassLabel"):
        from_huggingface(CLASSES, image="label", label=None)
    with pytest.raises(InputError, match=r"cast_column\('image', datasets\.Image\(\)\)"):
        from_huggingface(make(images=VALUES, of=Array3D((12, 10, 3), "uint8")), label=None)
    with pytest.raises(DataError, match="at least one image, got none"):
        from_huggingface(CLASSES.select([]))
