"""How features are scaled before a linear head: test accuracy and the flattery of leave-one-out, into ``scaling.json``.

    python -m tests.benchmarks.scaling [--anew]

Ridge on four layers (and three of them side by side) of five data sets, at several numbers of labels, each in several
draws, for every kind of scale. The strength is chosen by leave-one-out. *Flattery* is that leave-one-out accuracy minus
the accuracy on test images; *refitted* is the accuracy in five folds where the scale is fitted without the fold, at the
same strength (with 40 labels, that of leaving each out by hand). The raw pixels, the course's control, are a row of
their own. Rows that are there are kept.
"""

import argparse
import warnings
from typing import Any

import torch

from frozenkit import FeatureSet, combine, extract_layers, load_backbone, load_dataset
from frozenkit.comparison.controls import raw_pixels
from frozenkit.heads.ridge import ridge_path
from frozenkit.heads.scaling import SCALES
from frozenkit.probes._choose import _folds
from tests.benchmarks import recorded

COMMAND = "python -m tests.benchmarks.scaling"
LAYERS = ("blocks.2", "blocks.4", "blocks.6", "global_pool")
TOGETHER = "blocks.2 + blocks.4 + blocks.6"
SETS = ("emoji-google", "fashion-mnist", "mnist", "digits", "textiles")
DRAWS = {40: 3, 100: 5, 300: 3, 600: 2, 1200: 1}  # labels: draws
SETTINGS: dict[str, Any] = {"backbone": "efficientnet-lite0", "image_size": 96, "test": 1000, "draws": DRAWS}


def accuracy(fit: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of rows that a fitted map has right."""
    return float((fit(x).argmax(1) == y).double().mean())


def measure(train: FeatureSet, test: FeatureSet, scale: str, seed: int) -> dict[str, float]:
    """One kind of scale on one draw."""
    x, y = train.features, train.labels
    path = ridge_path(x, y, scale=scale, n_classes=train.n_classes)
    right, fold = 0.0, torch.arange(len(y)) if len(y) <= 40 else _folds(y, seed)
    for part in fold.unique().tolist():
        held = fold == part
        strength = path.best * len(y) / int((~held).sum())  # the formula leaves a row out at the same α = λ·n
        without = ridge_path(x[~held], y[~held], [strength], scale=scale, n_classes=train.n_classes)
        right += float((without.at(strength)(x[held]).argmax(1) == y[held]).sum())
    return {
        "test": accuracy(path.at(path.best), test.features, test.labels),
        "leave-one-out": float(path.loo_scores.max()),
        "refitted": right / len(y),
        "decide their scale": path.self_scaled / len(y),
        "strength": path.best,
    }


def main() -> None:
    """Measures what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="forget what is in the file")
    rows = ([] if parser.parse_args().anew else (recorded.read("scaling.json") or {"rows": []})["rows"]) or []
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    for name in SETS:
        if any(row["dataset"] == name for row in rows):
            continue
        whole, test_images = load_dataset(name), load_dataset(name, split="test")
        test_images = load_dataset(name, split="test", limit=min(SETTINGS["test"], len(test_images)))
        train, test = (
            extract_layers(backbone, part, layers=LAYERS, precision="exact", progress=False)
            for part in (whole, test_images)
        )
        for part in (train, test):
            part[TOGETHER] = combine({layer: part[layer] for layer in LAYERS[:3]})
        train["pixels"], test["pixels"] = raw_pixels(whole, test_images)
        for n, draws in DRAWS.items():
            for seed in range(draws if n < len(whole) else 0):
                chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[:n]
                for layer in train:
                    few = train[layer].subset(chosen)
                    for scale in SCALES:
                        with warnings.catch_warnings(action="ignore"):
                            found = measure(few, test[layer], scale, seed)
                        rows.append({"dataset": name, "layer": layer, "n": n, "seed": seed, "scale": scale, **found})
            print(name, n, flush=True)
        recorded.write("scaling.json", {**recorded.about(COMMAND, **SETTINGS), "rows": rows})
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    table = pd.DataFrame(rows)
    table["flattery"] = table["leave-one-out"] - table["test"]
    table["of the scale"] = table["leave-one-out"] - table["refitted"]
    index = ["dataset", "layer", "n", "seed"]
    for what in ("test", "flattery", "of the scale", "decide their scale"):
        mean = table.groupby(["layer", "scale"])[what].mean().unstack() * 100
        print(f"\n{what}, %\n{mean.round(1)}")
    wide = table.pivot_table(index=index, columns="scale", values="test") * 100
    gain = wide.sub(wide["standard"], axis=0).describe().loc[["mean", "min", "max"]]
    print(f"\npoints over the standard deviation\n{gain.round(1)}")


if __name__ == "__main__":
    main()
