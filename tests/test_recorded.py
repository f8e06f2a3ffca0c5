"""The results that lessons show as recorded: they agree with themselves and name what they came from."""

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from frozenkit.heads.rules import HEAD_RULES
from frozenkit.probes._choose import SELF_SCALED
from frozenkit.probes.intervals import wilson_interval
from tests.benchmarks.heads import verdicts

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"


def recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(file.stem for file in RESULTS.glob("*.json")))
def test_a_record_names_its_command_date_machine_and_versions(name):
    found = recorded(name)
    assert found["script"].startswith(("python -m tests.benchmarks.", "pytest "))
    assert {"date", "machine", "versions", "settings", "rows"} <= set(found)
    assert {"processor", "threads", "gpu", "python"} <= set(found["machine"])
    assert {"torch", "timm", "scikit-learn"} <= set(found["versions"])


def test_gaps_are_the_differences_of_their_arms():
    rows = recorded("gaps")["rows"]
    keys = [(row["dataset"], row["n"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        arms = row["arms"]
        gap = row["gap"]
        assert gap["low"] <= gap["value"] <= gap["high"]
        difference = arms["fine-tuned"]["accuracy"] - arms["frozen, best layer"]["accuracy"]
        assert gap["value"] == pytest.approx(difference, abs=2e-5)
        assert (gap["p_value"] < 0.05) == (gap["low"] > 0 or gap["high"] < 0)


def test_every_gap_names_its_protocol_and_its_budget():
    found = recorded("gaps")
    for row in found["rows"]:
        assert row["protocol"] in found["settings"]["protocols"]
        assert {"images for fitting", "images for choosing", "steps a run", "runs", "augment", "seeds"} == set(
            row["budget"]
        )
        images = [row["budget"][f"images for {what}"]["fine-tuned"] for what in ("fitting", "choosing")]
        assert sum(images) == row["n"]


def test_arms_are_equal_in_the_newest_protocol():
    """Trap 14: both arms choose their layer, and no rate was cut off by the grid."""
    for row in recorded("gaps")["rows"]:
        tuned = row["arms"]["fine-tuned"]
        if row["protocol"] == "1":
            continue
        trials = tuned["trials"]
        last = row["arms"]["frozen, last layer"]["layer"]
        assert {trial["layer"] for trial in trials} == {row["arms"]["frozen, best layer"]["layer"], last}
        best = max(trials, key=lambda trial: (trial["val_score"], -trial["val_loss"]))
        assert (tuned["layer"], tuned["lr"]) == (best["layer"], best["lr"])
        rates = [trial["lr"] for trial in trials if trial["layer"] == best["layer"]]
        assert min(rates) < best["lr"] < max(rates) or best["lr"] in (1e-5, 1e-2)
        assert len(trials) == row["budget"]["runs"]


def test_recorded_intervals_are_wilsons():
    for row in recorded("gaps")["rows"]:
        again = {name: arm for name, arm in row.get("scaled softly", {}).items() if name != "date"}
        assert row["protocol"] == "1" or not again
        for arm in (*row["arms"].values(), *again.values()):
            right = round(arm["accuracy"] * row["n_test"])
            low, high = map(float, wilson_interval(right, row["n_test"]))
            assert arm["accuracy"] == pytest.approx(right / row["n_test"], abs=1e-5)
            assert (arm["low"], arm["high"]) == pytest.approx((low, high), abs=1e-5)


def test_every_published_rule_has_a_verdict():
    verdicts = recorded("heads")["verdicts"]
    rules = {(rule, row) for rule, table in HEAD_RULES.items() for row in range(len(table))}
    assert {(v["rule"], v["row"]) for v in verdicts} == rules
    for verdict in verdicts:
        refuted = any(case["better"] for case in verdict["cases"])
        expected = "not measured" if not verdict["cases"] else "refuted" if refuted else "not refuted"
        assert verdict["verdict"] == expected


def test_verdicts_follow_from_the_recorded_rows():
    found = recorded("heads")
    for judged, kept in zip(verdicts(found["rows"]), found["verdicts"], strict=True):
        assert judged["verdict"] == kept["verdict"]
        assert [c["better"] for c in judged["cases"]] == [c["better"] for c in kept["cases"]]


def test_a_rule_is_refuted_by_a_head_that_beats_each_of_its_own():
    """Over all draws, and corrected: a lead over the weakest of the named, or in one draw alone, refutes nothing."""
    rows = [copy.deepcopy(row) for row in recorded("heads")["rows"]]

    def better(p_over_ridge, p_over_softmax):
        for row in rows:
            if row["shots"] == 5 and row["head"] in ("ridge", "softmax", "linear"):
                p = p_over_softmax if row["head"] == "softmax" else p_over_ridge
                row["against"]["knn"] = {"difference": 0.1, "p": p}
        return next(v["verdict"] for v in verdicts(rows) if (v["rule"], v["row"]) == ("data-size", 0))

    assert better(1e-6, 1e-6) == "refuted"
    assert better(1e-6, 0.5) == "not refuted"
    assert better(0.01, 0.01) == "not refuted"  # 0.01 before the correction for all comparisons of the row


def test_the_soft_scale_beats_the_standard_deviation_and_does_not_flatter():
    rows = recorded("scaling")["rows"]

    def mean(what, scale, layer=None):
        return statistics.mean(row[what] for row in rows if row["scale"] == scale and layer in (None, row["layer"]))

    assert mean("test", "soft") > mean("test", "standard") + 0.005
    for other in ("none", "unit"):  # level with these, and unlike them it makes layers in different units comparable
        assert abs(mean("test", "soft") - mean("test", other)) < 0.005
    assert mean("test", "soft", "global_pool") > mean("test", "standard", "global_pool") + 0.02
    assert mean("test", "soft", "pixels") > mean("test", "standard", "pixels")  # the control is not understated
    of_the_scale = {
        scale: mean("leave-one-out", scale, "global_pool") - mean("refitted", scale, "global_pool")
        for scale in ("soft", "none", "standard")
    }
    assert of_the_scale["soft"] < of_the_scale["none"] + 0.005  # no more than where no scale is fitted at all
    assert of_the_scale["standard"] > of_the_scale["none"] + 0.02
    assert max(row["decide their scale"] for row in rows if row["scale"] == "soft") < SELF_SCALED
    by_hand = [row for row in rows if row["n"] == 40]  # each left out by hand: exact where no scale is fitted
    for scale in ("none", "unit"):
        assert all(row["leave-one-out"] == row["refitted"] for row in by_hand if row["scale"] == scale)
    assert mean("decide their scale", "standard", "global_pool") > 0.2
