"""Estimators: the checks of scikit-learn, and the probe's own answers."""

import warnings

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from frozenkit.errors import FrozenkitWarning
from frozenkit.probes.estimators import RidgeProbe, SoftmaxProbe
from frozenkit.probes.probe import fit_probe
from tests.toy import CLASSES, blobs

TRAIN, TEST = blobs(200), blobs(400, seed=2)


LEAVES_ROWS_OUT = {
    "check_sample_weight_equivalence_on_dense_data": "of a row written twice one copy stays when the other is left out"
}


def test_the_ridge_estimator_passes_the_checks_of_scikit_learn():
    results = check_estimator(RidgeProbe(), on_fail=None, on_skip=None, expected_failed_checks=LEAVES_ROWS_OUT)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert len(results) > 50


def test_the_softmax_estimator_passes_the_checks_of_scikit_learn():
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        results = check_estimator(
            SoftmaxProbe(strengths=[0.01, 0.1]), on_fail=None, on_skip=None, expected_failed_checks=LEAVES_ROWS_OUT
        )
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert len(results) > 50


def test_the_ridge_estimator_agrees_with_the_probe_and_works_in_searches():
    x, y = TRAIN.numpy()
    names = np.array(CLASSES)[y]
    estimator = RidgeProbe().fit(x, names)
    found = np.array(CLASSES)[fit_probe(TRAIN).predict(TEST)]
    np.testing.assert_array_equal(estimator.predict(TEST.numpy()[0]), found)
    np.testing.assert_allclose(estimator.predict_proba(x).sum(1), 1)
    assert cross_val_score(make_pipeline(StandardScaler(), RidgeProbe()), x, names, cv=3).mean() > 0.8


@pytest.mark.parametrize("estimator", [RidgeProbe([0.1]), SoftmaxProbe([0.1])], ids=["ridge", "softmax"])
def test_at_one_strength_a_weight_is_as_many_copies_of_a_row(estimator):
    x, y = blobs(60).numpy()
    copies = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = estimator.fit(x, y, sample_weight=copies)
    coef, intercept = weighted.coef_, weighted.intercept_
    repeated = estimator.fit(np.repeat(x, copies, 0), np.repeat(y, copies))
    np.testing.assert_allclose(coef, repeated.coef_, rtol=0.01, atol=1e-4)
    np.testing.assert_allclose(intercept, repeated.intercept_, rtol=0.01, atol=1e-4)
    assert np.abs(coef - estimator.fit(x, y).coef_).max() > 1e-3  # and they do count
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        estimator.fit(x, y, sample_weight=-copies - 1)
