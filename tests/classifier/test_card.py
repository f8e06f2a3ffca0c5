"""The card beside a classifier: what it says, and that names from data are text in it."""

from dataclasses import replace

import pytest
import torch

from frozenkit import FrozenClassifier, extract, fit_probe
from frozenkit.errors import FrozenkitWarning, InputError
from tests.toy import coloured_squares

TRAIN, TEST = (coloured_squares(n, seed) for n, seed in ((40, 0), (20, 1)))
HOW = {"layer": "blocks.2", "precision": "exact", "progress": False}


@pytest.fixture(scope="module")
def features(backbone):
    return extract(backbone, TRAIN, **HOW)


def card(model, folder, **options):
    model.save(folder / "model.safetensors", **options)
    return (folder / "model.md").read_text()


def test_it_says_what_and_how_good(backbone, features, tmp_path):
    probe = fit_probe(features)
    score = probe.score(extract(backbone, TEST, **HOW))
    text = card(
        FrozenClassifier.from_probe(backbone, probe),
        tmp_path,
        scores=score,
        controls={"random weights": score, "chance": 0.5},
        notes="For squares.",
    )
    for said in (
        "It tells: red, blue",
        "4.7 M parameters, images of 64 px",
        "Fitted on 40 images of",
        "For squares",
    ):
        assert said in text
    assert f"- test: {score.accuracy:.3f} \\[{score.low:.3f}, {score.high:.3f}\\] on 20 images" in text
    assert "- control, random weights: " in text
    assert "- control, chance: 0.500" in text
    assert "load_classifier('model.safetensors')" in text
    assert "has been changed" not in text
    assert "In brackets: intervals" in text
    assert "It knows no 'none of these': every image gets one of its classes." in text
    assert probe.recipe() in text


def test_names_from_data_are_text_in_it(backbone, features, tmp_path):
    names = ["<script>alert(1)</script>", "# [a](http://x)\n```\n<!-- |"]
    text = card(FrozenClassifier.from_probe(backbone, fit_probe(features.relabel(features.labels, names))), tmp_path)
    assert "<script>" not in text
    assert "\\# \\[a\\]\\(http\\://x\\)\\\\n\\`\\`\\`" in text
    assert text.count("```") == 4


def test_it_owns_up_to_what_is_missing_or_changed(backbone, features, tmp_path):
    with pytest.warns(FrozenkitWarning, match="no training image"):
        probe = fit_probe(features.relabel(features.labels, ["red", "blue", "green"]), strengths=[1.0])
    model = FrozenClassifier.from_probe(backbone, probe)
    text = card(model, tmp_path)
    assert "Never predicted, for want of a training image: green" in text
    assert "No score on images that took no part in fitting was given" in text
    assert "In brackets" not in text
    with torch.no_grad():
        next(model.head.parameters()).mul_(2)
    assert "The head has been changed since it was fitted" in card(model, tmp_path)
    assert "How it was made" not in card(model, tmp_path)
    assert model.recipe().endswith("# TO FILL IN: the head was changed since")


def test_it_says_what_several_labels_and_values_are(backbone, features, tmp_path):
    one = features.labels == 0
    tags = replace(features, labels=torch.stack([one, ~one, one], 1), classes=("red", "blue", "warm"))
    text = card(FrozenClassifier.from_probe(backbone, fit_probe(tags, strengths=[1.0], head="logistic")), tmp_path)
    assert "- It tells, each by itself: red, blue, warm" in text
    assert "Each label is decided by itself: an image may get several, or none." in text
    assert "every image gets one" not in text
    values = replace(features, labels=one.float(), classes=())
    text = card(FrozenClassifier.from_probe(backbone, fit_probe(values, strengths=[1.0])), tmp_path)
    assert "A regression on frozen features: a pretrained network" in text
    assert "- It tells: numbers" in text
    for wrong in ("classifier on", "robabilities", "none of these", "by itself"):
        assert wrong not in text


def test_anothers_file_in_its_place_stays(backbone, features, tmp_path):
    model = FrozenClassifier.from_probe(backbone, fit_probe(features, strengths=[1.0]))
    (tmp_path / "model.md").write_text("my notes")
    with pytest.raises(InputError, match=r"model.md is in the way of the card"):
        card(model, tmp_path)
    assert (tmp_path / "model.md").read_text() == "my notes"
    assert [file.name for file in tmp_path.iterdir()] == ["model.md"]
    for wrong in ([0.5], None, torch.zeros(2), float):
        with pytest.raises(InputError, match="`scores` must be a Score, or a mapping"):
            model.save(tmp_path / "other.safetensors", scores={"test": wrong})
