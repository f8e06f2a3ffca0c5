"""The ridge and softmax probes as scikit-learn classifiers, for its pipelines and searches."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from frozenkit.heads.ridge import LinearMap
from frozenkit.probes._choose import Fit, fit_ridge, fit_softmax


class _LinearProbe(ClassifierMixin, BaseEstimator):
    """What both share: checks, and prediction by one linear map."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "_LinearProbe":
        """Fit on X (n, d) and y (n,), choosing the strength without other data.

        `sample_weight` (n,) says how much each row counts, in fitting and in choosing; one of weight 0 is left out.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            X, y, sample_weight = (rows[sample_weight > 0] for rows in (X, y, sample_weight))
            sample_weight = _tensor(sample_weight)
        self.classes_, place = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier needs at least two classes, got one class: {self.classes_[0]!r}.")
        fit = self._fit(_tensor(X), _tensor(place.astype(np.int64)), sample_weight)
        assert isinstance(fit.head, LinearMap)
        self.coef_ = np.asarray(fit.head.weights, dtype=np.float64).T
        self.intercept_ = np.asarray(fit.head.intercept, dtype=np.float64)
        self.strength_ = fit.strength
        self.choice_score_ = fit.choice_score
        self.temperature_ = fit.temperature
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """(n, k) logits; (n,) second minus first where there are two classes."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> np.ndarray:
        """(n,) entries of ``classes_``."""
        winners = self._logits(X).argmax(1)  # first, so that an unfitted probe says so, and not that it has no classes
        return self.classes_[winners]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, k) probabilities: softmax of logits / ``temperature_``."""
        z = self._logits(X) / self.temperature_
        odds = np.exp(z - z.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_.T + self.intercept_

    def _fit(self, x: torch.Tensor, y: torch.Tensor, sample_weight: torch.Tensor | None) -> Fit:
        raise NotImplementedError


class RidgeProbe(_LinearProbe):
    """Ridge on ±1 targets, its strength chosen by leave-one-out (exact but for the scale, see `ridge_path`).

    Args:
        strengths: λ > 0 of the mean loss to choose from; None is the grid of `ridge_path`.

    Attributes:
        classes_: (k,) labels.
        coef_: (k, d) weights for raw features.
        intercept_: (k,).
        strength_: λ chosen.
        choice_score_: Leave-one-out accuracy there.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> RidgeProbe().fit(*load_iris(return_X_y=True)).predict([[5.1, 3.5, 1.4, 0.2]])
        array([0])
    """

    def __init__(self, strengths: Sequence[float] | None = None) -> None:
        self.strengths = strengths

    def _fit(self, x: torch.Tensor, y: torch.Tensor, sample_weight: torch.Tensor | None) -> Fit:
        return fit_ridge((x, y), None, self.strengths, sample_weight)


class SoftmaxProbe(_LinearProbe):
    """Multinomial logistic regression, its strength chosen by stratified cross-validation.

    Args:
        strengths: λ > 0 of the mean loss to choose from; None is the grid of `softmax_path`.
        random_state: Seed of the folds, or what scikit-learn takes for one.

    Attributes:
        classes_: (k,) labels.
        coef_: (k, d) weights for raw features.
        intercept_: (k,).
        strength_: λ chosen.
        choice_score_: Cross-validated accuracy there.
    """

    def __init__(self, strengths: Sequence[float] | None = None, random_state: Any = 0) -> None:
        self.strengths = strengths
        self.random_state = random_state

    def _fit(self, x: torch.Tensor, y: torch.Tensor, sample_weight: torch.Tensor | None) -> Fit:
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        return fit_softmax((x.float(), y), None, self.strengths, sample_weight, int(seed))


def _tensor(array: np.ndarray) -> torch.Tensor:
    # torch refuses arrays that may not be written, such as memory-mapped ones that joblib hands to its workers.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
