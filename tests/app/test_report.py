"""The report: small folders are judged by all their images, equal ones on one side, and names choose one rule."""

import shutil
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import FeatureCache, FeatureSet, fit_probe, from_torch, load_dataset, score, split
from frozenkit.app.cross_validation import cross_validated, cross_validated_score, stratified_parts, unpaired_lead
from frozenkit.app.report import ENOUGH_TEST, probe_report
from frozenkit.app.report_page import to_html
from frozenkit.app.target import load_images, load_target
from frozenkit.errors import FrozenkitWarning, UnknownNameError
from frozenkit.probes.intervals import wilson_interval
from tests.toy import clouds

LAYERS = ["blocks.2", "blocks.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """120 emoji, a folder per class."""
    root = tmp_path_factory.mktemp("emoji") / "my emoji"
    data = load_dataset("emoji-google", limit=120)
    for i in range(len(data)):
        image, label = data[i]
        place = root / data.classes[label].replace(" & ", " and ")
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def report(folder, backbone):
    return probe_report(*load_images(str(folder), limit=None, seed=0, skip_bad=False), backbone, layers=LAYERS)


noise = partial(clouds, d=12, apart=0.0, classes=("a", "b"), layer="l")


def test_a_small_folder_is_judged_by_all_its_images(report):
    assert (len(report.train) + len(report.test), report.score.n, report.folds) == (120, 120, 10)
    assert {s.n for s in [*report.controls.values(), *report.layer_scores.values()]} == {120}
    assert list(report.controls) == ["majority", "shuffled labels", "raw pixels", "random weights"]
    assert report.controls["majority"].accuracy == report.score.chance
    assert report.held_out.n == len(report.test)
    assert len(set(report.ids)) == len(report.labels) == len(report.probabilities) == 120
    assert report.score.low < report.score.accuracy < report.score.high
    wrong = report.wrong()
    assert len(wrong) == 120 - report.score.n_correct
    assert all(report.image(i)[1] == report.labels[i] for i in (0, 119))
    assert "Cross-validated over all 120 images" in report.method
    assert f"A test part would hold {len(report.test)} images" in report.method


def test_a_part_of_a_folder_a_data_set_and_a_large_test_stay_held_out(folder, backbone, monkeypatch):
    train, test = load_images(str(folder), limit=None, seed=0, skip_bad=False)
    part = probe_report(train.subset(range(0, 84, 2)), test, backbone, layers=LAYERS[1:])
    assert (part.folds, part.score.n, part.held_out) == (0, len(test), None)
    assert "reported on" in part.method
    monkeypatch.setattr("frozenkit.app.report.ENOUGH_TEST", len(test))
    assert probe_report(train, test, backbone, layers=LAYERS[1:]).folds == 0
    monkeypatch.setattr("frozenkit.app.report.ENOUGH_TEST", len(test) + 1)
    assert probe_report(train, test, backbone, layers=LAYERS[1:]).folds == 10
    assert probe_report(train, test, backbone, layers=LAYERS[1:], cross_validate=False).folds == 0


def test_from_the_cache_is_what_was_not_computed(backbone, tmp_path):
    train, test = (load_dataset("digits", split=part, limit=40) for part in ("train", "test"))
    cache = FeatureCache(tmp_path)
    probed = partial(probe_report, train, test, backbone, layers=LAYERS[:1], cache=cache)
    assert [probed().from_cache for _ in range(2)] == [False, True]
    for entry in tmp_path.glob("*.safetensors"):
        entry.write_bytes(entry.read_bytes()[:-8] + b"damaged!")
    with pytest.warns(FrozenkitWarning, match="Extracting it again"):
        assert not probed().from_cache
    assert probed().from_cache


def test_enough_images_hold_every_interval_within_five_points():
    low, high = wilson_interval(np.arange(ENOUGH_TEST + 1), ENOUGH_TEST)
    assert float((high - low).max()) <= 0.1
    low, high = wilson_interval(np.arange(ENOUGH_TEST - 4), ENOUGH_TEST - 5)
    assert float((high - low).max()) > 0.1


def test_no_image_is_predicted_by_what_has_seen_it():
    """On noise, choosing among many layers by leave-one-out flatters; cross-validation around the choice does not."""
    sets = {f"layer {i}": replace(noise(60, seed=i), layer=f"layer {i}") for i in range(25)}
    labels = next(iter(sets.values())).labels
    folds = split(labels, fractions=[1] * 10, seed=0)
    whole, by_layer = cross_validated(sets, folds)
    assert set(by_layer) == set(sets)
    torch.testing.assert_close(whole.sum(1), torch.ones(60))
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        best = max(fit_probe(part).choice_score for part in sets.values())
    assert best > 0.6
    assert score(whole.argmax(1), labels, n_classes=2).accuracy < 0.6
    # By hand, for one fold: the layer and the strength that the other nine choose.
    rest = torch.cat(folds[1:]).sort().values
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        probes = {name: fit_probe(part.subset(rest)) for name, part in sets.items()}
    chosen = max(probes, key=lambda name: probes[name].choice_score)
    expected = probes[chosen].predict_proba(sets[chosen].subset(folds[0]))
    torch.testing.assert_close(whole[folds[0]], expected, rtol=0, atol=0)


def test_the_interval_of_a_cross_validation_covers():
    """What it must hold is the accuracy of the probe that is fitted on all of them; that for n images is too narrow."""
    wide = narrow = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(60) % 3
        centres = torch.eye(3, 8) * 1.6
        x = centres[labels] + torch.randn(60, 8, generator=generator)
        train = FeatureSet.from_arrays(x, labels)
        many = torch.arange(2_000) % 3
        with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
            probe = fit_probe(train)
        unseen = centres[many] + torch.randn(2_000, 8, generator=generator)
        truth = float((probe.predict(unseen) == many).double().mean())
        whole, _ = cross_validated({"l": train}, split(labels, fractions=[1] * 10, seed=seed))
        found = cross_validated_score(whole.argmax(1), labels, train.classes)
        low, high = wilson_interval(found.n_correct, found.n)
        wide += found.low <= truth <= found.high
        narrow += float(low) <= truth <= float(high)
    assert wide >= 93
    assert narrow < wide


def test_equal_images_stay_on_one_side(folder, backbone, tmp_path):
    root = tmp_path / "copies"
    shutil.copytree(folder, root)
    files = sorted(root.glob("*/*.png"))
    for file in files[::3]:
        file.with_name(f"{file.stem} again.png").write_bytes(file.read_bytes())
    with pytest.warns(FrozenkitWarning, match="80 images are equal to others, pixel by pixel: .* = .*; …"):
        train, test, copies, *_ = load_target(str(root), limit=None, seed=0, skip_bad=False)
    assert len(copies) == 40
    assert all(len({name in train.ids for name in group}) == 1 for group in copies)
    counts = [np.bincount(part.labels, minlength=5) / len(part) for part in (train, test)]
    np.testing.assert_allclose(*counts, rtol=0, atol=0.06)  # still stratified
    report = probe_report(train, test, backbone, layers=LAYERS[1:])  # looks for them itself
    assert {frozenset(group) for group in report.copies} == {frozenset(group) for group in copies}
    page = to_html(report)
    assert "80 images in 40 groups, equal pixel by pixel" in " ".join(page.split())
    assert all(name.replace("&", "&amp;") in page for group in copies for name in group)


def test_copies_in_every_part_would_flatter():
    """A probe that remembers its images gets none right on noise, unless a copy of each was left on the other side."""
    x = noise(80, d=200)
    twice = FeatureSet.from_arrays(x.features.repeat(2, 1), x.labels.repeat(2), classes=x.classes)
    groups = [(i, i + 80) for i in range(80)]
    scores = {}
    for name, copies in (("apart", ()), ("together", groups)):
        folds = stratified_parts(twice.labels, copies, fractions=[1] * 10, seed=0)
        whole, _ = cross_validated({"l": twice}, folds)
        scores[name] = score(whole.argmax(1), twice.labels, n_classes=2).accuracy
        if copies:
            assert all(set(fold.tolist()) == {(i + 80) % 160 for i in fold.tolist()} for fold in folds)
    assert scores["apart"] > 0.9
    assert scores["together"] < 0.65


def test_a_class_that_is_one_image_over_and_over_is_still_learnt():
    labels = torch.tensor([0] * 10 + [1] * 5)
    parts = stratified_parts(labels, [tuple(range(10, 15))], fractions=(0.7, 0.3), seed=0)
    assert all(len(labels[part].unique()) == 2 for part in parts)


@pytest.mark.parametrize("each", [2, 3])
def test_the_smallest_folders(backbone, folder, tmp_path, each):
    for place in sorted(folder.iterdir())[:2]:
        (tmp_path / place.name).mkdir()
        for file in sorted(place.iterdir())[:each]:
            (tmp_path / place.name / file.name).write_bytes(file.read_bytes())
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        found = probe_report(
            *load_images(str(tmp_path), limit=None, seed=0, skip_bad=False), backbone, layers=LAYERS[1:]
        )
    assert found.score.n == 2 * each
    assert found.advice.choice == "look at the data first"
    assert "<html" in to_html(found)


def test_advice_never_contradicts_the_verdict(report):
    apart = replace(report, leads=dict.fromkeys(report.controls, (0.3, 0.1, 0.5)))
    assert "beat every control" in apart.verdict
    assert apart.advice.choice == "freeze"
    near = replace(report, leads=apart.leads | {"random weights": (0.08, -0.02, 0.18)})
    assert near.rival == "random weights"
    assert "ahead of every control, but not surely of random weights at " in near.verdict
    assert "(by +8.0 points, −2.0 to +18.0): more images would tell." in near.verdict
    assert near.advice.choice == "look at the data first"
    assert near.advice.next_step.startswith("Frozen features are not surely ahead of random weights")
    found = {reason.criterion: reason.finding for reason in near.advice.reasons}
    assert found["can these data tell?"] == "no"
    assert found["beats its controls?"] == "not surely: random weights by +8.0 points, −2.0 to +18.0"
    assert "<b>Freeze.</b>" not in to_html(near)
    enough = replace(near, target_accuracy=0.2).advice
    assert enough.choice == "freeze"
    assert "But random weights may do as well without pretraining" in enough.next_step
    beaten = replace(
        near,
        controls=near.controls | {"raw pixels": replace(near.score, accuracy=0.99)},
        leads=near.leads | {"raw pixels": (-0.3, -0.4, -0.2)},
    )
    assert "do not beat raw pixels at 99.0%" in beaten.verdict
    assert beaten.advice.choice == "look at the data first"


def test_leads_are_paired_and_of_the_right_sign(report):
    for name, (difference, low, high) in report.leads.items():
        assert difference == pytest.approx(report.score.accuracy - report.controls[name].accuracy, abs=1e-12)
        assert low < difference < high


def test_an_unpaired_lead_is_that_of_newcombe():
    """His example (1998, II): 56/70 against 48/80 gives 0.2000 with 0.0524 to 0.3339 (method 10)."""

    def of(right, n):
        return score([0] * right + [1] * (n - right), [0] * n, n_classes=2)

    np.testing.assert_allclose(unpaired_lead(of(56, 70), of(48, 80)), (0.2, 0.0524, 0.3339), rtol=0, atol=5e-5)


def test_the_page_names_the_files_that_are_wrong(report):
    page = to_html(report, command="frozenkit probe 'my emoji'")
    wrong = report.wrong()
    for i in wrong[:12]:
        assert f"<code>{report.ids[i]}</code>" in page
    assert f"The first 12 of {len(wrong)}." in page
    assert "cross-validated" in page
    assert 'class="confusion"' in page
    counts = report.score.confusion
    assert page.count("class=right") == len(counts)
    assert "frozenkit probe &#x27;my emoji&#x27;" in page


def test_a_name_goes_before_a_folder_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.warns(FrozenkitWarning, match="digits is taken for the data set .* that one is ./digits"):
        train, _ = load_images("digits", limit=20, seed=0, skip_bad=False)
    assert train.name == "digits"
    with pytest.raises(UnknownNameError, match="no such folder is here"):
        load_images("./digit", limit=None, seed=0, skip_bad=False)


def test_findings_are_of_the_images_that_they_name(report):
    look = report.inspection
    assert len(look.suspects) > 0
    row = int(look.suspects.rows[0])
    name, _, label = report.any_image(row)
    assert (name, label) == (report.ids[row], int(look.suspects.labels[0]))
    classes = report.train.classes
    first = f"first: {name} is labelled {classes[label]}, looks like {classes[int(look.suspects.suggested[0])]}."
    assert any(first in finding for finding in report.findings)
    a, b, count = report.confused_pairs()[0]
    assert int(report.score.confusion[a, b]) == count == int(report.score.confusion.clone().fill_diagonal_(0).max())
    assert sorted({run.n for run in look.curve.runs}) == [13, 27, 54, 108]
    assert [forecast.n for forecast in look.outlook.forecasts] == [240, 480]
    right, wrong = report.right_and_wrong(0)
    predicted = report.probabilities.argmax(1)
    assert all(report.labels[i] == 0 == predicted[i] for i in right)
    assert all(report.labels[i] == 0 != predicted[i] for i in wrong)
    sure = report.probabilities.max(1).values[(report.labels == 0) & (predicted == 0)]
    assert [report.probabilities.max(1).values[i] for i in right[:1]] == [sure.max()]


def test_the_page_shows_what_was_found(report):
    page = " ".join(to_html(report, next_steps=["frozenkit predict 'a b' <x>"]).split())
    assert "<pre>frozenkit predict &#39;a b&#39; &lt;x&gt;</pre>" in page
    for heading in ("Right and wrong", "Labels to look at again", "What more labels would buy", "What next"):
        assert f"<h2>{heading}</h2>" in page
    assert '<svg class="curve"' in page
    assert page.count('<div class="wall">') == 5
    assert "probe = fit_probe(train, head=&#39;ridge&#39;" in page


def test_near_copies_across_the_split_are_named_and_left_out(folder, backbone, tmp_path):
    root = tmp_path / "near"
    shutil.copytree(folder, root)
    places = sorted(root.iterdir())
    for file in sorted(places[0].glob("*.png"))[:6]:
        with Image.open(file) as image:
            image.convert("RGB").save(places[1] / f"{file.stem}.jpg", quality=95)
    report = probe_report(*load_images(str(root), limit=None, seed=0, skip_bad=False), backbone, layers=LAYERS[1:])
    pairs = report.near_pairs()
    named = {tuple(sorted(report.any_image(row)[0] for row in (p.first, p.second))) for p in pairs if not p.same_label}
    copies = [pair for pair in named if pair[0].split("/")[1].split(".")[0] == pair[1].split("/")[1].split(".")[0]]
    assert len(copies) >= 3
    assert [pair.across for pair in pairs] == sorted((pair.across for pair in pairs), reverse=True)
    across = {row for pair in pairs if pair.across for row in (pair.first, pair.second)}
    assert across
    assert report.inspection.without.n == report.score.n - len(across)
    assert any("with different labels; without those on two sides" in finding for finding in report.findings)
    assert "labels differ" in to_html(report)


def test_held_out_images_are_looked_at_with_those_learnt_from(backbone):
    """Ten test images are in train as well: they are found, and the score without them is of the others."""
    data = load_dataset("emoji-google", limit=160)
    data = data.subset(torch.randperm(160, generator=torch.Generator().manual_seed(0)))
    train, test = data.subset(range(100)), data.subset([*range(10), *range(100, 160)])
    test = from_torch([test[i] for i in range(70)], classes=data.classes)
    report = probe_report(train, test, backbone, layers=LAYERS[1:])
    same = {(p.first, p.second) for p in report.near_pairs() if p.similarity > 0.9999}
    assert {(i, 100 + i) for i in range(10)} <= same
    judged = {p.second for p in report.near_pairs() if p.across}
    assert report.inspection.without.n == 70 - len(judged)
    assert report.inspection.suspects.n == 170
    assert report.inspection.curve.runs[-1].score is report.score


def test_two_classes_and_a_hundred_have_a_page(report, backbone):
    names = [f"class {'x' * 60} {k}" for k in range(100)]
    random = np.random.RandomState(0)
    images = [(Image.fromarray(random.randint(0, 255, (16, 16, 3), np.uint8)), k % 100) for k in range(300)]
    many = from_torch(images, classes=names)
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        found = probe_report(many[:200], many[200:], backbone, layers=LAYERS[:1])
    page = to_html(found)
    assert 'class="confusion"' not in page
    assert "The commonest confusions" in page
    assert "These are the 12 classes that were hardest." in " ".join(page.split())
