"""Labs without a browser: set a trait or send a message, wait, read a result."""

import io

import pytest
import torch
import traitlets
from PIL import Image

from frozenkit import (
    CacheLab,
    FeatureCache,
    FeatureSet,
    LayerLab,
    ShiftLab,
    TeachLab,
    assert_frozen,
    fit_probe,
    from_torch,
    load_backbone,
    save_features,
)
from frozenkit.errors import DataError, FrozenkitError, InputError
from frozenkit.widgets.base import Lab
from frozenkit.widgets.pictures import sheet

LAYERS = ["blocks.1", "blocks.4", "blocks.6"]


def pictures(n, seed, colours=("red", "blue")):
    """Squares of two colours, with noise: easy, and quick."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        base = torch.tensor(Image.new("RGB", (1, 1), colours[i % len(colours)]).getpixel((0, 0)))
        noisy = (base + torch.randint(-60, 60, (24, 24, 3), generator=generator)).clamp(0, 255).to(torch.uint8)
        made.append((Image.fromarray(noisy.numpy()), i % len(colours)))
    return from_torch(made, classes=tuple(colours))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(image_size=64, device="cpu")


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


@pytest.fixture
def layerlab(backbone, cache):
    lab = LayerLab(pictures(24, 0), pictures(16, 1), backbone=backbone, layers=LAYERS, cache=cache)
    yield lab
    lab.close()


def test_layerlab_chooses_by_leave_one_out_and_keeps_test_hidden(layerlab):
    scores = {c["name"]: c["value"] for c in layerlab.answer["curve"]}
    assert list(scores) == LAYERS
    assert layerlab.answer["best"] == max(LAYERS, key=scores.get)
    assert layerlab.answer["test"] is None
    layerlab.revealed = True
    train, test = (part[layerlab.best] for part in layerlab._sets["mean"])
    score = fit_probe(train).score(test)
    assert layerlab.answer["test"]["value"] == score.accuracy


def test_layerlab_puts_layers_side_by_side_in_their_order(layerlab):
    layerlab.chosen = ["blocks.6", "blocks.1"]
    assert layerlab.chosen == ["blocks.1", "blocks.6"]
    assert layerlab.answer["width"] == 24 + 320
    assert layerlab.result.n_features == 24 + 320


@pytest.mark.parametrize("view", ["PCA", "LDA"])
def test_layerlab_maps_every_shown_picture(layerlab, view):
    layerlab.view = view
    assert len(layerlab.answer["points"]) == len(layerlab.answer["labels"]) == 16
    points = torch.tensor(layerlab.answer["points"])
    assert (points >= 0).all()  # inside the map's frame
    assert (points <= 1).all()


@pytest.mark.parametrize("each", [2, 3])
def test_layerlab_maps_very_few_pictures_per_class(backbone, cache, each):
    colours = ("red", "blue", "lime")
    lab = LayerLab(
        pictures(3 * each, 0, colours), pictures(9, 1, colours), backbone=backbone, layers=LAYERS, cache=cache
    )
    assert torch.tensor(lab.answer["points"]).shape == (9, 2)
    lab.close()


def test_layerlab_pools_and_fits_beside_the_kernel(layerlab):
    layerlab.pooling = "max"
    layerlab.wait(60)
    assert "max" in layerlab._sets
    layerlab.shots = 5
    layerlab.wait(60)
    assert layerlab.answer["n_train"] == 10
    assert layerlab.work == {}
    assert layerlab.error == ""


def test_layerlab_refuses_what_does_not_fit(layerlab, backbone):
    with pytest.raises(InputError, match="at least one of blocks"):
        layerlab.chosen = []
    with pytest.raises(InputError, match=r"2\.\.12"):
        layerlab.shots = 99
    layerlab.set_state({"chosen": ["nowhere"]})
    assert "at least one of" in layerlab.error
    with pytest.raises(InputError, match="must come with `test`"):
        LayerLab(test=pictures(4, 0), backbone=backbone)
    with pytest.raises(InputError, match="classes of train"):
        LayerLab(pictures(8, 0), pictures(8, 0, ("red", "green")), backbone=backbone)
    with pytest.raises(InputError, match="data set of pictures"):
        LayerLab([1], [2], backbone=backbone)
    with pytest.raises(DataError, match="two classes"):
        LayerLab(pictures(8, 0, ("red",)), pictures(8, 0, ("red",)), backbone=backbone)


def test_shiftlab_is_the_bound_of_its_shift(backbone, cache):
    lab = ShiftLab(pictures(40, 0), pictures(40, 1), backbone=backbone, cache=cache)
    assert lab.result.terms["half the divergence"] == 0.0
    assert lab.before == lab.after
    lab.severity = 5
    lab.kind = "invert"
    lab.wait(60)
    assert lab.answer["severity"] == 5
    shown = {bound["severity"]: bound for bound in lab.answer["bounds"]}
    assert set(shown) == {0, 5}
    assert shown[5]["sum"] == pytest.approx(sum(shown[5]["terms"].values()))
    assert lab.before != lab.after
    lab.severity = 0
    assert lab.answer["severity"] == 0
    with pytest.raises(InputError, match="has not been looked at"):
        lab.bound_at(3)
    with pytest.raises(InputError, match="from 0 to 5"):
        lab.severity = 6
    with pytest.raises(traitlets.TraitError):
        lab.kind = "melt"
    lab.close()


def test_cachelab_races_for_real_and_stops(backbone):
    lab = CacheLab(pictures(32, 0), backbone, n=32, epochs=1)
    assert "race=not run yet" in repr(lab)
    with assert_frozen(backbone):
        lab._told(lab, {"start": True}, [])
        lab.wait(120)
    assert lab.error == ""
    assert lab.answer["ratio"] == pytest.approx(lab.result.ratio())
    assert all(lane["seconds"] > 0 for lane in lab.answer["lanes"])
    lab.start()
    lab.stop()
    lab.wait(60)
    assert lab.result is None
    with pytest.raises(InputError, match=r"2\.\.32"):
        lab.n = 33
    with pytest.raises(InputError, match=r"1\.\.10"):
        lab.epochs = 0
    lab.close()


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
    teachlab._told(teachlab, {"add": 0}, [encoded("red")])
    teachlab._told(teachlab, {"add": 1}, [encoded("blue", kind="JPEG")])
    assert teachlab.result.head == "prototype"
    for data in (encoded("#dd2222"), encoded("#ee0000")):
        teachlab._told(teachlab, {"add": 0}, [data])
    teachlab._told(teachlab, {"add": 1}, [encoded("#2222dd"), encoded("#0000ee")])
    assert teachlab.result.head == "ridge"
    assert teachlab.answer["loo"]["n"] == 6
    teachlab._told(teachlab, {"look": True}, [encoded("#cc1111")])
    assert teachlab.live["shares"][0] > teachlab.live["shares"][1]
    assert teachlab.answer["labels"][teachlab.live["near"][0]] == 0


def test_teachlab_says_what_it_cannot_use(teachlab):
    teachlab._told(teachlab, {"add": 0}, [b"no picture", encoded("red")])
    assert "picture 1: it could not be read" in teachlab.error
    assert teachlab.answer["counts"] == [1, 0]
    for odd in ({"add": 7}, {"add": "red"}, {"remove": 5}, {"sample": -1}, {"load": "/nowhere.h5"}):
        teachlab.error = ""
        teachlab._told(teachlab, odd, [encoded("red")])
        assert teachlab.error
    teachlab._told(teachlab, "nonsense", None)
    with pytest.raises(InputError, match="one of red, blue"):
        teachlab.add("green", [])
    with pytest.raises(InputError, match="different names"):
        teachlab.classes = ["red", "red"]
    with pytest.raises(InputError, match="different names"):
        teachlab.classes = [f"c{i}" for i in range(200)]


def test_teachlab_takes_a_large_photograph_and_refuses_a_bomb(teachlab, monkeypatch):
    teachlab._told(teachlab, {"add": 0}, [encoded("red", (8000, 6200), "JPEG")])
    assert teachlab.error == ""
    assert teachlab.answer["counts"] == [1, 0]
    monkeypatch.setattr("frozenkit.images.dataset.MAX_PIXELS", 1000)
    teachlab._told(teachlab, {"add": 0}, [encoded("red", (100, 100))])
    assert "it has 100×100 pixels, more than 1,000" in teachlab.error


def test_teachlab_forgets_renames_and_keeps(teachlab, tmp_path):
    for k in (0, 1):
        teachlab._told(teachlab, {"sample": k}, [])
    assert teachlab.answer["counts"] == [10, 10]
    teachlab.remove(0)
    teachlab.classes = ["animals", "food", "more"]
    with pytest.raises(InputError, match="has pictures"):
        teachlab.classes = ["animals"]
    path = teachlab.save(tmp_path / "taught")
    assert path.suffix == ".h5"
    before = teachlab.features
    other = TeachLab(["x", "y"], backbone=teachlab._backbone)
    other.load(path)
    assert other.classes == ["animals", "food", "more"]
    torch.testing.assert_close(other.features.features, before.features, rtol=0, atol=0)
    torch.testing.assert_close(other.result.predict(before), teachlab.result.predict(before), rtol=0, atol=0)
    other.close()


def test_teachlab_adds_h5_to_a_name_and_cuts_nothing_off(teachlab, tmp_path):
    """``notes.txt`` used to overwrite notes.h5, and ``v1.2`` became v1.h5."""
    teachlab._told(teachlab, {"add": 0}, [encoded("red")])
    for name, written in (("notes.txt", "notes.txt.h5"), ("v1.2", "v1.2.h5"), ("a.h5", "a.h5"), ("b", "b.h5")):
        assert teachlab.save(tmp_path / name) == tmp_path / written
        teachlab.load(tmp_path / name)
    assert sorted(p.name for p in tmp_path.glob("*.*")) == ["a.h5", "b.h5", "notes.txt.h5", "v1.2.h5"]


@pytest.mark.parametrize("what", ["save", "load"])
@pytest.mark.parametrize("name", ["", " ", "/", ".", "..", "here/", "~nobody-by-that-name/x"])
def test_teachlab_says_when_a_name_names_no_file(teachlab, monkeypatch, tmp_path, what, name):
    monkeypatch.chdir(tmp_path)
    teachlab._told(teachlab, {"add": 0}, [encoded("red")])
    teachlab._told(teachlab, {what: name}, [])
    assert "`path` must name a file, got" in teachlab.error
    assert "Try 'taught.h5'." in teachlab.error
    with pytest.raises(InputError, match="must name a file"):
        getattr(teachlab, what)(name)
    assert list(tmp_path.iterdir()) == []


def test_teachlab_shows_what_nobody_foresaw(teachlab, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(teachlab, "save", broken)
    with pytest.raises(ZeroDivisionError):
        teachlab._told(teachlab, {"save": "x"}, [])
    assert teachlab.error == "ZeroDivisionError: ours"


def test_teachlab_clears_an_old_error_when_something_succeeds(teachlab, tmp_path):
    teachlab._told(teachlab, {"add": 0}, [encoded("red")])
    teachlab._told(teachlab, {"save": ""}, [])
    assert teachlab.error
    teachlab._told(teachlab, {"look": True}, [encoded("red")])
    assert teachlab.error  # the camera asks all the time
    teachlab._told(teachlab, {"save": str(tmp_path / "x")}, [])
    assert (teachlab.error, teachlab.said) == ("", f"saved 1 pictures' features to {tmp_path / 'x.h5'}")


def _no_probe(teachlab):
    """Fits what was taught, and nothing else."""
    known = len(teachlab.features)

    def fit(features, **more):
        if len(features) > known + 1:
            raise InputError("`x` must be something else.")
        return fit_probe(features, **more)

    return fit


def test_teachlab_takes_all_pictures_or_none(teachlab):
    with pytest.raises(InputError, match="`pictures` must be PIL images, got int. Open files with open_image"):
        teachlab.add("red", [Image.new("RGB", (9, 9)), 5])
    assert (teachlab._features, teachlab._labels, teachlab._small) == ([], [], [])


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
        ("many rows", "at most 2,000 pictures"),
        ("another layer", "this file holds elsewhere"),
        ("another width", "with 7 features"),
        ("tokens", "token by token"),
        ("no probe", "`x` must be"),
    ],
)
def test_teachlab_keeps_what_was_taught_when_it_refuses_a_file(teachlab, tmp_path, monkeypatch, fault, message):
    for k, colour in enumerate(("red", "blue")):
        teachlab._told(teachlab, {"add": k}, [encoded(colour)])
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
    save_features(FeatureSet(x, labels, classes, tuple(map(str, range(rows))), layer, ""), tmp_path / "odd.h5")
    with pytest.raises(FrozenkitError, match=message):
        teachlab.load(tmp_path / "odd.h5")
    teachlab._told(teachlab, {"load": str(tmp_path / "odd.h5")}, [])
    assert message in teachlab.error
    torch.testing.assert_close(teachlab.features.features, before.features, rtol=0, atol=0)
    assert teachlab.classes == ["red", "blue"]
    assert teachlab.answer["counts"] == [1, 1]
    teachlab._told(teachlab, {"add": 0}, [encoded("red")])
    assert (teachlab.error, teachlab.answer["counts"]) == ("", [2, 1])


class Slow(Lab):
    """Counts to a hundred, and says where it was stopped."""

    seen = 0

    def _compute(self):
        return {"seen": self.seen}

    def _summary(self):
        return {}

    def go(self, to, fail=False):
        def job(tell):
            for i in range(to):
                tell(i, to)
                self.seen = i
                threading_pause()
            if fail:
                raise DataError("it failed.")
            self._refresh()

        self._later("counting", job)


def threading_pause():
    import time

    time.sleep(0.002)


def test_a_newer_job_ends_the_older_one():
    lab = Slow()
    lab.go(100_000)
    lab.go(5)
    lab.wait(20)
    assert lab.answer == {"seen": 4}
    assert lab.work == {}
    lab.go(3, fail=True)
    lab.wait(20)
    assert lab.error == "it failed."
    lab.go(100_000)
    with pytest.raises(TimeoutError, match="counting"):
        lab.wait(0.05)
    lab.stop()
    lab.wait(20)
    assert lab.seen < 99_999


def test_a_sheet_holds_every_picture_in_its_place():
    tiles = [Image.new("RGB", (10, 10), (20 * i, 0, 0)) for i in range(5)]
    data, grid = sheet(tiles, side=8)
    page = Image.open(io.BytesIO(data))
    assert grid == {"side": 8, "columns": 3}
    for i in range(5):
        assert page.getpixel(((i % 3) * 8 + 4, (i // 3) * 8 + 4)) == (20 * i, 0, 0)


def test_two_labs_share_one_cache(backbone, cache):
    data = pictures(24, 0), pictures(16, 1)
    a = LayerLab(*data, backbone=backbone, layers=LAYERS, cache=cache)
    stored = len(cache.entries())
    b = LayerLab(*data, backbone=backbone, layers=LAYERS, cache=cache)
    assert len(cache.entries()) == stored == 2 * len(LAYERS)
    a.pooling = b.pooling = "max"  # at once, beside the kernel
    a.wait(60)
    b.wait(60)
    assert (a.error, b.error) == ("", "")
    assert a.answer == b.answer


def test_one_example_of_each_class_is_said_or_used(backbone, cache):
    with pytest.raises(DataError, match="at least two pictures"):
        LayerLab(pictures(2, 0), pictures(2, 1), backbone=backbone, cache=cache)
    lab = TeachLab(["red", "blue"], backbone=backbone)
    for k, colour in enumerate(("red", "blue")):
        lab._told(lab, {"add": k}, [encoded(colour)])
    assert lab.result.head == "prototype"
    assert "all it can do is compare" in lab.answer["note"]


def test_two_hundred_classes_still_answer(backbone, cache):
    colours = tuple(f"#{(i * 40503) % 0xFFFFFF:06x}" for i in range(200))
    lab = LayerLab(
        pictures(400, 0, colours), pictures(200, 1, colours), backbone=backbone, layers=LAYERS[:1], cache=cache
    )
    assert len(lab.answer["classes"]) == 200
    assert 0 <= lab.answer["now"]["value"] <= 1
