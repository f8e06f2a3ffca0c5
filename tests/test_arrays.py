"""R²: one answer, whichever way leads to it."""

import pytest
import torch
from sklearn import metrics

from frozenkit._arrays import r_squared


def test_r_squared_is_that_of_scikit_learn_constant_labels_included():
    generator = torch.Generator().manual_seed(0)
    y, noise = torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    expected = metrics.r2_score(y, y + noise, multioutput="variance_weighted")
    assert r_squared(y + noise, y) == pytest.approx(expected, rel=1e-5)
    constant = torch.full((30,), 0.5)  # a mean without rounding, which scikit-learn would take for variance
    for predictions in (constant, constant + 1, noise[:30, 0]):
        assert r_squared(predictions, constant) == metrics.r2_score(constant, predictions)


def test_every_way_to_r_squared_gives_one_answer_for_constant_labels():
    from frozenkit import FeatureSet, ridge_path, train_head

    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.full((40,), 0.3)
    assert ridge_path(x, y, [0.1, 1.0]).loo_scores.tolist() == [1.0, 1.0]  # the mean, which is the label, is predicted
    train, val = (FeatureSet.from_arrays(x, y, ids=[f"{name}{i}" for i in range(40)]) for name in "tv")
    assert {epoch["val_score"] for epoch in train_head(torch.nn.Linear(3, 1), train, val, epochs=2).history} == {0.0}
