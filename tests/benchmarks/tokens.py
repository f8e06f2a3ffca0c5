"""Whether attention over a transformer's patches beats their mean; prints a table.

    nice -n 10 python -m tests.benchmarks.tokens

The offline transformer, its final norm, two data sets, several draws of the labels. Heads that are trained get the
same rates to choose from; rate and epoch are chosen on a quarter of the labels. Ridge has all labels and chooses its
strength by leave-one-out. *Against* is McNemar's exact test on the same test images, draw by draw. Small enough for two
cores: the best rate is often the largest, so the trained heads are compared with each other rather than with ridge.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from frozenkit import (
    AttentionHead,
    EfficientProbeHead,
    FeatureSet,
    LinearHead,
    compare,
    extract,
    fit_probe,
    load_backbone,
    load_dataset,
    split,
    train_head,
)

SETTINGS: dict[str, Any] = {
    "backbone": "vit-small-focus",
    "image_size": 84,
    "layer": "norm",
    "labels": 200,
    "pool": 400,
    "test": 250,
    "draws": 5,
    "rates": [1e-3, 3e-3, 1e-2],
    "epochs": 20,
    "patience": 6,
    "batch_size": 50,
}
SETS = ("emoji-google", "fashion-mnist")

# Name → a fresh head for (d, k), and what it reads.
HEADS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "linear on the mean": ("mean", LinearHead),
    "efficient probe, 8 queries": ("tokens", EfficientProbeHead),
    "efficient probe, 32 queries": ("tokens", lambda d, k: EfficientProbeHead(d, k, queries=32)),
    "efficient probe, 8 queries, values": ("tokens", lambda d, k: EfficientProbeHead(d, k, values=True)),
    "attention, 4 heads": ("tokens", AttentionHead),
}
RIDGES = {"ridge on the mean": "mean", "ridge on CLS": "cls", "ridge on CLS and mean": "cls+mean"}


def train(name: str, fit: FeatureSet, val: FeatureSet, seed: int) -> tuple[nn.Module, float]:
    """The head of the rate that is best on val, and that rate."""
    logs = {}
    for rate in SETTINGS["rates"]:
        torch.manual_seed(seed)
        head = HEADS[name][1](fit.features.shape[-1], fit.n_classes)
        settings = {key: SETTINGS[key] for key in ("epochs", "patience", "batch_size")}
        logs[rate] = train_head(head, fit, val, lr=rate, seed=seed, **settings)
    best = max(logs, key=lambda rate: logs[rate].best_score)
    return logs[best].head, best


def measure(dataset: str) -> list[dict[str, Any]]:
    """One row per head and draw."""
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    whole, test = load_dataset(dataset), load_dataset(dataset, split="test")
    whole, test = (
        load_dataset(dataset, split=part, limit=min(SETTINGS[most], len(data)))
        for part, most, data in (("train", "pool", whole), ("test", "test", test))
    )
    both = [
        extract(backbone, data, layer=SETTINGS["layer"], pooling="flatten", precision="exact", progress=False)
        for data in (whole, test)
    ]
    rows = [each.features.unflatten(1, backbone.trace().outputs[SETTINGS["layer"]]) for each in both]  # CLS, patches
    sets = {
        "cls": [replace(each, features=x[:, 0]) for each, x in zip(both, rows, strict=True)],
        "tokens": [replace(each, features=x[:, 1:]) for each, x in zip(both, rows, strict=True)],
        "mean": [replace(each, features=x[:, 1:].mean(1)) for each, x in zip(both, rows, strict=True)],
    }
    sets["cls+mean"] = [
        replace(a, features=torch.cat([a.features, b.features], 1))
        for a, b in zip(sets["cls"], sets["mean"], strict=True)
    ]
    results = []
    for seed in range(SETTINGS["draws"]):
        chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[: SETTINGS["labels"]]
        fit, val = split(sets["mean"][0].labels[chosen], fractions=(0.75, 0.25), seed=seed)
        predicted: dict[str, torch.Tensor] = {}
        about: dict[str, dict[str, Any]] = {}
        for name, pooling in RIDGES.items():
            probe = fit_probe(sets[pooling][0].subset(chosen))
            predicted[name], about[name] = probe.predict(sets[pooling][1]), {"strength": probe.strength}
        for name, (pooling, make) in HEADS.items():
            few, held = sets[pooling][0].subset(chosen), sets[pooling][1]
            head, rate = train(name, few.subset(fit), few.subset(val), seed)
            with torch.no_grad():
                predicted[name] = head(held.features).argmax(1)
            count = sum(p.numel() for p in make(held.features.shape[-1], held.n_classes).parameters())
            about[name] = {"rate": rate, "parameters": count}
        labels = sets["mean"][1].labels
        for name, answer in predicted.items():
            row = {"dataset": dataset, "seed": seed, "head": name, **about[name]}
            row["accuracy"] = float((answer == labels).double().mean())
            row["against"] = {
                other: {"points": 100 * test.value, "p": test.p_value}
                for other in ("ridge on the mean", "linear on the mean", "attention, 4 heads")
                if other != name
                for test in [compare(answer, predicted[other], labels)]
            }
            print(f"{dataset:14} {seed} {name:36} {row['accuracy']:.3f} {about[name]}", flush=True)
            results.append(row)
    return results


def _print(rows: Sequence[dict[str, Any]]) -> None:
    import pandas as pd

    table = pd.DataFrame(rows)
    print(table.groupby(["head", "dataset"])["accuracy"].agg(["mean", "min", "max"]).mul(100).round(1).to_string())
    for other in ("ridge on the mean", "linear on the mean", "attention, 4 heads"):
        print(f"\npoints over {other}; draws with p < 0.05, for and against")
        for (head, dataset), group in table.groupby(["head", "dataset"]):
            tests = [each[other] for each in group["against"] if other in each]
            if tests:
                points = [each["points"] for each in tests]
                clear = [each["points"] > 0 for each in tests if each["p"] < 0.05]
                mean = sum(points) / len(points)
                spread = f"{min(points):+.1f} to {max(points):+.1f}"
                print(f"{head:36} {dataset:14} {mean:+.1f} ({spread}); {clear.count(True)}, {clear.count(False)}")


def main() -> None:
    """Measures both sets anew."""
    _print([row for name in SETS for row in measure(name)])


if __name__ == "__main__":
    main()
