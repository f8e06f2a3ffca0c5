"""Rows of unequal scales, and the scaling that heads are fitted in, written as the formula says it."""

import torch

STRENGTHS = [1e-3, 0.1, 10.0]
SHAPES = {"n > d": (40, 6, 3), "n = d": (12, 12, 2), "n = d + 1": (13, 12, 2), "n < d": (15, 40, 3)}


def uneven(n, d, k, *, seed=0, imbalanced=False, spread=1.0):
    """Features (n, d) whose scales span two decades, around 5, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    if imbalanced:
        labels[k : n * 3 // 4] = 0
    centres = torch.randn(k, d, generator=generator) * spread
    scales = 10 ** torch.linspace(-1, 1, d)
    return (torch.randn(n, d, generator=generator) + centres[labels]) * scales + 5, labels


def scaled(x):
    """Centred and divided by the root of the mean of variance and average variance, constant features left alone."""
    x = x.double()
    variance = x.var(0, correction=0)
    constant = variance.sqrt() < 1e-6 * x.abs().amax(0)
    return (x - x.mean(0)) / torch.where(constant, 1.0, (variance + variance[~constant].mean()) / 2).sqrt()
