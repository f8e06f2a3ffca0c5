"""The gap table: six arms on the same labelled images of every data set at hand, into ``notebooks/results/gaps.json``.

    python -m tests.benchmarks.gaps [--datasets emoji-google mnist …] [--sizes 200 1000] [--published] [--anew]

Each arm may use the same n labelled images as it sees fit. The probes fit on all of them and choose by leave-one-out;
the tuned networks fit on four fifths and choose learning rate and epoch on the rest. All are reported on the same test
images. Rows that are in the file already are kept, so a run that was stopped goes on. ``--published`` takes the data
sets of the published table instead, where they can be downloaded.
"""

import argparse
import time
import warnings
from typing import Any

from frozenkit import (
    PUBLISHED_GAPS,
    FeatureCache,
    compare,
    extract,
    finetune,
    layer_report,
    list_datasets,
    load_backbone,
    load_dataset,
    representation_gap,
    split,
)
from frozenkit.controls import randomized, raw_pixels
from frozenkit.probes import fit_probe
from tests.benchmarks import recorded

SIMILARITY = {  # to photos of things, as one would judge before measuring
    "emoji-google": "near",
    "fashion-mnist": "middle",
    "textures": "middle",
    "textiles": "far",
    "mnist": "far",
    "digits": "far",
}
ORDER = [*SIMILARITY, *PUBLISHED_GAPS]
COMMAND = "python -m tests.benchmarks.gaps"
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet-lite0",
    "image_size": 96,
    "test": 1000,
    "seed": 0,
    "fine-tuned": {"start": "probe", "lr": [1e-4, 3e-4, 1e-3], "batch_norm": "eval"},
    "from scratch": {"start": "random", "lr": [1e-3, 3e-3], "batch_norm": "train"},
    "epochs": "6400 / images, 5 to 20; from scratch twice as many",
}


def epochs_for(n: int, arm: str) -> int:
    """More passes over fewer images: 160 images make five steps an epoch, and the gap must not come from that."""
    epochs = min(20, max(5, round(6400 / n)))
    return 2 * epochs if arm == "from scratch" else epochs


def measure(name: str, n: int) -> dict[str, Any] | None:
    """All arms on n labelled images of one data set; None where it has too few."""
    seed, size = SETTINGS["seed"], SETTINGS["image_size"]
    whole = load_dataset(name)
    if n > len(whole):
        n = len(whole)
    labelled = load_dataset(name, limit=n, seed=seed) if n < len(whole) else whole
    test = load_dataset(name, split="test")
    if len(test) > SETTINGS["test"]:
        test = load_dataset(name, split="test", limit=SETTINGS["test"], seed=seed)
    backbone = load_backbone(SETTINGS["backbone"], image_size=size)
    cache = FeatureCache()
    predictions, arms = {}, {}

    def report(arm: str, probe_or_tuned: Any, features: Any, seconds: float, **details: Any) -> None:
        found = probe_or_tuned.score(features)
        predictions[arm] = probe_or_tuned.predict(features)
        arms[arm] = {"accuracy": found.accuracy, "low": found.low, "high": found.high, "seconds": seconds, **details}
        print(f"  {arm:22} {found!r}  {seconds:.1f} s  {details}", flush=True)

    print(f"{name}, {n} labelled images, {len(test)} test images", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the edge of a grid, at sizes as small as these
        start = time.perf_counter()
        sets = [
            extract(backbone, part, layers=list(backbone.stages), precision="exact", progress=False)
            for part in (labelled, test)
        ]
        extraction = time.perf_counter() - start
        start = time.perf_counter()
        layers = layer_report(*sets)
        fitting = time.perf_counter() - start
        best, last = layers.chosen, backbone.default_layer
        report("frozen, best layer", layers.probe, sets[1][best], extraction + fitting, layer=best)
        start = time.perf_counter()
        probe = fit_probe(sets[0][last])
        report("frozen, last layer", probe, sets[1][last], extraction + time.perf_counter() - start, layer=last)

        rows = split(labelled.labels, fractions=(0.8, 0.2), seed=seed)
        train, val = (labelled.subset(part) for part in rows)
        for arm, source in (("fine-tuned", backbone), ("from scratch", randomized(backbone, seed=seed))):
            settings = SETTINGS[arm] | {"epochs": epochs_for(len(train), arm)}
            start = time.perf_counter()
            tuned = finetune(source, train, val, **settings, seed=seed, cache=cache, progress=False)
            report(
                arm,
                tuned,
                test,
                time.perf_counter() - start,
                lr=tuned.lr,
                best_epoch=tuned.best_epoch,
                epochs=settings["epochs"],
            )

        start = time.perf_counter()
        pixels = raw_pixels(labelled, test)
        report("raw pixels", fit_probe(pixels[0]), pixels[1], time.perf_counter() - start)
        start = time.perf_counter()
        untrained = [
            extract(randomized(backbone, seed=seed), part, layers=[best], precision="exact", progress=False)[best]
            for part in (labelled, test)
        ]
        report("random weights", fit_probe(untrained[0]), untrained[1], time.perf_counter() - start, layer=best)

    labels = test.labels
    gap = representation_gap(predictions["frozen, best layer"], predictions["fine-tuned"], labels)
    pixel = compare(predictions["frozen, best layer"], predictions["raw pixels"], labels)
    print(f"  gap {gap!r}", flush=True)
    return {
        "dataset": name,
        "similarity": SIMILARITY.get(name),
        "classes": len(test.classes),
        "n": n,
        "n_test": len(test),
        "arms": arms,
        "gap": {"value": gap.value, "low": gap.low, "high": gap.high, "p_value": gap.p_value},
        "frozen minus pixels": {
            "value": pixel.difference,
            "low": pixel.low,
            "high": pixel.high,
            "p_value": pixel.p_value,
        },
    }


def main() -> None:
    """Measures what is asked for and not yet there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=[])
    parser.add_argument("--sizes", nargs="+", type=int, default=[200, 1000])
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--anew", action="store_true", help="forget what is in the file")
    wanted = parser.parse_args()
    there = list_datasets()
    names = wanted.datasets or [*(PUBLISHED_GAPS if wanted.published else SIMILARITY)]
    content = (None if wanted.anew else recorded.read("gaps.json")) or {"rows": []}
    for name in names:
        if not wanted.published and not there.loc[name, "available"]:
            print(f"{name} is not here; `list_datasets` says where it comes from")
            continue
        done = {row["n"] for row in content["rows"] if row["dataset"] == name}
        size = len(load_dataset(name))
        for n in sorted({min(n, size) for n in wanted.sizes} - done):
            content["rows"].append(measure(name, n))
            content["rows"].sort(key=lambda row: (ORDER.index(row["dataset"]), row["n"]))
            recorded.write("gaps.json", {**recorded.about(COMMAND, **SETTINGS), "rows": content["rows"]})


if __name__ == "__main__":
    main()
