"""HeadLab without a browser: set a trait, read a result."""

import gc
import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from torch.testing import assert_close

from frozenkit import FeatureSet, FrozenkitError, FrozenkitWarning, HeadLab, few_shot, fit_probe, ridge_path
from frozenkit.errors import DataError, InputError
from tests.toy import overlapping


def test_it_begins_with_all_labels_and_the_strength_of_leave_one_out(lab):
    path = ridge_path(overlapping().features, overlapping().labels)
    assert lab.shots is None
    assert lab.strength == float(path.best)
    assert lab.answer["is_best"]
    np.testing.assert_allclose(lab.answer["path"], np.asarray(path.loo_scores), rtol=0, atol=1e-12)


def test_the_answer_is_that_of_a_probe_fitted_by_hand(lab):
    lab.shots = 10
    train = overlapping().subset(few_shot(overlapping().labels, shots=10, seed=0))
    test = overlapping(90, seed=1)
    strength = lab.strength
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        probe = fit_probe(train, strengths=[strength])
    score = probe.score(test)
    assert lab.answer["test"] == {"accuracy": score.accuracy, "low": score.low, "high": score.high, "n": 90}
    assert lab.answer["train"]["n"] == lab.result.n_train == 30
    torch.testing.assert_close(lab.result.predict(test), probe.predict(test), rtol=0, atol=0)


def test_a_strength_set_by_hand_stays_when_labels_change(lab):
    target = lab.answer["strengths"][3]
    lab.strength = target
    assert not lab.follow_best
    lab.shots = 5
    assert lab.strength == target
    assert lab.answer["strength"] == target
    assert lab.answer["shots"] == 5


def test_following_returns_to_the_best_strength(lab):
    lab.strength = lab.answer["strengths"][0]
    lab.follow_best = True
    assert lab.strength == lab.answer["best"]
    lab.shots = 5
    assert lab.strength == lab.answer["best"]
    assert lab.answer["is_best"]


def test_a_strength_snaps_to_the_nearest_of_the_path():
    lab = HeadLab(overlapping(), strengths=[0.01, 0.1, 1.0])
    lab.strength = 0.04
    assert lab.strength == 0.1
    lab.strength = 1e9
    assert lab.strength == 1.0
    assert lab.result.strength == 1.0


def test_only_a_new_number_of_labels_fits_anew(lab, monkeypatch):
    from frozenkit.widgets import headlab

    fits = []
    monkeypatch.setattr(headlab, "fit_probe", lambda *args, **kw: fits.append(1) or fit_probe(*args, **kw))
    for strength in lab.answer["strengths"]:
        lab.strength = strength
    assert fits == []
    lab.shots = 10
    lab.shots = 20
    lab.shots = 10
    assert len(fits) == 2


def test_without_test_there_is_no_test_score():
    lab = HeadLab(overlapping())
    assert lab.answer["test"] is None
    assert "test" not in repr(lab)


def test_test_labels_choose_nothing():
    test = overlapping(90, seed=1)
    shuffled = test.relabel(test.labels.flip(0), test.classes)
    a, b = HeadLab(overlapping(), test), HeadLab(overlapping(), shuffled)
    assert a.strength == b.strength
    assert a.answer["path"] == b.answer["path"]
    assert a.answer["test"] != b.answer["test"]


def test_choices_end_below_the_smallest_class():
    fs = overlapping()
    rows = torch.cat([(fs.labels == 0).nonzero()[:7], (fs.labels > 0).nonzero()]).squeeze(1)
    lab = HeadLab(fs.subset(rows))
    assert lab.shots_choices == [2, 3, 5, None]
    lab.shots = 7
    assert lab.result.n_train == 21


@pytest.mark.parametrize("shots", [0, 1, 41, -5])
def test_shots_out_of_range_are_refused_and_the_old_stay(lab, shots):
    lab.shots = 5
    with pytest.raises(InputError, match=r"`shots` must lie in 2\.\.40 .* or be None for all; got"):
        lab.shots = shots
    assert lab.shots == lab.answer["shots"] == 5


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_nonsense_strengths_are_refused(lab, strength):
    before = lab.strength
    with pytest.raises(InputError, match="`strength` must be a finite number above 0"):
        lab.strength = strength
    assert lab.strength == before


def test_words_are_refused(lab):
    with pytest.raises(traitlets.TraitError):
        lab.shots = "many"


@pytest.mark.parametrize("state", [{"shots": 1}, {"strength": -1.0}, {"shots": "many"}])
def test_what_the_browser_sends_wrong_shows_in_the_widget_and_changes_nothing(lab, state):
    before = lab.answer
    lab.set_state(state)
    assert lab.error
    assert lab.answer == before
    lab.shots = 5
    assert lab.error == ""


def test_the_browser_moves_the_kernel(lab):
    lab.set_state({"shots": 5, "strength": lab.answer["strengths"][2], "follow_best": False})
    assert (lab.answer["shots"], lab.answer["strength"]) == (5, lab.answer["strengths"][2])
    assert not lab.follow_best


def test_answers_are_plain_json(lab):
    assert json.loads(json.dumps(lab.answer, allow_nan=False)) == lab.answer


@pytest.mark.parametrize(
    ("train", "test", "error", "message"),
    [
        (None, overlapping(), InputError, "`train` must come with `test`"),
        (
            {"blocks.6": overlapping()},
            None,
            InputError,
            "must be a FeatureSet, .* got dict of length 1. Take one layer",
        ),
        (torch.zeros(3, 2), None, InputError, "must be a FeatureSet, .* got Tensor of shape"),
        (overlapping(), overlapping(d=5), InputError, "`test` must have the width and classes of train"),
        (overlapping(), overlapping(classes="ab"), InputError, "`test` must have the width and classes of train"),
        (overlapping().subset(range(0, 120, 3)), None, DataError, "at least two classes, got 1"),
        (overlapping().subset([0, 3, 6, 1]), None, DataError, "at least two images"),
        (
            FeatureSet.from_arrays(torch.zeros(4, 2), torch.zeros(4)),
            None,
            InputError,
            "must have class labels, got regression targets",
        ),
    ],
)
def test_what_does_not_fit_is_said(train, test, error, message):
    with pytest.raises(error, match=message):
        HeadLab(train, test)


def test_tokens_are_refused_by_name():
    fs = overlapping()
    tokens = replace(fs, features=fs.features.reshape(120, 2, 15))
    with pytest.raises(FrozenkitError, match=r"must be \(n, d\)"):
        HeadLab(tokens)


# --- what a notebook keeps ---


def test_two_labs_in_one_state_look_alike_and_hold_no_address():
    def shown():
        lab = HeadLab(overlapping(), overlapping(90, seed=1), shots=5)
        data, _ = lab._repr_mimebundle_()
        gc.collect()
        return data["text/plain"], data["text/html"]

    first, second = shown(), shown()
    assert first == second
    assert "0x" not in "".join(first)
    assert not any("IPY_MODEL" in part for part in first)


def test_the_stored_summary_follows_the_state(lab):
    before = lab._repr_html_()
    lab.shots = 5
    assert lab._repr_html_() != before
    assert "<td" in before
    assert before.count("fk-measured") == 4  # strength, leave-one-out, train, test


def test_names_from_data_stay_text():
    hostile = "<img src=x onerror=alert(1)>"
    page = HeadLab(overlapping(layer=hostile))._repr_html_()
    assert "<img" not in page
    assert "&lt;img" in page


# --- other heads, and what is shown besides ---


def test_normalised_features_do_not_pass_for_the_original_ones(lab):
    lab.normalize = True
    probed = lab._fitted(None)[1]
    assert_close(probed.features.norm(dim=1), torch.ones(len(probed)))
    assert probed.fingerprint != lab._train.fingerprint


def test_each_head_is_the_probe_fitted_by_hand(lab):
    test = overlapping(90, seed=1)
    for head in ("prototype", "knn", "ridge", "softmax"):
        for normalised in (False, True):
            lab.head, lab.normalize = head, normalised
            lab.wait(60)
            train, held = (
                replace(part, features=torch.nn.functional.normalize(part.features, dim=1)) if normalised else part
                for part in (overlapping(), test)
            )
            probe = fit_probe(train, head=head)
            assert lab.answer["head"] == head
            assert (lab.answer["strengths"] == []) == (head != "ridge")
            assert lab.answer["test"]["accuracy"] == probe.score(held).accuracy
            assert lab.answer["loo"] == pytest.approx(probe.choice_score)


def test_a_head_that_takes_longer_is_fitted_beside_the_kernel_and_the_last_answer_stays(lab):
    before = lab.answer
    lab.head = "mlp"
    assert lab.answer == before
    assert lab.work["what"] == "fitting the mlp head"
    assert "head=ridge" in repr(lab)  # what is shown, not what is asked for
    lab.wait(60)
    assert (lab.answer["head"], lab.answer["chosen_on"]) == ("mlp", "val")
    assert lab.answer["test"]["accuracy"] == lab.result.score(overlapping(90, seed=1)).accuracy
    lab.also = "boundary"
    lab.wait(60)
    assert len(lab.answer["extra"]["cells"]) == lab.answer["extra"]["side"] ** 2


def test_what_was_asked_for_last_is_shown_although_a_slower_head_ends_later(lab):
    lab.head = "softmax"
    lab.head = "ridge"
    lab.wait(60)
    assert lab.answer["head"] == "ridge"
    assert (lab.error, lab.work) == ("", {})


def test_python_ends_while_a_lab_works():
    code = "from tests.toy import overlapping; from frozenkit import HeadLab; HeadLab(overlapping()).head = 'mlp'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
