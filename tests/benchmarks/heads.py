"""Every head at every number of labels per class, and a verdict on each rule, into ``notebooks/results/heads.json``.

    python -m tests.benchmarks.heads

All heads of one draw see the same labelled images, frozen features of one layer, and the same test images. A rule's row
*holds* where no other head is significantly better than the best that the row names: McNemar's test on the test images
of the first draw, corrected by Holm for the number of heads compared with.
"""

import time
import warnings
from collections.abc import Sequence
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
)
from frozenkit.errors import FrozenkitError
from frozenkit.intervals import holm
from tests.benchmarks import recorded

COMMAND = "python -m tests.benchmarks.heads"
SETTINGS = {"backbone": "efficientnet-lite0", "image_size": 96, "layer": "blocks.5", "draws": 3, "test": 1000}
SHOTS = {"fashion-mnist": (1, 5, 10, 50, 200, 400), "emoji-google": (1, 5, 10, 50)}
TOKENS = "attention"

# Which of the heads below a row of a rule names.
NAMED = {
    ("per-class", 0): ["prototype, trained", "prototype"],
    ("per-class", 1): ["linear, normalised"],
    ("per-class", 2): ["MLP 512"],
    ("per-class", 3): ["MLP 1024, 512"],
    ("data-size", 0): ["ridge", "softmax", "linear"],
    ("data-size", 1): ["ridge", "softmax", "linear", "MLP 512"],
    ("data-size", 2): ["MLP 512", "MLP 1024, 512"],
    ("data-size", 3): [],
}


def heads(d: int, k: int) -> dict[str, str | nn.Module]:
    """Name to what `fit_probe` takes; modules are seeded."""
    torch.manual_seed(0)
    return {
        "ridge": "ridge",
        "softmax": "softmax",
        "prototype": "prototype",
        "knn": "knn",
        "prototype, trained": PrototypicalHead(d, k, metric="cosine"),
        "linear": LinearHead(d, k),
        "linear, normalised": LinearHead(d, k, normalize=True, temperature=0.1),
        "MLP 512": MLPHead(d, k, hidden=(512,), dropout=0.5),
        "MLP 1024, 512": MLPHead(d, k, hidden=(1024, 512), dropout=0.3),
        TOKENS: AttentionHead(d, k, heads=4),
    }


def measure(name: str) -> list[dict[str, Any]]:
    """One row a head and number of labels."""
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    layer, size = SETTINGS["layer"], SETTINGS["test"]
    train, test = load_dataset(name), load_dataset(name, split="test")
    test = test if len(test) <= size else load_dataset(name, split="test", limit=size)
    sets: dict[str, list[FeatureSet]] = {
        pooling: [
            extract(backbone, part, layers=[layer], pooling=pooling, precision="exact", progress=False)[layer]
            for part in (train, test)
        ]
        for pooling in ("mean", "tokens")
    }
    labels = sets["mean"][0].labels
    rows = []
    for shots in SHOTS[name]:
        draws = [few_shot(labels, shots=shots, seed=seed) for seed in range(SETTINGS["draws"])]
        draws = list({tuple(draw.sort().values.tolist()): draw for draw in draws}.values())  # all of them, drawn once
        first: dict[str, Tensor] = {}
        for head, what in heads(sets["mean"][0].n_features, len(train.classes)).items():
            few, held = sets["tokens" if head == TOKENS else "mean"]
            repeats = draws[:1] if head == TOKENS else draws
            row = _fit(head, what, few, held, repeats, first)
            row = {"dataset": name, "shots": shots, "n": len(draws[0]), "n_test": len(test)} | row
            print(f"{name:14} {shots:4} {head:20} {row['accuracy']} {row['seconds']:.1f} s", flush=True)
            rows.append(row)
        for row in rows:
            if row["shots"] == shots and row["dataset"] == name and row["head"] in first:
                row["against"] = _tests(row["head"], first, sets["mean"][1].labels)
    return rows


def _fit(
    head: str, what: Any, few: FeatureSet, held: FeatureSet, draws: Sequence[Tensor], first: dict[str, Tensor]
) -> dict[str, Any]:
    accuracies, scores, start, reason = [], [], time.perf_counter(), ""
    for i, draw in enumerate(draws):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the edge of a grid, at sizes as small as these
                probe = fit_probe(few.subset(draw), head=what, seed=i)
        except FrozenkitError as error:  # a head that is trained needs images to choose its epoch on
            reason = str(error)
            break
        if i == 0:
            first[head] = probe.predict(held)
        scores.append(probe.score(held))
        accuracies.append(scores[-1].accuracy)
    mean = sum(accuracies) / len(accuracies) if accuracies else None
    return {
        "head": head,
        "accuracy": mean,
        "low": scores[0].low if scores else None,
        "high": scores[0].high if scores else None,
        "draws": accuracies,
        "seconds": (time.perf_counter() - start) / max(1, len(accuracies)),
        "parameters": sum(p.numel() for p in what.parameters()) if isinstance(what, nn.Module) else None,
        "not possible": reason,
    }


def _tests(head: str, first: dict[str, Tensor], labels: Tensor) -> dict[str, dict[str, float]]:
    """The other heads against this one on the first draw; p-values corrected for their number."""
    found = {other: compare(p, first[head], labels) for other, p in first.items() if other != head}
    corrected = holm([test.p_value for test in found.values()])
    return {
        other: {"difference": test.difference, "low": test.low, "high": test.high, "p": p}
        for (other, test), p in zip(found.items(), corrected, strict=True)
    }


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Yes or no for each row of each published rule, with the cases that decide it."""
    found = []
    for rule, lines in HEAD_RULES.items():
        lower = 0.0
        for i, line in enumerate(lines):
            cases = []
            for dataset, all_shots in SHOTS.items():
                for shots in all_shots:
                    mine = [r for r in rows if (r["dataset"], r["shots"]) == (dataset, shots) and r["accuracy"]]
                    amount = shots if rule == "per-class" else mine[0]["n"]
                    if lower <= amount < line.below:
                        cases.append(_case(mine, NAMED[rule, i]))
            lower = line.below
            holds = None if not cases or not NAMED[rule, i] else all(case["holds"] for case in cases)
            verdict = {None: "not measured", True: "yes", False: "no"}[holds]
            found.append({"rule": rule, "row": i, "advice": line.advice, "holds": verdict, "cases": cases})
    return found


def _case(mine: list[dict[str, Any]], named: list[str]) -> dict[str, Any]:
    there = [row for row in mine if row["head"] in named]
    best = max(mine, key=lambda row: row["accuracy"])
    case = {key: mine[0][key] for key in ("dataset", "shots", "n")} | {
        "best": best["head"],
        "best at": best["accuracy"],
    }
    if not there:
        return case | {"named": None, "named at": None, "better": [], "holds": False}
    own = max(there, key=lambda row: row["accuracy"])
    better = [h for h, test in own["against"].items() if h not in named and test["difference"] > 0 and test["p"] < 0.05]
    return case | {"named": own["head"], "named at": own["accuracy"], "better": better, "holds": not better}


if __name__ == "__main__":
    measured = [row for name in SHOTS for row in measure(name)]
    judged = verdicts(measured)
    for line in judged:
        print(line["rule"], "·", line["advice"], "·", line["holds"])
    recorded.write(
        "heads.json",
        {**recorded.about(COMMAND, **SETTINGS), "rows": measured, "verdicts": judged},
    )
