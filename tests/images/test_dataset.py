"""ImageDataset: digests, rows, kinds of images, and from_torch."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import image_folder, load_dataset, shift
from frozenkit.errors import DataError, InputError
from frozenkit.images.dataset import check_images, open_image
from tests.toy import pixels, tiny_images

# --- ImageDataset ---------------------------------------------------------------------------------


def test_digest_depends_on_pixels_labels_classes_ids_and_order():
    values = np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3)
    one_pixel = values.copy()
    one_pixel[2, 0, 0, 0] ^= 1
    variants = [
        tiny_images(),
        tiny_images(values=one_pixel),
        tiny_images(labels=(1, 1, 0, 1)),
        tiny_images(classes=("cat", "fox")),
        tiny_images(ids=["a", "id1", "id2", "id3"]),
        tiny_images(values=values.reshape(4, 2, 8, 3)),
        tiny_images().subset([1, 0, 2, 3]),
        tiny_images().subset([0, 1, 2]),
    ]
    assert len({v.digest for v in variants}) == len(variants)
    assert tiny_images().digest == tiny_images(name="another name").digest == tiny_images().subset(range(4)).digest
    assert tiny_images().digest == tiny_images().subset([3, 2, 1, 0]).subset([3, 2, 1, 0]).digest
    assert len(tiny_images().digest) == 64


def test_subset_takes_rows_in_the_order_given():
    ds = load_dataset("emoji-google")
    part = ds.subset(torch.tensor([5, -1, 0]))
    assert part.ids == (ds.ids[5], ds.ids[-1], ds.ids[0])
    assert [label for _, label in part] == ds.labels[[5, -1, 0]].tolist() == part.labels.tolist()
    np.testing.assert_array_equal(pixels(part, 1), pixels(ds, 599))
    torch.testing.assert_close(part.tasks["subcategory"][0], ds.tasks["subcategory"][0][[5, -1, 0]], rtol=0, atol=0)
    assert ds.subset(ds.labels.numpy() == 0).labels.unique().tolist() == [0]
    assert len(ds.subset([])) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([4], r"must be whole numbers in -4\.\.3, got list of length 1"),
        ([-5], r"whole numbers in -4\.\.3"),
        ([0.5], r"whole numbers in -4\.\.3"),
        ([True, False], r"as a mask must have one entry per image, 4, got \(2,\)"),
        ([[0], [1]], r"whole numbers in -4\.\.3"),
        (["a"], "must be an array of numbers"),
        ("a", "must be an array of numbers, got str 'a'"),
        (None, "must be an array of numbers, got None"),
    ],
)
def test_subset_refuses_what_is_no_row(indices, message):
    for read in (tiny_images().subset, tiny_images().__getitem__):
        with pytest.raises(InputError, match=f"`indices` .*{message}"):
            read(indices)


def test_slices_masks_and_indices_take_images_and_a_number_takes_one():
    ds = tiny_images()
    for index in (slice(1, 4, 2), [1, 3], np.array([1, -1]), torch.tensor([1, 3]), ds.labels == 1, range(1, 4, 2)):
        assert ds[index].ids == ("id1", "id3")
        assert ds[index].digest == ds.subset([1, 3]).digest
    assert (len(ds[:2]), len(ds[4:]), ds[torch.tensor([3])].ids) == (2, 0, ("id3",))
    for number in (3, -1, np.int64(3), np.array(3), torch.tensor(3)):
        assert ds[number][1] == 1


def test_indexing_ends_where_the_data_ends():
    ds = tiny_images()
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
        ({"ids": ["a", "b", "c"]}, "one entry an image, got 4, 3"),
    ],
)
def test_parts_must_fit_together(change, message):
    with pytest.raises(InputError, match=message):
        tiny_images(**change)


def test_names_from_data_never_become_markup():
    ds = tiny_images(classes=("<script>alert(1)</script>", "a' onerror='alert(2)"), name="<img src=x>")
    shown = ds._repr_html_()
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert "' onerror='" not in shown
    assert shown.count("data:image/png;base64,") == 2
    assert repr(tiny_images()) == "ImageDataset('small', 4 images, 2 classes)"
    assert "ImageDataset" in tiny_images().subset([])._repr_html_()


def _digest_of(pickled):
    return pickle.loads(pickled).digest


def test_pickle_copies_and_other_processes_agree(folder):
    for ds in (tiny_images(), image_folder(folder), shift(tiny_images(), "noise", 2)):
        pickled = pickle.dumps(ds)
        np.testing.assert_array_equal(pixels(pickle.loads(pickled), 1), pixels(ds, 1))
        assert _digest_of(pickled) == ds.digest
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_digest_of, (pickle.dumps(tiny_images()),)) == tiny_images().digest


def test_threads_read_what_one_thread_reads(folder):
    for ds in (load_dataset("emoji-google", limit=50), image_folder(folder), shift(tiny_images(), "noise", 3)):
        order = list(range(len(ds))) * 8
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(lambda i, ds=ds: pixels(ds, i), order))
        for i, got in zip(order, many, strict=True):
            np.testing.assert_array_equal(got, pixels(ds, i))


def test_what_is_returned_can_be_drawn_on_without_harm():
    ds = tiny_images()
    before = pixels(ds).copy()
    ds[0][0].paste((1, 2, 3), (0, 0, 4, 4))
    np.testing.assert_array_equal(pixels(ds), before)


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


# --- kinds of labels ----------------------------------------------------------------------------

LABELS = {
    "none": (None, ()),
    "numbers": (torch.tensor([0.5, 2.0, -1.0, 7.0]), ()),
    "pairs of numbers": (torch.arange(8.0).reshape(4, 2), ()),
    "several classes": (
        torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool),
        ("a", "b", "<c>"),
    ),
}
SHOWN = {"none": "no labels", "numbers": "regression", "pairs of numbers": "regression"}


@pytest.mark.parametrize("kind", LABELS)
def test_other_labels_than_one_class(kind):
    labels, classes = LABELS[kind]
    ds = tiny_images(labels, classes)
    assert repr(ds) == f"ImageDataset('small', 4 images, {SHOWN.get(kind, 'any of 3 labels')})"
    part = ds[[3, 1]]
    assert (part.ids, part.classes) == (("id3", "id1"), classes)
    for member, row in ((ds, 3), (part, 0), (shift(ds, "noise", 1), 3), (pickle.loads(pickle.dumps(ds)), 3)):
        label = member[row][1]
        if labels is None:
            assert label is None
            assert member.labels is None
        else:
            torch.testing.assert_close(torch.as_tensor(label), labels[3], rtol=0, atol=0)
    assert len(ds[[]]) == 0
    assert len({ds.digest, part.digest, tiny_images((0, 1, 0, 1)).digest, ds[[1, 3]].digest}) == 4
    shown = ds._repr_html_()
    assert "<c>" not in shown
    assert shown.count("data:image/png;base64,") == (3 if classes else 4)
    assert ("id3" in shown) == (not classes)
    assert ("&lt;c&gt;<br>2" in shown) == bool(classes)


def test_digests_follow_labels_of_every_kind():
    numbers, several = LABELS["numbers"][0], LABELS["several classes"][0]
    every = [tiny_images(None, ()), tiny_images(numbers, ()), tiny_images(numbers.nextafter(numbers + 1), ())]
    every += [tiny_images(several, "abc"), tiny_images(~several, "abc"), tiny_images(several, "abd")]
    every += [tiny_images(several.float(), ())]
    assert len({ds.digest for ds in every}) == len(every)


def test_many_images_without_labels_show_some():
    assert "<td>and 8 more images</td>" in tiny_images(np.ones(20), ())._repr_html_()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (None, ("cat",), "`classes` must be empty for images without labels, got cat"),
        (np.ones((4, 3), bool), "ab", "must have a column for each of 2 classes, got 3"),
        (np.ones((4, 3), bool), (), "must have a column for each of 0 classes, got 3"),
        (np.ones((4, 3, 2)), (), r"must be \(n,\) or \(n, m\) finite numbers, got ndarray of shape \(4, 3, 2\)\."),
        (np.array([1, np.nan, 2, 3]), (), "with NaN or infinity in row 1"),
        (np.array([1, 1e39, 2, 3]), (), "with NaN or infinity in row 1"),
        (np.ones(3), (), "one entry an image, got 3, 4"),
        (np.ones((4, 2)), "ab", r"label 0 is \[1\.0, 1\.0\]"),
        ([0, 1, 0, 1], (), r"must lie in 0\.\.-1 for 0 classes"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, classes, message):
    with pytest.raises(InputError, match=message):
        tiny_images(labels, classes, ids=["a", "b", "c", "d"], values=np.zeros((4, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            tiny_images(None, ()),
            r"got ImageDataset\('small', 4 images, no labels\)\. Give images that are sorted",
        ),
        (tiny_images(*LABELS["numbers"]), r"images, regression\)\. A probe fits numbers: fit_probe\(extract\(backbone"),
        (
            tiny_images(*LABELS["several classes"]),
            r"any of 3 labels\)\. A probe fits several labels per image: fit",
        ),
    ],
)
def test_what_needs_one_class_each_says_so(images, message):
    with pytest.raises(InputError, match=f"`train` must have one class per image, .*{message}"):
        check_images("train", images)


# --- kinds of images ----------------------------------------------------------------------------


def saved(path, image, **options):
    image.save(path, **options)
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


def test_floating_point_images(tmp_path):
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
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 16, 4))  # white above black
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    got = saved(tmp_path / "a.jpg", image, exif=exif, quality=100)
    assert got.shape == (16, 8, 3)
    assert got[8, 7].min() > 200 > 55 > got[8, 0].max()


def test_one_pixel_and_one_row(tmp_path):
    assert saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3))).tolist() == [[[1, 2, 3]]]
    assert saved(tmp_path / "b.png", Image.new("RGB", (300, 1))).shape == (1, 300, 3)


def test_reading_leaves_no_file_open(folder):
    for i in range(6):
        image_folder(folder)[i]  # an open file would be a ResourceWarning, and so an error
