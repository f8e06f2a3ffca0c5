"""Every head at every number of labels per class, and a verdict on each rule, into ``notebooks/results/heads.json``.

    python -m tests.benchmarks.heads

All heads of one draw see the same labelled images, frozen features of one layer, and the same test images. Every head
is fitted on all of its labelled images: ridge and class means are chosen by leave-one-out, softmax regression by
cross-validation; a module's learning rate and epoch are chosen on a fifth, and it is then trained anew on everything.

A row of a rule is *refuted* where some other head is significantly better than each head that the row names. Heads are
compared by McNemar's test within each draw of labels. Twice the median of those p-values is a valid p-value however the
draws depend on each other; Holm's method then corrects for all comparisons of the row, over heads and cases.

References:
    N. Meinshausen, L. Meier, P. Bühlmann (2009), p-values for high-dimensional regression, JASA 104, section 2.3.
"""

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit import (
    HEAD_RULES,
    AttentionHead,
    FeatureSet,
    LinearHead,
    MLPHead,
    PrototypicalHead,
    compare,
    extract,
    few_shot,
    fit_probe,
    load_backbone,
    load_dataset,
    split,
    train_head,
)
from frozenkit._loop import adamw, cosine, mean_loss, run_epoch
from frozenkit.errors import FrozenkitError, FrozenkitWarning, InputError
from frozenkit.heads.scaling import Scaler
from frozenkit.probes.intervals import holm
from tests.benchmarks import recorded

COMMAND = "python -m tests.benchmarks.heads"
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet-lite0",
    "image_size": 96,
    "layer": "blocks.5",
    "scale": "soft",
    "rates": (1e-2, 1e-3),
    "epochs": 100,
}
SHOTS = {"fashion-mnist": (1, 5, 10, 50, 200, 400), "emoji-google": (1, 5, 10, 50)}
DRAWS = {200: 3}  # of the labelled images; 5 elsewhere, and fewer where there are no more
TOKENS = "attention"
LEVEL = 0.05

# Which of the heads below a row of a rule names.
NAMED = {
    ("per-class", 0): ["prototype, trained", "prototype"],
    ("per-class", 1): ["linear, normalised", "linear, normalised, T = 0.1"],
    ("per-class", 2): ["MLP 512"],
    ("per-class", 3): ["MLP 1024, 512"],
    ("data-size", 0): ["ridge", "softmax", "linear"],
    ("data-size", 1): ["ridge", "softmax", "linear", "MLP 512"],
    ("data-size", 2): ["MLP 512", "MLP 1024, 512"],
    ("data-size", 3): [],
}


def heads(d: int, k: int) -> dict[str, dict[str, Any] | nn.Module]:
    """Name to what `fit_probe` takes, or to a module, seeded."""
    torch.manual_seed(0)
    return {
        "ridge": {"head": "ridge"},
        "softmax": {"head": "softmax"},
        "prototype": {"head": "prototype"},
        "knn": {"head": "knn"},
        "linear, normalised": {"head": "softmax", "scale": "unit"},
        "prototype, trained": PrototypicalHead(d, k, metric="cosine"),
        "linear": LinearHead(d, k),
        "linear, normalised, T = 0.1": LinearHead(d, k, normalize=True, temperature=0.1),
        "MLP 512": MLPHead(d, k, hidden=(512,), dropout=0.5),
        "MLP 1024, 512": MLPHead(d, k, hidden=(1024, 512), dropout=0.3),
        TOKENS: AttentionHead(d, k, heads=4),
    }


def measure(name: str) -> list[dict[str, Any]]:
    """One row a head and number of labels."""
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    layer = SETTINGS["layer"]
    train, test = load_dataset(name), load_dataset(name, split="test")
    sets: dict[str, list[FeatureSet]] = {
        pooling: [
            extract(backbone, part, layer=layer, pooling=pooling, precision="exact", progress=False)
            for part in (train, test)
        ]
        for pooling in ("mean", "tokens")
    }
    labels = sets["mean"][0].labels
    rows = []
    for shots in SHOTS[name]:
        draws = [few_shot(labels, shots=shots, seed=seed) for seed in range(DRAWS.get(shots, 5))]
        draws = list({tuple(draw.sort().values.tolist()): draw for draw in draws}.values())  # all of them, drawn once
        predicted: dict[str, list[Tensor]] = {}
        for head, what in heads(sets["mean"][0].n_features, len(train.classes)).items():
            few, held = sets["tokens" if head == TOKENS else "mean"]
            row = _fit(head, what, few, held, draws, predicted)
            row = {"dataset": name, "shots": shots, "n": len(draws[0]), "n_test": len(test)} | row
            print(f"{name:14} {shots:4} {head:28} {row['accuracy']} {row['seconds']:.1f} s", flush=True)
            rows.append(row)
        for row in rows:
            if row["shots"] == shots and row["dataset"] == name and row["head"] in predicted:
                row["against"] = _tests(row["head"], predicted, sets["mean"][1].labels)
    return rows


def _fit(
    head: str, what: Any, few: FeatureSet, held: FeatureSet, draws: Sequence[Tensor], predicted: dict[str, list[Tensor]]
) -> dict[str, Any]:
    accuracies, start, reason = [], time.perf_counter(), ""
    for i, draw in enumerate(draws):
        try:
            with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
                # the edge of a grid, at sizes as small as these
                found = _module(what, few.subset(draw), held, i) if isinstance(what, nn.Module) else None
                if found is None:
                    found = fit_probe(few.subset(draw), seed=i, **what).predict(held)
        except FrozenkitError as error:  # a head that is trained needs images to choose its epoch on
            reason = str(error)
            break
        predicted.setdefault(head, []).append(found)
        accuracies.append(float((found == held.labels).double().mean()))
    return {
        "head": head,
        "accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
        "draws": accuracies,
        "seconds": (time.perf_counter() - start) / max(1, len(accuracies)),
        "parameters": sum(p.numel() for p in what.parameters()) if isinstance(what, nn.Module) else None,
        "not possible": reason,
    }


def _module(head: nn.Module, train: FeatureSet, held: FeatureSet, seed: int) -> Tensor:
    """Predictions of a module: its rate and epoch chosen on a fifth of train, then trained anew on all of train."""
    fit_rows, val_rows = split(train.labels, fractions=(0.8, 0.2), seed=seed)
    if not len(val_rows) or len(train.labels[fit_rows].unique()) < len(train.labels.unique()):
        raise InputError(f"a fifth of {len(train)} train images cannot be set aside without losing a class.")
    part, val = (_scaled(train.subset(rows), Scaler(train.features[fit_rows])) for rows in (fit_rows, val_rows))
    logs = {
        rate: train_head(head, part, val, lr=rate, epochs=SETTINGS["epochs"], seed=seed, device="cpu")
        for rate in SETTINGS["rates"]
    }

    def quality(rate: float) -> tuple[float, float]:
        row = logs[rate].history[logs[rate].best_epoch - 1]
        return row["val_score"], -row["val_loss"]

    best = max(logs, key=quality)
    scaler = Scaler(train.features)
    trained = _train(copy.deepcopy(head), _scaled(train, scaler), best, logs[best].best_epoch, seed)
    with torch.no_grad():
        return torch.cat([trained(scaler(x)).argmax(1) for x in held.features.float().split(500)])


def _scaled(features: FeatureSet, scaler: Scaler) -> FeatureSet:
    f = features
    return replace(f, features=scaler(f.features))


def _train(head: nn.Module, train: FeatureSet, rate: float, epochs: int, seed: int) -> nn.Module:
    """As `train_head` does it, for so many epochs of the same schedule, and without a val to stop by."""
    torch.manual_seed(seed)
    optimiser = adamw(head.parameters(), rate, 1e-4)
    head.train()

    def losses() -> Iterator[tuple[Tensor, int]]:
        for rows in torch.randperm(len(train)).tensor_split(-(-len(train) // 256)):
            yield mean_loss(head(train.features[rows]), train.labels[rows]), len(rows)

    for epoch in range(epochs):
        run_epoch(optimiser, losses(), lambda batch, epoch=epoch: cosine(rate, epoch, SETTINGS["epochs"]))
    return head.eval()


def _tests(head: str, predicted: dict[str, list[Tensor]], labels: Tensor) -> dict[str, dict[str, float]]:
    """Of each other head: its mean lead over this one, and how likely such leads would be by chance."""
    found = {}
    for other, theirs in predicted.items():
        if other == head:
            continue
        tests = [compare(a, b, labels) for a, b in zip(theirs, predicted[head], strict=True)]
        p_values = [test.p_value if test.difference > 0 else 1.0 for test in tests]
        found[other] = {
            "difference": sum(test.difference for test in tests) / len(tests),
            "p": min(1.0, median(p_values) * (2 if len(tests) > 1 else 1)),
        }
    return found


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refuted or not for each row of each published rule, with the cases that decide it."""
    found = []
    for rule, lines in HEAD_RULES.items():
        lower = 0.0
        for i, line in enumerate(lines):
            cases = []
            for dataset, all_shots in SHOTS.items():
                for shots in all_shots:
                    mine = [r for r in rows if (r["dataset"], r["shots"]) == (dataset, shots) and r["accuracy"]]
                    amount = shots if rule == "per-class" else mine[0]["n"]
                    if NAMED[rule, i] and lower <= amount < line.below:
                        cases.append(_case(mine, NAMED[rule, i]))
            lower = line.below
            _judge(cases)
            verdict = "refuted" if any(case["better"] for case in cases) else "not refuted"
            found.append(
                {"rule": rule, "row": i, "advice": line.advice, "verdict": verdict if cases else "not measured"}
                | {"cases": cases}
            )
    return found


def _case(mine: list[dict[str, Any]], named: list[str]) -> dict[str, Any]:
    """One number of labels of one data set: the best of the named, the best of all, and each rival's p-value."""
    there = [row for row in mine if row["head"] in named]
    best, own = (max(some, key=lambda row: row["accuracy"]) for some in (mine, there))
    rivals = [row["head"] for row in mine if row["head"] not in named]
    return {key: mine[0][key] for key in ("dataset", "shots", "n")} | {
        "draws": len(own["draws"]),
        "named": own["head"],
        "named at": own["accuracy"],
        "best": best["head"],
        "best at": best["accuracy"],
        # Better than each of the named: as improbable as the least clear of these leads.
        "p": {rival: max(row["against"][rival]["p"] for row in there) for rival in rivals},
    }


def _judge(cases: list[dict[str, Any]]) -> None:
    """Corrects the p-values of one row of a rule for their number, and lists in each case what is better."""
    corrected = iter(holm([p for case in cases for p in case["p"].values()]))
    for case in cases:
        case["p"] = {rival: next(corrected) for rival in case["p"]}
        case["better"] = [rival for rival, p in case["p"].items() if p < LEVEL]


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = [row for name in SHOTS for row in measure(name)]
    judged = verdicts(measured)
    for line in judged:
        print(line["rule"], "·", line["advice"], "·", line["verdict"])
    recorded.write(
        "heads.json",
        {**recorded.about(COMMAND, **SETTINGS), "rows": measured, "verdicts": judged},
    )
