"""Rows, weights and strengths, as ridge and softmax share them."""

import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError
from frozenkit.heads.ridge import ridge_path
from frozenkit.heads.softmax import softmax_path
from tests.heads.reference import STRENGTHS, uneven


def test_features_that_never_vary_are_refused():
    labels = torch.arange(6) % 2
    for solve in (ridge_path, softmax_path):
        for d in (3, 9):
            with pytest.raises(DataError, match="must vary from row to row, but all rows are the same"):
                solve(torch.full((6, d), 2.0), labels)


def test_rows_are_read_in_chunks():
    class Rows:
        """Says how many rows it was asked for at once; holds none itself."""

        def __init__(self, n, d):
            self.shape, self.labels, self.largest = (n, d), torch.arange(n) % 3, 0
            self.n_features, self.n_classes, self.classes, self.ids, self.layer = d, 3, ("a", "b", "c"), (), ""

        def __len__(self):
            return self.shape[0]

        def rows(self, indices): ...  # nobody asks

        def load(self): ...

        def batches(self, size):
            for start in range(0, self.shape[0], size):
                rows = torch.arange(start, min(start + size, self.shape[0]))
                self.largest = max(self.largest, len(rows))
                x = torch.sin(rows[:, None] * torch.arange(1, 9)).float()
                yield x + torch.nn.functional.one_hot(rows % 3, 8), self.labels[rows]

    rows = Rows(50_000, 8)
    dense = torch.cat([x for x, _ in rows.batches(50_000)])
    rows.largest = 0
    path = ridge_path(rows)
    assert rows.largest <= 4096
    assert_close(path.loo_scores, ridge_path(dense, rows.labels).loo_scores)


@pytest.mark.parametrize("strengths", [[0.0], [-1.0, 1.0], [], [float("nan")]])
def test_strengths_must_be_positive(strengths):
    with pytest.raises(InputError, match="`strengths` must be finite numbers above 0"):
        ridge_path(*uneven(10, 3, 2), strengths)


def test_balanced_classes_count_alike():
    x, labels = uneven(40, 6, 3, imbalanced=True)
    shares = labels.bincount().double()
    one = ridge_path(x, labels, STRENGTHS, sample_weight="balanced")
    assert_close(one.loo_scores, ridge_path(x, labels, STRENGTHS, sample_weight=(1 / shares)[labels]).loo_scores)
    predicted = one.leave_one_out(x, labels, one.best).argmax(1)
    recall = torch.stack([(predicted[labels == c] == c).double().mean() for c in range(3)])
    assert_close(one.loo_scores.max(), recall.mean())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same():
    x, labels = uneven(200, 30, 4, spread=0.5)
    for path in (ridge_path, softmax_path):
        here, there = path(x, labels, STRENGTHS), path(x, labels, STRENGTHS, device="cuda")
        assert_close(there.at(0.1)(x), here.at(0.1)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "weights", [torch.ones(9), torch.zeros(10), torch.full((10,), float("nan")), torch.ones(10, 1), "even"]
)
def test_weights_must_be_one_positive_number_a_row(weights):
    for path in (ridge_path, softmax_path):
        with pytest.raises(InputError, match="`sample_weight` must be"):
            path(*uneven(10, 3, 2), sample_weight=weights)
