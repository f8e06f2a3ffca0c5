"""TeachLab without a browser: send a message, wait, read a result."""

import io

import pytest
import torch
from PIL import Image

from frozenkit import (
    FeatureSet,
    LayerLab,
    TeachLab,
    fit_probe,
    save_features,
)
from frozenkit.errors import DataError, FrozenkitError, InputError
from tests.toy import coloured_squares


@pytest.fixture
def teachlab(backbone):
    lab = TeachLab(["red", "blue"], backbone=backbone)
    yield lab
    lab.close()


def encoded(colour, size=(40, 30), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def test_teachlab_learns_from_what_the_browser_sends(teachlab):
    assert teachlab.result is None
    assert "Two classes" in teachlab.answer["note"]
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red")])
    teachlab._on_message(teachlab, {"add": 1}, [encoded("blue", kind="JPEG")])
    assert getattr(teachlab.result, "kind", None) == "prototype"
    for data in (encoded("#dd2222"), encoded("#ee0000")):
        teachlab._on_message(teachlab, {"add": 0}, [data])
    teachlab._on_message(teachlab, {"add": 1}, [encoded("#2222dd"), encoded("#0000ee")])
    assert getattr(teachlab.result, "kind", None) == "ridge"
    assert teachlab.answer["loo"]["n"] == 6
    teachlab._on_message(teachlab, {"look": True}, [encoded("#cc1111")])
    assert teachlab.live["shares"][0] > teachlab.live["shares"][1]
    assert teachlab.answer["labels"][teachlab.live["near"][0]] == 0


def test_teachlab_says_what_it_cannot_use(teachlab):
    teachlab._on_message(teachlab, {"add": 0}, [b"no image", encoded("red")])
    assert "image 1: it could not be read" in teachlab.error
    assert teachlab.answer["counts"] == [1, 0]
    for odd in ({"add": 7}, {"add": "red"}, {"remove": 5}, {"sample": -1}, {"load": "/nowhere.safetensors"}):
        teachlab.error = ""
        teachlab._on_message(teachlab, odd, [encoded("red")])
        assert teachlab.error
    teachlab._on_message(teachlab, "nonsense", None)
    with pytest.raises(InputError, match="one of red, blue"):
        teachlab.add("green", [])
    with pytest.raises(InputError, match="different names"):
        teachlab.classes = ["red", "red"]
    with pytest.raises(InputError, match="different names"):
        teachlab.classes = [f"c{i}" for i in range(200)]


def test_teachlab_takes_a_large_photograph_and_refuses_a_bomb(teachlab, monkeypatch):
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red", (8000, 6200), "JPEG")])
    assert teachlab.error == ""
    assert teachlab.answer["counts"] == [1, 0]
    monkeypatch.setattr("frozenkit.images.dataset.MAX_PIXELS", 1000)
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red", (100, 100))])
    assert "it has 100×100 pixels, more than 1,000" in teachlab.error


def test_teachlab_forgets_renames_and_keeps(teachlab, tmp_path):
    for k in (0, 1):
        teachlab._on_message(teachlab, {"sample": k}, [])
    assert teachlab.answer["counts"] == [10, 10]
    teachlab.remove(0)
    teachlab.classes = ["animals", "food", "more"]
    with pytest.raises(InputError, match="has images"):
        teachlab.classes = ["animals"]
    path = teachlab.save(tmp_path / "taught")
    assert path.suffix == ".safetensors"
    before = teachlab.features
    other = TeachLab(["x", "y"], backbone=teachlab._backbone)
    other.load(path)
    assert other.classes == ["animals", "food", "more"]
    torch.testing.assert_close(other.features.features, before.features, rtol=0, atol=0)
    torch.testing.assert_close(other.result.predict(before), teachlab.result.predict(before), rtol=0, atol=0)
    other.close()


def test_teachlab_adds_the_suffix_to_a_name_and_cuts_nothing_off(teachlab, tmp_path):
    """``notes.txt`` used to overwrite notes.safetensors, and ``v1.2`` became v1.safetensors."""
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red")])
    names = ("a", "b", "notes.txt", "v1.2")
    for name in (*names, "b.safetensors"):
        written = tmp_path / f"{name.removesuffix('.safetensors')}.safetensors"
        assert teachlab.save(tmp_path / name) == written
        teachlab.load(tmp_path / name)
    assert sorted(p.name for p in tmp_path.glob("*.*")) == [f"{name}.safetensors" for name in names]


@pytest.mark.parametrize("what", ["save", "load"])
@pytest.mark.parametrize("name", ["", " ", "/", ".", "..", "here/", "~nobody-by-that-name/x"])
def test_teachlab_says_when_a_name_names_no_file(teachlab, monkeypatch, tmp_path, what, name):
    monkeypatch.chdir(tmp_path)
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red")])
    teachlab._on_message(teachlab, {what: name}, [])
    assert "`path` must name a file, got" in teachlab.error
    assert "Try 'taught.safetensors'." in teachlab.error
    with pytest.raises(InputError, match="must name a file"):
        getattr(teachlab, what)(name)
    assert list(tmp_path.iterdir()) == []


def test_teachlab_shows_what_nobody_foresaw(teachlab, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(teachlab, "save", broken)
    with pytest.raises(ZeroDivisionError):
        teachlab._on_message(teachlab, {"save": "x"}, [])
    assert teachlab.error == "ZeroDivisionError: ours"


def test_teachlab_clears_an_old_error_when_something_succeeds(teachlab, tmp_path):
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red")])
    teachlab._on_message(teachlab, {"save": ""}, [])
    assert teachlab.error
    teachlab._on_message(teachlab, {"look": True}, [encoded("red")])
    assert teachlab.error  # the camera asks all the time
    teachlab._on_message(teachlab, {"save": str(tmp_path / "x")}, [])
    assert (teachlab.error, teachlab.said) == ("", f"saved 1 images' features to {tmp_path / 'x.safetensors'}")


def _no_probe(teachlab):
    """Fits what was taught, and nothing else."""
    known = len(teachlab.features)

    def fit(features, **more):
        if len(features) > known + 1:
            raise InputError("`x` must be something else.")
        return fit_probe(features, **more)

    return fit


def test_teachlab_takes_all_images_or_none(teachlab):
    with pytest.raises(InputError, match="`images` must be PIL images, got int. Open files with open_image"):
        teachlab.add("red", [Image.new("RGB", (9, 9)), 5])
    assert (teachlab._features, teachlab._labels, teachlab._thumbnails) == ([], [], [])


def test_teachlab_says_when_a_name_is_too_long(teachlab):
    for act in (teachlab.save, teachlab.load):
        with pytest.raises(InputError, match="`path` must name a file, got 'x"):
            act("x" * 300)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("many classes", "1 to 20 different names"),
        ("twins", "1 to 20 different names"),
        ("a nameless class", "1 to 20 different names"),
        ("regression", "1 to 20 different names"),
        ("NaN", "not finite"),
        ("many rows", "at most 2,000 images"),
        ("another layer", "this file holds elsewhere"),
        ("another width", "with 7 features"),
        ("tokens", "token by token"),
        ("no probe", "`x` must be"),
    ],
)
def test_teachlab_keeps_what_was_taught_when_it_refuses_a_file(teachlab, tmp_path, monkeypatch, fault, message):
    for k, colour in enumerate(("red", "blue")):
        teachlab._on_message(teachlab, {"add": k}, [encoded(colour)])
    before, rows = teachlab.features, 2_001 if fault == "many rows" else 50
    x, labels = torch.zeros(rows, 7 if fault == "another width" else before.n_features), torch.arange(rows) % 2
    classes, layer = ("a", "b"), "elsewhere" if fault == "another layer" else before.layer
    if fault == "many classes":
        classes, labels = tuple(f"c{i}" for i in range(25)), torch.arange(rows) % 25
    if fault == "twins":
        classes = ("a", "a ")
    if fault == "a nameless class":
        classes = ("a", " ")
    if fault == "regression":
        classes, labels = (), torch.rand(rows)
    if fault == "NaN":
        x[3, 3] = torch.nan
    if fault == "tokens":
        x = x[:, None].repeat(1, 2, 1)
    if fault == "no probe":
        monkeypatch.setattr("frozenkit.widgets.teachlab.fit_probe", _no_probe(teachlab))
    save_features(FeatureSet.from_arrays(x, labels, classes=classes or None, layer=layer), tmp_path / "odd.safetensors")
    with pytest.raises(FrozenkitError, match=message):
        teachlab.load(tmp_path / "odd.safetensors")
    teachlab._on_message(teachlab, {"load": str(tmp_path / "odd.safetensors")}, [])
    assert message in teachlab.error
    torch.testing.assert_close(teachlab.features.features, before.features, rtol=0, atol=0)
    assert teachlab.classes == ["red", "blue"]
    assert teachlab.answer["counts"] == [1, 1]
    teachlab._on_message(teachlab, {"add": 0}, [encoded("red")])
    assert (teachlab.error, teachlab.answer["counts"]) == ("", [2, 1])


def test_one_example_of_each_class_is_said_or_used(backbone, cache):
    with pytest.raises(DataError, match="at least two images"):
        LayerLab(coloured_squares(2, 0), coloured_squares(2, 1), backbone=backbone, cache=cache)
    lab = TeachLab(["red", "blue"], backbone=backbone)
    for k, colour in enumerate(("red", "blue")):
        lab._on_message(lab, {"add": k}, [encoded(colour)])
    assert lab.result.kind == "prototype"
    assert "all it can do is compare" in lab.answer["note"]
