"""Recipes: the printed lines, run as they are, fit the same probe again."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from frozenkit import FrozenClassifier, LinearHead, combine, extract, extract_layers, fit_probe, load_dataset
from tests.toy import blobs

DIGITS = load_dataset("digits", limit=60)
HOW = {"layer": "blocks.2", "precision": "exact", "progress": False}


def run(code):
    made = {}
    exec(code, made)
    return made


@pytest.fixture(scope="module")
def features(backbone):
    return extract(backbone, DIGITS, **HOW)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("ridge", {}),
        ("ridge", {"scale": "unit", "sample_weight": "balanced"}),
        ("softmax", {"strengths": [0.1], "seed": 3}),
        ("prototype", {"center": False}),
        ("knn", {"normalize": False}),
    ],
    ids=["ridge", "balanced", "softmax", "prototype", "knn"],
)
def test_the_printed_lines_fit_the_same_probe(features, head, options):
    probe = fit_probe(features, head=head, **options)
    code = probe.recipe()
    assert "TO FILL IN" not in code
    again = run(code)["probe"]
    assert_close(again.predict_proba(features), probe.predict_proba(features), rtol=1e-4, atol=1e-5)


def test_of_a_classifier(backbone, features):
    model = FrozenClassifier.from_probe(backbone, fit_probe(features))
    again = run(model.recipe())["model"]
    mine, its = (each.predict(DIGITS[:9], progress=False) for each in (model, again))
    assert_close(its.probabilities, mine.probabilities, rtol=1e-4, atol=1e-5)
    assert len(model.recipe().splitlines()) == 8


def test_of_several_layers_and_with_val(backbone, features):
    sets = extract_layers(backbone, DIGITS, layers=["blocks.1", "blocks.2"], precision="exact", progress=False)
    both = combine(sets)
    val = replace(both[:20], ids=[f"v{i}" for i in range(20)], features=both.features[:20] + 0.1)
    probe = fit_probe(both, val=val)
    assert_close(run(probe.recipe())["probe"].predict_proba(both), probe.predict_proba(both), rtol=1e-4, atol=1e-5)


def test_which_weights_were_asked_for_is_in_it(features):
    probe = fit_probe(features)
    other = replace(probe, origin=replace(probe.origin, backbone="resnet50 (IMAGENET1K_V1)"))
    assert "backbone = load_backbone('resnet50', weights='IMAGENET1K_V1', image_size=64)" in other.recipe()


def test_what_is_not_known_is_marked(features):
    parts = {
        "the 200 × 20 features of 'late'": fit_probe(blobs(200)),
        "the 30 of these 60 images that were fitted on": fit_probe(features[:30], strengths=[1.0]),
        "the 60 images of 'digits', with labels": fit_probe(features.relabel(features.labels % 2, ["even", "odd"])),
        "a new LinearHead, built as that one was": fit_probe(features, head=LinearHead(40, 10)),
        "the sample_weight that was given": fit_probe(features, sample_weight=torch.ones(60), strengths=[1.0]),
    }
    for said, probe in parts.items():
        marked = [line for line in probe.recipe().splitlines() if "# TO FILL IN: " in line and "..." in line]
        assert any(said in line for line in marked), said
        compile(probe.recipe(), "recipe", "exec")
