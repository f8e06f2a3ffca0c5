"""One result of each kind, and how it is drawn: `CALLS` maps a name to a function of the axes."""

import torch

from frozenkit import (
    compare,
    domain_bound,
    explained_variance,
    fit_probe,
    frechet_distance,
    holdout_bound,
    plots,
    reduce,
    score,
    train_head,
)
from frozenkit.comparison.gaps import break_even, representation_gap
from frozenkit.comparison.race import Lane, Race
from frozenkit.probes.regions import decision_regions
from frozenkit.probes.reports import LearningCurve, Run, layer_report, learning_curve, width_curve
from tests.toy import clouds


def curve(accuracies, head):
    runs = []
    for n, accuracy in accuracies.items():
        right = round(1000 * accuracy)
        runs.append(Run(head, n, n, 0, score([0] * right + [1] * (1000 - right), [0] * 1000, n_classes=2), None))
    return LearningCurve(tuple(runs))


WEAK_TRAIN, WEAK_TEST = clouds(60, 0, apart=1.0, layer="late"), clouds(90, 1, apart=1.0, layer="late")
PROBE = fit_probe(WEAK_TRAIN)
SCORE = PROBE.score(WEAK_TEST)
REPORT = layer_report({"early": WEAK_TRAIN, "late": WEAK_TRAIN}, {"early": WEAK_TEST, "late": WEAK_TEST})
CURVE = learning_curve(WEAK_TRAIN, WEAK_TEST, sizes=[2, 5, 10], repeats=2, heads=("ridge", "knn"))
TRAIN, TEST = clouds(60, 0), clouds(90, 1)
REGIONS = decision_regions(TRAIN, TEST, resolution=20)[0]
FLAT = reduce(TRAIN, TEST, n_features=2)
RELIABILITY = fit_probe(TRAIN).reliability(TEST)
WIDTHS = width_curve(TRAIN, TEST, widths=[2, 6])
BOUND = domain_bound(TRAIN, TEST, clouds(60, 2, shift=1.0), clouds(90, 3, shift=1.0))
VACUOUS = holdout_bound(3, 3)
A, B = fit_probe(TRAIN).predict(TEST), (TEST.labels + (torch.arange(90) % 4 == 0)) % 3
PAIRED, GAP = compare(A, B, TEST.labels), representation_gap(A, B, TEST.labels)
FROZEN, TUNED = curve({100: 0.8, 10_000: 0.8}, "ridge"), curve({100: 0.7, 10_000: 0.9}, "tuned")
NEAR, FAR = (frechet_distance(TRAIN, clouds(60, 7, shift=shift), permutations=19) for shift in (0.0, 2.0))
LOG = train_head(torch.nn.Linear(6, 3), TRAIN, TEST, epochs=5)
RACE = Race(
    (Lane("fine-tuned", (12.0,), (1.0,)), Lane("frozen", (6.0,), (2.0,)), Lane("frozen, cached", (0.5,), (2.0,))),
    19.0,
    100,
    "some",
)


CALLS = {
    "score": lambda ax: plots.plot_score(SCORE, ax=ax),
    "scores": lambda ax: plots.plot_scores({"probe": SCORE, "again": SCORE}, ax=ax),
    "confusion": lambda ax: plots.plot_confusion(SCORE, ax=ax),
    "path": lambda ax: plots.plot_ridge_path(PROBE.strength_path, ax=ax),
    "layers": lambda ax: plots.plot_layer_report(REPORT, ax=ax),
    "depths": lambda ax: plots.plot_depths({"data": REPORT}, {"data": REPORT}, ax=ax),
    "curve": lambda ax: plots.plot_learning_curve(CURVE, ax=ax),
    "regions": lambda ax: plots.plot_regions(REGIONS, ax=ax),
    "reliability": lambda ax: plots.plot_reliability(RELIABILITY, ax=ax),
    "widths": lambda ax: plots.plot_width_curve(WIDTHS, ax=ax),
    "bounds": lambda ax: plots.plot_bounds({"a": BOUND, "b": VACUOUS}, ax=ax),
    "differences": lambda ax: plots.plot_differences({"paired": PAIRED, "gap": GAP}, ax=ax),
    "break-even": lambda ax: plots.plot_break_even(break_even(FROZEN, TUNED), ax=ax),
    "divergences": lambda ax: plots.plot_divergences({"none": NEAR, "shift": FAR}, ax=ax),
    "history": lambda ax: plots.plot_history(LOG, ax=ax),
    "variance": lambda ax: plots.plot_explained_variance({"late": explained_variance(TRAIN)}, ax=ax),
    "clouds": lambda ax: plots.plot_clouds({"source": FLAT[0], "target": FLAT[1].features}, ax=ax),
    "race": lambda ax: plots.plot_race(RACE, ax=ax),
}
