"""Predictions as text, tables and CSV files."""

import csv
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from frozenkit import Predictions, from_torch
from frozenkit.classifier.predictions import as_unlabelled
from frozenkit.errors import CacheError, DataError, InputError
from tests.toy import turned_photograph

FOUND = Predictions(
    ("a.png", "b.png", "c.png"),
    torch.tensor([1, 0, 1]),
    ("cat", "dog"),
    torch.tensor([[0.25, 0.75], [0.9, 0.1], [0.5, 0.5]]),
)
VALUES = Predictions(("a", "b"), torch.tensor([1.5, -2.0]), (), None)
TAGS = Predictions(
    ("a", "b"), torch.tensor([[True, True], [False, False]]), ("cat", "dog"), torch.tensor([[0.9, 0.8], [0.2, 0.1]])
)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_class_and_probability_of_each_image():
    assert FOUND.class_ == ("dog", "cat", "dog")
    assert_close(FOUND.probability, torch.tensor([0.75, 0.9, 0.5]))
    assert len(FOUND) == 3
    frame = FOUND.to_frame(probabilities=True)
    assert list(frame.columns) == ["class", "probability", "p(cat)", "p(dog)"]
    assert list(frame.index) == ["a.png", "b.png", "c.png"]
    assert frame.loc["b.png", "p(dog)"] == pytest.approx(0.1)
    assert list(FOUND.to_frame().columns) == ["class", "probability"]


def test_values_and_several_labels():
    assert list(VALUES.to_frame()["value"]) == [1.5, -2.0]
    two = Predictions(("a", "b"), torch.eye(2), (), None)
    assert list(two.to_frame().columns) == ["value 0", "value 1"]
    for name in ("class_", "probability"):
        with pytest.raises(InputError, match=f"`{name}` needs classes; these are predictions of a regression"):
            getattr(VALUES, name)
    assert TAGS.class_ == ("cat; dog", "")
    assert_close(TAGS.probability, torch.tensor([0.9, 0.2]))


def test_a_csv_file_reads_back(tmp_path):
    FOUND.to_csv(path := tmp_path / "found.csv")
    assert read(path) == [
        ["id", "class", "probability"],
        ["a.png", "dog", "0.75"],
        ["b.png", "cat", "0.9"],
        ["c.png", "dog", "0.5"],
    ]
    FOUND.to_csv(str(path), probabilities=True)
    assert read(path)[1] == ["a.png", "dog", "0.75", "0.25", "0.75"]
    VALUES.to_csv(path)
    assert read(path) == [["id", "value"], ["a", "1.5"], ["b", "-2"]]
    assert [file.name for file in tmp_path.iterdir()] == ["found.csv"]


HOSTILE = ("=cmd|'/c calc'!A1.png", "+1.png", "-1.png", "@sum.png", "\tx.png", 'quo"te, comma\nline.png', "\udcff.png")


def test_names_from_data_are_text_for_a_spreadsheet_and_for_a_page(tmp_path):
    classes = ("=1+1", "<script>", "ü")
    found = Predictions(HOSTILE, torch.arange(7) % 3, classes, torch.eye(3)[torch.arange(7) % 3])
    found.to_csv(path := tmp_path / "found.csv", probabilities=True)
    rows = read(path)
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t")]
    assert [row[0] for row in rows[1:]] == [*(f"'{name}" for name in HOSTILE[:5]), HOSTILE[5], "\\udcff.png"]
    assert {len(row) for row in rows} == {6}
    assert tuple(replace(found, ids=(*HOSTILE[:6], "7")).to_frame().index[:6]) == HOSTILE[:6]
    page = found._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\t" not in repr(found)
    assert len(repr(found).splitlines()) == 9


def test_it_shows_the_first_rows_and_says_so():
    many = Predictions(
        tuple(map(str, range(12))), torch.zeros(12, dtype=torch.int64), ("cat",), torch.ones(12, 1), (("x", "y"),)
    )
    lines = repr(many).splitlines()
    assert lines[0] == "Predictions(12 images, 1 classes, 1 files left out; the first 10)"
    assert len(lines) == 12
    assert repr(VALUES).splitlines()[0] == "Predictions(2 images, regression)"
    assert "1.500" in VALUES._repr_html_()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(CacheError, match="cannot write"):
        FOUND.to_csv(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_frame_is_pandas():
    assert isinstance(FOUND.to_frame(), pd.DataFrame)


def test_a_photograph_stands_upright_however_it_is_given(tmp_path):
    file = turned_photograph(tmp_path)
    with Image.open(file) as image:
        upright = as_unlabelled([image])
        once, twice = upright[0][0], as_unlabelled([upright[0][0]])[0][0]
    assert once.size == twice.size == (32, 64)
    assert once.tobytes() == twice.tobytes() == as_unlabelled(file)[0][0].tobytes()
    with Image.open(file) as image:  # as one learns from it
        learnt = from_torch([(image, 0)])[0][0]
    assert learnt.tobytes() == once.tobytes()
    assert as_unlabelled([learnt])[0][0].tobytes() == once.tobytes()


def test_images_that_cannot_be_read_are_named(tmp_path):
    file = turned_photograph(tmp_path)
    file.write_bytes(file.read_bytes()[:700])
    with Image.open(file) as half, pytest.raises(DataError, match="image 1 of these cannot be read: .*truncated"):
        as_unlabelled([Image.new("RGB", (4, 4)), half])[1]
    with pytest.raises(DataError, match=r"image 0 of these cannot be read: it has 0×4 pixels"):
        as_unlabelled(Image.new("RGB", (0, 4)))[0]
