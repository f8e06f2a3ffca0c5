"""The gap table: six arms on the same labelled images of every data set at hand, into ``notebooks/results/gaps.json``.

    python -m tests.benchmarks.gaps [--datasets emoji-google mnist …] [--sizes 200 1000] [--published] [--anew] [--soft]

Each arm may use the same n labelled images as it sees fit. The probes fit on all of them and choose strength and layer
by leave-one-out; the tuned network fits on four fifths and chooses layer (the probes' or the last), learning rate and
epoch on the rest. All are reported on the same test images, once.

Every row names its protocol, its budget and its date. Rows of the newest protocol are kept, so a run that was stopped
goes on; those of an older one stay until they are measured again. ``--published`` takes the data sets of the published
table instead, where they can be downloaded. ``--soft`` fits the frozen arms of older rows once more, with features
scaled as in the newest protocol, and puts them beside the old ones.
"""

import argparse
import math
import time
import warnings
from datetime import UTC, datetime
from typing import Any

import torch

from frozenkit import (
    PUBLISHED_GAPS,
    FeatureCache,
    compare,
    extract,
    extract_layers,
    finetune,
    layer_report,
    list_datasets,
    load_backbone,
    load_dataset,
    representation_gap,
    split,
)
from frozenkit.comparison.controls import randomized, raw_pixels
from frozenkit.probes.probe import fit_probe
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
PROTOCOL = "2"
PROTOCOLS = {
    "1": "2026-11-23, two threads, wall-clock seconds. Frozen: features standardised; best of all stages by "
    "leave-one-out. Fine-tuned: from the last layer only, rates 1e-4, 3e-4, 1e-3, whichever val chose, at the edge or "
    "not: the arms are unequal, and the gap may be off in either direction.",
    "2": "One thread, processor seconds. Frozen: features scaled softly; best of all stages by leave-one-out. "
    "Fine-tuned: from the frozen arm's layer or the last, both at 3e-4 and 1e-3; at the better one the rates are "
    "extended threefold until the best on val lies inside them. From scratch as in protocol 1, where it was measured.",
}
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet-lite0",
    "image_size": 96,
    "test": 1000,
    "seed": 0,
    "fine-tuned": {"start": "probe", "batch_norm": "eval", "augment": "none", "batch_size": 32},
    "from scratch": {"start": "random", "lr": [1e-3, 3e-3], "batch_norm": "train"},
    "epochs": "6400 / images, 5 to 20; from scratch twice as many",
    "protocols": PROTOCOLS,
}


def epochs_for(n: int, arm: str) -> int:
    """More passes over fewer images: 160 images make five steps an epoch, and the gap must not come from that."""
    epochs = min(20, max(5, round(6400 / n)))
    return 2 * epochs if arm == "from scratch" else epochs


def merit(run: Any) -> tuple[float, float]:
    """By which a run is chosen: val score, then val loss."""
    return run.val_score, -run.history[run.best_epoch]["val_loss"]


def tune(backbone: Any, train: Any, val: Any, layers: list[str], **settings: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The best run on val over layers and rates, and one dict a run; test takes no part."""
    runs: dict[tuple[str, float], Any] = {}
    rows = []

    def run(layer: str, lr: float) -> None:
        start = time.process_time()
        with warnings.catch_warnings(action="ignore"):
            found = finetune(backbone, train, val, layer=layer, lr=lr, **settings)
        runs[layer, lr] = found
        row = {"layer": layer, "lr": lr, "val_score": found.val_score, "val_loss": -merit(found)[1]}
        rows.append(row | {"best_epoch": found.best_epoch, "seconds": time.process_time() - start})
        print(f"    {rows[-1]}", flush=True)

    for layer in layers:
        for lr in (3e-4, 1e-3):
            run(layer, lr)
    while True:
        layer, lr = max(runs, key=lambda key: merit(runs[key]))
        tried = sorted(rate for at, rate in runs if at == layer)
        beyond = 1 if lr == tried[-1] else -1 if lr == tried[0] else 0
        place = LADDER.index(lr) + beyond
        if not beyond or not 0 <= place < len(LADDER):
            return runs[layer, lr], rows
        run(layer, LADDER[place])


def images_of(name: str, n: int) -> tuple[Any, Any]:
    """n labelled images of a data set, and those that are reported on."""
    seed = SETTINGS["seed"]
    return load_dataset(name, limit=n, seed=seed), load_dataset(name, split="test", limit=SETTINGS["test"], seed=seed)


def scaled_softly(name: str, n: int) -> dict[str, Any]:
    """The two frozen arms, with features scaled as in the newest protocol."""
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    sets = [
        extract_layers(backbone, part, layers=list(backbone.stages), precision="exact", progress=False)
        for part in images_of(name, n)
    ]
    with warnings.catch_warnings(action="ignore"):  # the edge of a grid, at sizes as small as these
        report = layer_report(*sets)
    layers = {"frozen, best layer": report.chosen, "frozen, last layer": backbone.default_layer}
    scores = {arm: report.scores[layer] for arm, layer in layers.items()}
    print(f"{name}, {n} labelled images, scaled softly: {scores}", flush=True)
    return {"date": datetime.now(UTC).date().isoformat()} | {
        arm: {"accuracy": s.accuracy, "low": s.low, "high": s.high, "layer": layers[arm]} for arm, s in scores.items()
    }


def measure(name: str, n: int, old: dict[str, Any] | None = None) -> dict[str, Any]:
    """All arms on n labelled images of one data set; `old` is an earlier row, whose arm from scratch stays."""
    seed = SETTINGS["seed"]
    labelled, test = images_of(name, n)
    n = len(labelled)
    backbone = load_backbone(SETTINGS["backbone"], image_size=SETTINGS["image_size"])
    cache = FeatureCache()
    torch.set_num_threads(1)
    predictions, arms = {}, {}

    def report(arm: str, probe_or_tuned: Any, features: Any, seconds: float, **details: Any) -> None:
        found = probe_or_tuned.score(features)
        predictions[arm] = probe_or_tuned.predict(features)
        arms[arm] = {"accuracy": found.accuracy, "low": found.low, "high": found.high, "seconds": seconds, **details}
        print(f"  {arm:22} {found!r}  {seconds:.1f} s  {details}", flush=True)

    print(f"{name}, {n} labelled images, {len(test)} test images", flush=True)
    with warnings.catch_warnings(action="ignore"):  # the edge of a grid, at sizes as small as these
        start = time.process_time()
        sets = [
            extract_layers(backbone, part, layers=list(backbone.stages), precision="exact", progress=False)
            for part in (labelled, test)
        ]
        extraction = time.process_time() - start
        start = time.process_time()
        layers = layer_report(*sets)
        fitting = time.process_time() - start
        best, last = layers.chosen, backbone.default_layer
        report("frozen, best layer", layers.probe, sets[1][best], extraction + fitting, layer=best)
        start = time.process_time()
        probe = fit_probe(sets[0][last])
        report("frozen, last layer", probe, sets[1][last], extraction + time.process_time() - start, layer=last)

        rows = split(labelled.labels, fractions=(0.8, 0.2), seed=seed)
        train, val = (labelled.subset(part) for part in rows)
        common = {"seed": seed, "cache": cache, "progress": False}
        start = time.process_time()
        settings = SETTINGS["fine-tuned"] | {"epochs": epochs_for(len(train), "fine-tuned")}
        tuned, trials = tune(backbone, train, val, list(dict.fromkeys([best, last])), **settings, **common)
        details = {"layer": tuned.layer, "lr": tuned.lr, "best_epoch": tuned.best_epoch, "epochs": settings["epochs"]}
        report("fine-tuned", tuned, test, time.process_time() - start, **details, trials=trials)
        if old is not None:
            arms["from scratch"] = old["arms"]["from scratch"] | {"protocol": old.get("protocol", "1")}
        else:
            settings = SETTINGS["from scratch"] | {"epochs": epochs_for(len(train), "from scratch")}
            start = time.process_time()
            scratch = finetune(randomized(backbone, seed=seed), train, val, **settings, **common)
            details = {"lr": scratch.lr, "best_epoch": scratch.best_epoch, "epochs": settings["epochs"]}
            report("from scratch", scratch, test, time.process_time() - start, **details)

        start = time.process_time()
        pixels = raw_pixels(labelled, test)
        report("raw pixels", fit_probe(pixels[0]), pixels[1], time.process_time() - start)
        start = time.process_time()
        untrained = [
            extract(randomized(backbone, seed=seed), part, layer=best, precision="exact", progress=False)
            for part in (labelled, test)
        ]
        report("random weights", fit_probe(untrained[0]), untrained[1], time.process_time() - start, layer=best)

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
        "protocol": PROTOCOL,
        "date": datetime.now(UTC).date().isoformat(),
        "budget": {
            "images for fitting": {"frozen": n, "fine-tuned": len(train)},
            "images for choosing": {"frozen": n, "fine-tuned": len(val)},  # the frozen arm leaves one out
            "steps a run": arms["fine-tuned"]["epochs"] * math.ceil(len(train) / SETTINGS["fine-tuned"]["batch_size"]),
            "runs": len(trials),
            "augment": SETTINGS["fine-tuned"]["augment"],
            "seeds": 1,
        },
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
    parser.add_argument("--soft", action="store_true", help="only the frozen arms of older rows, scaled softly")
    wanted = parser.parse_args()
    there = list_datasets()
    names = wanted.datasets or [*(PUBLISHED_GAPS if wanted.published else SIMILARITY)]
    content = (None if wanted.anew else recorded.read("gaps.json")) or {"rows": []}
    if wanted.soft:
        for row in content["rows"]:
            if row["protocol"] != PROTOCOL and row["dataset"] in names and row["n"] in wanted.sizes:
                row["scaled softly"] = scaled_softly(row["dataset"], row["n"])
                recorded.write("gaps.json", content | {"settings": SETTINGS})
        return
    for name in names:
        if not wanted.published and not there.loc[name, "available"]:
            print(f"{name} is not here; `list_datasets` says where it comes from")
            continue
        size = len(load_dataset(name))
        for n in sorted({min(n, size) for n in wanted.sizes}):
            old = next((row for row in content["rows"] if (row["dataset"], row["n"]) == (name, n)), None)
            if old is not None and old.get("protocol") == PROTOCOL:
                continue
            row = measure(name, n, old)
            content["rows"] = [*(other for other in content["rows"] if other is not old), row]
            content["rows"].sort(key=lambda row: (ORDER.index(row["dataset"]), row["n"]))
            recorded.write("gaps.json", {**recorded.about(COMMAND, **SETTINGS), "rows": content["rows"]})


if __name__ == "__main__":
    main()
