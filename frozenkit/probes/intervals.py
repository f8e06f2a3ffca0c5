"""Intervals and tests for proportions, as pure functions of counts."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from frozenkit._arrays import real_number
from frozenkit.errors import InputError


def wilson_interval(successes: Any, n: Any, *, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval for a proportion, elementwise; NaN where n is 0.

    The set of p for which a normal test with standard error √(p(1−p)/n) keeps the observed proportion.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4902 0.9433
    """
    z = normal_quantile(confidence)
    x, n = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    safe = np.maximum(n, 1)
    p = x / safe
    centre = (p + z**2 / (2 * safe)) / (1 + z**2 / safe)
    half = z / (1 + z**2 / safe) * np.sqrt(p * (1 - p) / safe + z**2 / (4 * safe**2))
    # At 0 and n the ends are exactly 0 and 1; rounding must not say otherwise.
    low = np.where(x == 0, 0.0, centre - half)
    high = np.where(x == n, 1.0, centre + half)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def newcombe_interval(
    both: Any, only_a: Any, only_b: Any, neither: Any, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of two paired proportions with Newcombe's interval (method 10), elementwise.

    The two Wilson intervals, their half-widths combined with the correlation φ of the fourfold table; a positive φ
    is shrunk by a continuity correction.

    Returns:
        Difference, lower end, upper end.
    """
    e, f, g, h = (np.asarray(v, dtype=float) for v in (both, only_a, only_b, neither))
    n = e + f + g + h
    p_a, p_b = (e + f) / n, (e + g) / n
    low_a, high_a = wilson_interval(e + f, n, confidence=confidence)
    low_b, high_b = wilson_interval(e + g, n, confidence=confidence)
    product = (e + f) * (g + h) * (e + g) * (f + h)
    numerator = e * h - f * g
    numerator = np.where(numerator > 0, np.maximum(numerator - n / 2, 0), numerator)
    phi = np.divide(numerator, np.sqrt(product), out=np.zeros_like(numerator), where=product > 0)
    down_a, up_a, down_b, up_b = p_a - low_a, high_a - p_a, p_b - low_b, high_b - p_b
    down = np.sqrt(np.maximum(down_a**2 - 2 * phi * down_a * up_b + up_b**2, 0))
    up = np.sqrt(np.maximum(up_a**2 - 2 * phi * up_a * down_b + down_b**2, 0))
    return p_a - p_b, p_a - p_b - down, p_a - p_b + up


def mcnemar_p_value(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: the discordant images are coin flips if a and b are equally good.

    Example:
        >>> mcnemar_p_value(1, 9)
        0.021484375
    """
    from scipy.stats import binomtest

    return float(binomtest(int(only_a), int(only_a) + int(only_b)).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: with all below α rejected, any false one has probability at most α.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]

    References:
        S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort(kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    corrected = np.empty_like(p)
    corrected[order] = stepped
    return corrected.tolist()


def normal_quantile(confidence: float) -> float:
    """z so that a standard normal variable lies in [−z, z] with this probability."""
    if not 0 < real_number("confidence", confidence) < 1:
        raise InputError(f"`confidence` must lie between 0 and 1, got {confidence}.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
