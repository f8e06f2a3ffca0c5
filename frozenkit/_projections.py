"""Linear maps to fewer features: principal, random and discriminant directions, as pure functions of arrays."""

import torch
from torch import Tensor


def principal_directions(x: Tensor, n: int) -> Tensor:
    """(d, n) principal directions of rows x (m, d) around their mean, largest variance first; 0 where none varies."""
    spectrum = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    # Below what float32 rounds off the features, a direction is noise: it becomes 0 rather than a feature.
    rounding = torch.finfo(torch.float32).eps * x.norm()
    return torch.where(spectrum.S[:, None] > rounding, spectrum.Vh, 0.0)[:n].T


def random_directions(d: int, n: int, *, seed: int) -> Tensor:
    """(d, n) float64 Gaussian, scaled by 1/√n: squared lengths are kept on average."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, n, generator=generator, dtype=torch.float64) / n**0.5


def discriminant_directions(x: Tensor, labels: Tensor, n: int) -> Tensor:
    """(d, n) float64 directions in which the classes lie furthest apart, measured in their common spread.

    The covariance within the classes is that of all deviations from class means together, shrunk by Ledoit and Wolf's
    rule. Shrinking each class by itself, as scikit-learn does, fails for two images per class: their two deviations
    are opposite, the rule sees no noise in them and shrinks nothing, and the covariance is singular. Features times
    these are coordinates, along each of which the spread within classes, shrunk, is 1.

    Args:
        x: (m, d) features.
        labels: (m,) class indices, of more than n classes.
        n: At most d.

    References:
        O. Ledoit, M. Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, JMVA 88.
    """
    from sklearn.covariance import ledoit_wolf

    x = x.double()
    spread = x.std(0, correction=0)
    spread = torch.where(spread > 1e-12 * spread.max(), spread, 1.0)  # a constant column stays what it is
    z = (x - x.mean(0)) / spread
    _, label, counts = labels.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), z.shape[1], dtype=z.dtype).index_add_(0, label, z) / counts[:, None]
    shrunk, _ = ledoit_wolf((z - means[label]).numpy(), assume_centered=True)
    # Identical images in each class leave no spread at all; the last term keeps the solution defined.
    within = torch.from_numpy(shrunk) + 1e-6 * torch.eye(z.shape[1], dtype=z.dtype)
    apart = (means * (counts / counts.sum()).sqrt()[:, None]).T  # (d, k): apart @ apart.T is the spread between classes
    solved = torch.linalg.solve(within, apart)
    values, vectors = torch.linalg.eigh(apart.T @ solved)  # ascending
    values, vectors = values.flip(0)[:n], vectors.flip(1)[:, :n]
    directions = solved @ vectors / values.clamp(min=1e-12 * float(values[0])).sqrt()
    return directions / spread[:, None]
