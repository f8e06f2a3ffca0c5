"""P4, P5, P8 and P9: ridge path, softmax path, a training epoch from stored features, a slider's move."""

import math
import time
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from frozenkit import extract, load_backbone, load_dataset
from frozenkit.classifier.modules import FeatureExtractor, FrozenClassifier
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import LinearHead
from frozenkit.heads.ridge import ridge_path
from frozenkit.heads.softmax import softmax_path
from frozenkit.heads.training import train_head
from tests.benchmarks.timing import Figure, figure, median_seconds


@cache
def features() -> FeatureSet:
    """4,000 × 1,280, 10 classes: Fashion-MNIST at 64 px through the pooled head layer of Lite0."""
    backbone = load_backbone(image_size=64, device="cpu")
    return extract(backbone, load_dataset("fashion-mnist"), layer="global_pool")


def scaled(x: torch.Tensor) -> torch.Tensor:
    variance, mean = torch.var_mean(x.double(), dim=0, correction=0)
    return (x.double() - mean) / ((variance + variance[variance > 0].mean()) / 2).sqrt()


def eigh_by_hand(z: np.ndarray, labels: np.ndarray, strengths: np.ndarray) -> list[float]:
    """Leave-one-out accuracy at every strength, as somebody who knows the formula writes it; it gives no weights."""
    from scipy.linalg import eigh

    n, y = len(z), 2.0 * np.eye(labels.max() + 1)[labels] - 1
    eigenvalues, basis = eigh(z.T @ z, driver="evd")
    rows = z @ basis
    projected, squares = rows.T @ (y - y.mean(0)), rows * rows
    scores = []
    for alpha in strengths * n:
        shrink = 1 / (eigenvalues.clip(0) + alpha)
        fitted = rows @ (shrink[:, None] * projected) + y.mean(0)
        left_out = y - (y - fitted) / (1 - 1 / n - squares @ shrink)[:, None]
        scores.append(float((left_out.argmax(1) == labels).mean()))
    return scores


def p4_ridge_path() -> Figure:
    from sklearn.linear_model import RidgeClassifierCV

    train = features()
    strengths = np.logspace(-6, 3, 45)
    z, y = scaled(train.features).numpy(), train.labels.numpy()
    found = ridge_path(train.features, train.labels, strengths).loo_scores.numpy()
    np.testing.assert_allclose(found, eigh_by_hand(z, y, strengths), rtol=0, atol=1e-12)
    ours = median_seconds(lambda: ridge_path(train.features, train.labels, strengths))
    reference = median_seconds(lambda: eigh_by_hand(scaled(train.features).numpy(), y, strengths))
    library = median_seconds(lambda: RidgeClassifierCV(alphas=strengths * len(train)).fit(z, y), repeats=1)
    note = f"Against a hand-written eigh with equal scores; RidgeClassifierCV takes {library / ours:.0f} times as long."
    return figure("ridge path, 45 strengths with leave-one-out", ours, reference, floor=2, goal=3, note=note)


def p5_softmax_path() -> Figure:
    from sklearn.linear_model import LogisticRegression

    train = features()
    n, y = len(train), train.labels
    strengths = np.logspace(-4, 1, 25)
    minimum = softmax_path(train.features, y, strengths, tolerance=1e-5).objectives
    tolerance = 0.03  # certified; the true excess comes out several times smaller, and is checked
    path = softmax_path(train.features, y, strengths, tolerance=tolerance)
    worst = float((path.objectives / minimum - 1).max())
    assert worst <= 0.01, f"an objective lies {worst:.2%} above its minimum"
    ours = median_seconds(lambda: softmax_path(train.features, y, strengths, tolerance=tolerance))

    z = scaled(train.features)
    reference, iterations = 0.0, 3
    for i in reversed(range(25)):  # weaker strengths need more iterations: go on from where the last one stopped
        while True:
            solver = LogisticRegression(C=1 / (strengths[i] * n), tol=1e-12, max_iter=iterations)
            with warnings.catch_warnings(action="ignore"):  # it says that it was stopped; that is the point
                start = time.perf_counter()
                solver.fit(z.numpy(), y.numpy())
                took = time.perf_counter() - start
            w = torch.from_numpy(solver.coef_.T).double()
            logits = z @ w + torch.from_numpy(solver.intercept_).double()
            objective = torch.nn.functional.cross_entropy(logits, y) + strengths[i] / 2 * w.square().sum()
            if objective <= 1.01 * minimum[i]:
                break
            iterations = max(iterations + 1, math.floor(iterations * 1.15))
        reference += took
    note = f"Ours at most {worst:.2%} above the minimum; lbfgs given the fewest iterations (in steps of 15 %) for 1 %."
    return figure("softmax path, 25 strengths within 1 %", ours, reference, floor=10, goal=40, note=note)


def p8_epoch_from_store() -> Figure:
    images = load_dataset("fashion-mnist", limit=512)
    backbone = load_backbone(image_size=64, device="cpu")
    train = extract(backbone, images)
    val = replace(train.subset([0]), ids=("val",))
    epochs = 50
    ours = median_seconds(
        lambda: train_head(LinearHead(train.n_features, 10), train, val, epochs=epochs, patience=None, device="cpu")
    )
    pixels = torch.stack([backbone.preprocess(images[i][0]) for i in range(len(images))])
    model = FrozenClassifier(FeatureExtractor(backbone), LinearHead(train.n_features, 10)).train()
    optimiser = torch.optim.AdamW(model.trainable_parameters(), lr=1e-2)

    def epoch() -> None:
        for part in torch.randperm(len(images)).split(256):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels[part]), train.labels[part]).backward()
            optimiser.step()

    note = "512 images at 64 px, already decoded and preprocessed for the reference; our epochs include scoring val."
    reference = median_seconds(epoch, repeats=3)
    return figure("head training epoch from stored features", ours / epochs, reference, floor=100, goal=1000, note=note)


def p9_slider() -> Figure:
    """A new strength in `HeadLab`, everything that it shows included: the 95th percentile of 60 moves."""
    from frozenkit import split
    from frozenkit.widgets import HeadLab

    whole = features()
    train, test = (whole.subset(rows) for rows in split(whole.labels, fractions=(0.5, 0.5)))
    lab = HeadLab(train, test)
    times = []
    for step in range(60):
        start = time.perf_counter()
        lab.strength = 10.0 ** (-6 + 0.1 * step)
        times.append(time.perf_counter() - start)
    ours = float(np.quantile(times, 0.95))
    note = f"median {1000 * float(np.median(times)):.0f} ms; the floor is 50 ms, the goal 16 ms"
    return figure("a slider's move, 95th percentile", ours, 0.05, floor=1, goal=3, note=note)
