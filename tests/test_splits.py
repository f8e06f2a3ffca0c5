import io

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import FeatureSet, duplicates, extract, few_shot, from_torch, load_dataset, near_duplicates, split
from frozenkit.errors import DataError, InputError


@pytest.mark.parametrize("seed", range(200))
def test_parts_are_disjoint_complete_and_within_one_image_in_every_class(seed):
    random = np.random.RandomState(seed)
    labels = random.randint(0, random.randint(1, 7), random.randint(1, 60))
    fractions = random.rand(random.randint(1, 6)) + 0.05
    parts = split(labels, fractions=fractions, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([p.numpy() for p in parts])), np.arange(len(labels)))
    share = fractions / fractions.sum()
    for label in np.unique(labels):
        counts = np.array([(labels[p.numpy()] == label).sum() for p in parts])
        assert np.abs(counts - share * (labels == label).sum()).max() <= 1 + 1e-9


def test_one_part_never_takes_two_leftovers_of_a_class():
    """Seen wrong once: what a part was owed over all classes was paid out of one class."""
    labels = np.repeat([0, 1, 2], [2, 1, 4])
    counts = [np.bincount(labels[p.numpy()], minlength=3) for p in split(labels, fractions=(0.6, 0.2, 0.2))]
    np.testing.assert_array_less(np.abs(np.array(counts) - np.outer([0.6, 0.2, 0.2], [2, 1, 4])), 1)


def test_sizes_by_hand():
    parts = split([0] * 10 + [1] * 20, fractions=(0.6, 0.2, 0.2))
    assert [len(p) for p in parts] == [18, 6, 6]
    assert all(p.dtype == torch.int64 and p.tolist() == sorted(p.tolist()) for p in parts)


def test_same_seed_same_sets_and_another_seed_other_sets():
    labels = torch.arange(40) % 4
    one, two, other = (split(labels, fractions=(1, 1), seed=s)[0].tolist() for s in (0, 0, 1))
    assert one == two != other


def test_the_global_random_state_is_left_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    torch_before = torch.get_rng_state()
    split([0, 0, 1, 1], fractions=(1, 1))
    few_shot([0, 0, 1, 1], shots=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    torch.testing.assert_close(torch.get_rng_state(), torch_before, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(50))
def test_a_group_is_never_on_both_sides(seed):
    random = np.random.RandomState(seed)
    n = random.randint(12, 60)
    labels, groups = random.randint(0, 3, n), random.randint(0, 9, n)
    parts = split(labels, fractions=(0.7, 0.3), groups=groups, seed=seed)
    sides = [set(groups[p.numpy()]) for p in parts]
    assert not sides[0] & sides[1]
    assert all(sides)
    assert sum(len(p) for p in parts) == n


def test_without_groups_one_patient_is_on_both_sides():
    """The broken variant: what `groups` is for."""
    patients = np.repeat(np.arange(10), 10)
    train, test = split(np.tile([0, 1], 50), fractions=(0.7, 0.3))
    assert set(patients[train]) & set(patients[test])


def test_groups_keep_proportions_where_they_can():
    labels, patients = np.tile([0, 1], 500), np.repeat(np.arange(100), 10)
    train, _ = split(labels, fractions=(0.7, 0.3), groups=patients)
    assert len(train) == 700
    assert labels[train].mean() == 0.5


def test_groups_may_be_names():
    a, b = split([0, 0, 1, 1], fractions=(1, 1), groups=["ann", "ann", "bob", "bob"])
    assert sorted([a.tolist(), b.tolist()]) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("fractions", [(), (0.5, 0), (0.5, -0.5), (np.nan, 1), (np.inf, 1)])
def test_fractions_must_be_positive(fractions):
    with pytest.raises(InputError, match="`fractions` must be positive numbers"):
        split([0, 1], fractions=fractions)


def test_lengths_must_fit():
    with pytest.raises(InputError, match=r"`labels` must be \(n,\) with n ≥ 1, got shape \(0,\)"):
        split([], fractions=(1, 1))
    with pytest.raises(InputError, match="a group for each of 3 rows, got 2"):
        split([0, 1, 1], fractions=(1, 1), groups=["a", "b"])
    with pytest.raises(InputError, match="1 groups for 2 parts"):
        split([0, 1, 1], fractions=(1, 1), groups=["a", "a", "a"])


def test_few_shot_draws_that_many_of_each_without_repeats():
    labels = torch.tensor([0] * 7 + [1] * 9 + [2] * 5)
    for shots in (1, 4, 5):
        rows = few_shot(labels, shots=shots, seed=3)
        assert len(set(rows.tolist())) == 3 * shots
        assert torch.bincount(labels[rows]).tolist() == [shots] * 3
    assert few_shot(labels, shots=2, seed=0).tolist() != few_shot(labels, shots=2, seed=1).tolist()


def test_few_shot_says_which_class_is_too_small():
    with pytest.raises(DataError, match="class 2 has 5 examples, fewer than `shots`=6"):
        few_shot([0] * 7 + [1] * 9 + [2] * 5, shots=6)
    with pytest.raises(InputError, match="`shots` must be a whole number of at least 1, got 0"):
        few_shot([0, 1], shots=0)


def test_duplicates_are_equal_pixel_by_pixel():
    a, b = np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)
    assert duplicates([(a, 0), (b, 0), (a.copy(), 1), (b, 1), (a, 2)]) == [(0, 2, 4), (1, 3)]
    assert duplicates([(a, 0), (a.T, 0), (a.astype(np.int16), 0)]) == []  # same bytes, other shape or type


@pytest.mark.parametrize("name", ["emoji-google", "emoji-twitter", "digits"])
def test_bundled_sets_share_no_image_between_train_and_test(name):
    train, test = load_dataset(name), load_dataset(name, split="test")
    across = [group for group in duplicates([*train, *test]) if group[0] < len(train) <= group[-1]]
    assert across == []


def planted_copies():
    """Random features, row 7 nearly that of row 400, row 8 exactly that of row 9."""
    x = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)) + 5
    x[400] = x[7] + 0.05 * torch.randn(32, generator=torch.Generator().manual_seed(1))
    x[9] = x[8]
    return x


def test_near_duplicates_are_what_comparing_all_pairs_finds(monkeypatch):
    x = planted_copies()
    assert near_duplicates(x).pairs.tolist() == [[8, 9], [7, 400]]
    found = near_duplicates(x, threshold=0.95)
    assert found.pairs.tolist() == [[8, 9], [7, 400]]
    assert repr(found) == "NearDuplicates(2 pairs with a cosine similarity of 0.95 or more)"
    centred = torch.nn.functional.normalize(x.double() - x.double().mean(0), dim=1)
    every = (centred @ centred.T).triu(1)
    assert every.min() < 0.2 < float((x[0] @ x[1]) / x[0].norm() / x[1].norm())  # without centring all are alike
    for block in (64, 499, 500, 501):
        monkeypatch.setattr("frozenkit.splits._BLOCK", block)
        some = near_duplicates(x, threshold=0.4)
        assert {tuple(pair) for pair in some.pairs.tolist()} == {tuple(p) for p in (every >= 0.4).nonzero().tolist()}
        torch.testing.assert_close(some.similarity.double(), every[tuple(some.pairs.T)], rtol=0, atol=1e-5)
        assert (some.similarity.diff() <= 0).all()


def test_the_threshold_follows_how_alike_distinct_images_are():
    """Tight groups lie near by themselves: what is odd among loose ones is common among them."""
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(1)).repeat(30, 1)
    tight = centres + 0.2 * torch.randn(300, 64, generator=torch.Generator().manual_seed(2))
    loose, close = near_duplicates(x), near_duplicates(tight)
    assert 0.849 < loose.threshold < close.threshold < 0.981
    assert len(near_duplicates(tight, threshold=0.94)) > 1_000
    assert len(close) < 20
    assert near_duplicates(x[:19]).threshold == 0.95
    assert near_duplicates(x[:20]).threshold != 0.95


@pytest.mark.parametrize("copies", [0, 10, 90, 110, 160, 200, 300])
@pytest.mark.parametrize("classes", [1, 10])
def test_copies_are_found_however_many_images_have_one(copies, classes):
    """Seen wrong once: where most images had a copy, the default threshold took that for usual and found none."""
    random = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(classes, 64, generator=random)
    x = torch.randn(400, 64, generator=random) + centres[torch.randint(classes, (400,), generator=random)]
    source = torch.arange(copies) % (400 - copies)
    x[400 - copies :] = x[source] + 0.3 * torch.randn(copies, 64, generator=random)
    family = torch.cat([torch.arange(400 - copies), source])
    true = (family[:, None] == family).triu(1).nonzero().tolist()
    found = near_duplicates(x).pairs.tolist()
    assert sum(pair in found for pair in true) >= 0.99 * len(true)
    assert len(found) <= len(true) + 3


def test_near_duplicates_take_sets_and_arrays():
    x = planted_copies()
    assert near_duplicates(FeatureSet.from_arrays(x)).pairs.tolist() == near_duplicates(x.numpy()).pairs.tolist()


@pytest.mark.parametrize(("n", "pairs"), [(0, 0), (1, 0), (2, 1), (4, 6)])
def test_equal_rows_are_pairs_also_where_all_are_equal(n, pairs):
    assert len(near_duplicates(torch.full((n, 3), 0.1))) == pairs
    assert len(near_duplicates(torch.full((n, 3), 0.1), threshold=1)) == pairs


@pytest.mark.parametrize(
    ("features", "threshold", "message"),
    [
        (torch.ones(3), 0.9, r"`features` must be \(n, d\) with d ≥ 1, got shape \(3,\)"),
        (torch.ones(3, 2, 2), 0.9, "Average tokens first"),
        (torch.ones(3, 2), 1.5, "`threshold` must lie above −1 and be at most 1, got 1.5"),
        (torch.ones(3, 2), "high", "`threshold` must be a number"),
        (None, 0.9, "`features` must be an array or a set of features, got None"),
        (list, 0.9, "got the class list"),
        (["a"], 0.9, "`features` must be an array of numbers"),
    ],
)
def test_what_has_no_near_duplicates(features, threshold, message):
    with pytest.raises(InputError, match=message):
        near_duplicates(features, threshold=threshold)


def test_near_duplicates_name_a_row_that_is_not_finite():
    with pytest.raises(DataError, match="row 2 has NaN or infinity"):
        near_duplicates([[0.0], [1.0], [float("nan")]])


def test_resized_and_compressed_copies_are_near_duplicates(backbone):
    """Photographs of textiles saved again; and none of the originals is taken for another."""
    data = load_dataset("textiles", limit=80)

    def saved_again(image):
        buffer = io.BytesIO()
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(buffer, "JPEG", quality=85)
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    images = [data[i] for i in range(80)] + [(saved_again(data[i][0]), data[i][1]) for i in range(20)]
    found = near_duplicates(extract(backbone, from_torch(images, classes=data.classes), layer="blocks.5"))
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    copies = {(i, 80 + i) for i in range(20)}
    assert pairs <= copies
    assert len(pairs) >= 15
