"""from_torch: datasets of pairs, their images, labels and class names."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder

from frozenkit import extract, fit_probe, from_torch
from frozenkit.errors import DataError, InputError
from tests.toy import pixels


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
    for image in (grey, grey[0], grey.double(), (grey * 255).round().to(torch.uint8), (grey * 255).round().long()):
        ds = from_torch(Pairs((image, 0), (Image.new("L", (2, 2)), torch.tensor(1))))
        np.testing.assert_array_equal(pixels(ds)[..., 0], expected)
        assert ds.labels.tolist() == [0, 1]
        assert ds.classes == ("0", "1")
    colour = torch.rand(3, 4, 5)
    got = pixels(from_torch(Pairs((colour, 0)), classes=["cat"]))
    np.testing.assert_array_equal(got, (colour * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 2, 2), 1.5), r"image 0 must lie in \[0, 1\]; undo its normalisation"),
        (torch.full((3, 2, 2), float("nan")), r"image 0 must lie in \[0, 1\]"),
        (torch.full((3, 2, 2), 256), r"image 0 must lie in 0\.\.255, got 256\.\.256"),
        (torch.zeros(4, 2, 2), r"must be \(1 or 3, h, w\), got shape \(4, 2, 2\)"),
        (np.zeros((2, 2, 3), np.uint8), r"got shape \(2, 2, 3\)"),
    ],
)
def test_from_torch_names_the_image_that_does_not_fit(image, message):
    with pytest.raises(DataError, match=message):
        from_torch(Pairs((image, 0)))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([Image.new("RGB", (2, 2))] * 2, r"must give \(image, label\) pairs, but row 0 is Image"),
        ([{"image": 1, "label": 0}], r"row 0 is dict of length 2\. Of Hugging Face's datasets: from_huggingface"),
        ([5], "row 0 is int 5"),
        (iter([]), r"must have a length and rows, \(image, label\) pairs, got list_iterator"),
        ("images/", r"pairs, got str .images/.\. A folder is image_folder\(path\)"),
        ({"late": 1}, "pairs, got dict of length 1"),
        (torch.utils.data.TensorDataset, "pairs, got the class TensorDataset"),
        (torch.zeros(2, 3, 8, 8), r"got Tensor of shape .* arrays are TensorDataset\(images, labels\)"),
        (None, "got None"),
    ],
)
def test_what_is_no_dataset_of_pairs_is_told_so(dataset, message):
    with pytest.raises(InputError, match=message):
        from_torch(dataset)


def test_from_torch_refuses_labels_that_are_no_classes_and_nothing_at_all():
    with pytest.raises(InputError, match="label 1 is 'dog'"):
        from_torch(Pairs((torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2), "dog")))
    with pytest.raises(DataError, match="at least one image, got none"):
        from_torch(Pairs())
    with pytest.raises(InputError, match=r"must lie in 0\.\.0 for 1 classes"):
        from_torch(Pairs((torch.zeros(1, 2, 2), 1)), classes=["cat"])


def test_random_augmentation_is_refused():
    class Noisy(Pairs):
        def __getitem__(self, index):
            return torch.rand(3, 4, 4), 0

    with pytest.raises(DataError, match="image 0 changes each time it is read"):
        from_torch(Noisy((0, 0)))


# --- labels ---------------------------------------------------------------------------------------

IMAGES = torch.arange(4 * 48).reshape(4, 3, 4, 4) / 255


@pytest.mark.parametrize(
    ("targets", "classes", "first", "shown"),
    [
        (torch.tensor([1, 0, 1, 0]), ("0", "1"), 1, "2 classes"),
        (torch.tensor([True, False, True, False]), ("0", "1"), 1, "2 classes"),
        (torch.tensor([0.5, 2, -1, 7]), (), 0.5, "regression"),
        (torch.tensor([0.5, 2, -1, 7]).double(), (), 0.5, "regression"),
        (torch.eye(4, 3), (), [1.0, 0.0, 0.0], "regression"),
        (torch.eye(4, 3).long(), ("0", "1", "2"), [True, False, False], "any of 3 labels"),
        (torch.eye(4, 3).bool(), ("0", "1", "2"), [True, False, False], "any of 3 labels"),
        (None, (), None, "no labels"),
    ],
)
def test_labels_of_each_kind(targets, classes, first, shown):
    ds = from_torch(TensorDataset(IMAGES) if targets is None else TensorDataset(IMAGES, targets))
    assert ds.classes == classes
    label = ds[0][1]
    assert (label.tolist() if isinstance(label, torch.Tensor) else label) == first
    assert repr(ds) == f"ImageDataset('TensorDataset', 4 images, {shown})"
    assert ds[[2, 0]].digest != ds.digest
    if targets is not None:
        kind = torch.float32 if not classes else torch.bool if targets.ndim == 2 else torch.int64
        assert ds.labels.dtype == kind
        torch.testing.assert_close(ds.labels.double(), targets.double(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1, 0], "label 1 is None"),
        ([0.5, "a", 1.0, 2.0], r"label 0 is 0\.5"),
        ([[0, 1], [1], [0, 1], [1, 1]], "several numbers must hold equally many"),
        ([[0, 1], [1, "a"], [0, 1], [1, 1]], "several numbers must hold equally many"),
        ([[0, 1], [1, 2], [0, 1], [1, 1]], r"label 0 is \[0, 1\]"),
        ([0.5, float("nan"), 1.0, 2.0], r"finite numbers, got Tensor of shape \(4,\) with NaN or infinity in row 1"),
        ([[0.5, 1.0], [1.0, float("inf")], [0.0, 0.0], [1.0, 1.0]], "with NaN or infinity in row 1"),
    ],
)
def test_labels_that_fit_nothing_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        from_torch(Pairs(*zip(IMAGES, labels, strict=True)))


def test_numbers_are_no_indices_of_classes():
    with pytest.raises(InputError, match=r"label 0 is 0\.5"):
        from_torch(Pairs(*zip(IMAGES, [0.5, 1.0, 1.0, 0.0], strict=True)), classes=["cat", "dog"])


def test_subsets_and_joined_datasets_keep_the_names_of_their_classes(folder):
    whole = ImageFolder(folder)
    parts = [Subset(whole, [0, 5]), Subset(Subset(whole, [1, 4]), [1]), whole]
    for dataset in (*parts, ConcatDataset(parts)):
        ds = from_torch(dataset)
        assert ds.classes == ("cat", "dog")
        assert len(ds) == len(dataset)
    assert from_torch(parts[0]).labels.tolist() == [0, 1]
    np.testing.assert_array_equal(pixels(from_torch(parts[1])), np.asarray(whole[4][0]))
    other = TensorDataset(IMAGES, torch.tensor([0, 1, 2, 0]))
    assert from_torch(ConcatDataset([whole, other])).classes == ("0", "1", "2")
    assert from_torch(FakeData(6, (3, 8, 8), num_classes=3)).classes == ("0", "1", "2")


def test_a_loader_is_told_to_give_its_dataset(backbone):
    dataset = TensorDataset(IMAGES, torch.tensor([0, 1, 0, 1]))
    loader = DataLoader(dataset, batch_size=2, shuffle=True)
    for read in (from_torch, lambda loader: extract(backbone, loader)):
        with pytest.raises(InputError, match=r"got a DataLoader, .* from_torch\(loader\.dataset\)"):
            read(loader)
    assert from_torch(loader.dataset).labels.tolist() == [0, 1, 0, 1]


def test_numbers_as_labels_go_all_the_way(backbone):
    grey = torch.linspace(0, 1, 24)
    images = grey[:, None, None, None].expand(24, 3, 16, 16)
    features = extract(backbone, TensorDataset(images, 10 * grey), layer="blocks.2", progress=False)
    assert fit_probe(features[::2]).r_squared(features[1::2]) > 0.9
