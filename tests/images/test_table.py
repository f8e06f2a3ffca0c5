"""from_csv: labels of three kinds from tables of many hands, and every line that cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import FeatureCache, FrozenkitWarning, extract, fit_probe, from_csv
from frozenkit.errors import DataError, InputError


@pytest.fixture
def write(tmp_path):
    """Six images, two of them in a folder, and a function that writes a table beside them."""
    (tmp_path / "more").mkdir()
    for i, name in enumerate(("0.png", "1.png", "2.png", "3.png", "more/4.png", "more/5.PNG")):
        Image.new("RGB", (6, 5), (40 * i, 0, 7)).save(tmp_path / name)

    def write(text, *, encoding="utf-8"):
        (tmp_path / "table.csv").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return tmp_path / "table.csv"

    return write


FILES = ("0.png", "1.png", "2.png", "3.png", "more/4.png", "more/5.PNG")


def table(*columns, header="file,value", files=FILES):
    return "\n".join([header, *(",".join(row) for row in zip(files, *columns, strict=True))])


# --- what the columns hold ------------------------------------------------------------------------


def test_words_are_classes(write):
    ds = from_csv(write(table(["dog", "cat", "dog", "cat", "cat", "café"])))
    assert repr(ds) == "ImageDataset('table', 6 images, 3 classes)"
    assert (ds.classes, ds.labels.tolist(), ds.ids) == (("café", "cat", "dog"), [2, 1, 2, 1, 1, 0], FILES)
    assert ds[4][0].getpixel((0, 0)) == (160, 0, 7)
    assert eval(ds.code, {"from_csv": from_csv}).digest == ds.digest


def test_numbers_are_values_to_predict(write):
    ds = from_csv(write(table(["1.5", "-2", "+3.", ".25", "1e3", "7"])))
    assert repr(ds) == "ImageDataset('table', 6 images, regression)"
    torch.testing.assert_close(ds.labels, torch.tensor([1.5, -2, 3, 0.25, 1000, 7]), rtol=0, atol=0)
    both = from_csv(write(table(["1.5"] * 6, ["2"] * 6, header="file,x,y")))
    torch.testing.assert_close(both.labels, torch.tensor([[1.5, 2.0]]).repeat(6, 1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file;v\n0.png;1.234\n1.png;2.345\n2.png;3,5\n",
            r"table\.csv must have one decimal sign under 'v', but line 2 has '1\.234' and line 4 '3,5'\. "
            r"Write numbers without thousands separators, such as 1234\.5",
        ),
        (
            "file;v\n0.png;3,5\n1.png;2.345,5\n2.png;1\n",
            r"under 'v', but line 3 has '2\.345,5'\. Write numbers such as 1",
        ),
        (
            'file,v\n0.png,"1,234"\n1.png,"2,345"\n2.png,3.5\n',
            r"table\.csv must have no thousands separators under 'v', but line 2 has '1,",
        ),
        ('file,v\n0.png,"1,234"\n1.png,"2,345,678.5"\n2.png,"3,500"\n', "under 'v', but line 2 has '1,234'"),
        ("file;a;v\n0.png;1;1.234\n1.png;2;2,5\n", "must have one decimal sign under 'v', but line 2 has '1.234'"),
    ],
)
@pytest.mark.parametrize("task", [None, "regression"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_thousands_are_not_taken_for_decimals(write, text, message, task, skip_bad):
    with pytest.raises(DataError, match=message):
        from_csv(write(text), task=task, skip_bad=skip_bad)


def test_words_with_commas_stay_classes(write):
    ds = from_csv(write(table(['"1,234"', '"1,234"', "cat", "cat", "dog", '"Doe, J."'])))
    assert ds.classes == ("1,234", "Doe, J.", "cat", "dog")
    ds = from_csv(write(table(['"1,234"', "3.5", "3.5", "3.5", "3.5", '"1,234"'])), task="classes")
    assert ds.classes == ("1,234", "3.5")
    points = "file;v\n" + "\n".join(
        f"{name};{value}" for name, value in zip(FILES, ("1.234", "2.345", "3", "4", "5", "6"))
    )
    assert from_csv(write(points)).labels[0] == pytest.approx(1.234)


def test_zeros_and_ones_in_several_columns_are_labels_any_of_which_an_image_may_have(write):
    ds = from_csv(write(table("101000", ["0", "1", "1.0", "0", "0", "1"], header="file,cat,dog")))
    assert repr(ds) == "ImageDataset('table', 6 images, any of 2 labels)"
    assert ds.classes == ("cat", "dog")
    expected = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0], [0, 1]]).bool()
    torch.testing.assert_close(ds.labels, expected, rtol=0, atol=0)
    one = from_csv(write(table("101000", header="file,cat")), task="multilabel")
    assert (one.labels.shape, one.classes) == ((6, 1), ("cat",))
    numbers = from_csv(write(table("101000", "011001", header="file,cat,dog")), task="regression")
    assert numbers.labels.dtype == torch.float32


def test_whole_numbers_must_be_told_apart_by_the_caller(write):
    path = write(table(["10", "2", "2", "1", "10", "1"]))
    with pytest.raises(InputError, match=r'whole numbers under .value. are: task="classes" or, .*"regression"'):
        from_csv(path)
    ds = from_csv(path, task="classes")
    assert (ds.classes, ds.labels.tolist()) == (("1", "2", "10"), [2, 1, 1, 0, 2, 0])
    assert from_csv(path, task="regression").labels.tolist() == [10, 2, 2, 1, 10, 1]
    # A single 2 among zeros and ones would make numbers of labels, unnoticed.
    with pytest.raises(InputError, match=r"under 'cat', 'dog' are: task=\"multilabel\""):
        from_csv(write(table("101000", "012001", header="file,cat,dog")))


def test_classes_may_look_like_numbers_here_and_there(write):
    ds = from_csv(write(table(["7", "cat", "dog", "7", "cat", "cat"])))
    assert ds.classes == ("7", "cat", "dog")


# --- tables of many hands -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,value\r\n0.png,1.5\r\n1.png,2\r\n",
        "file;value\n0.png;1,5\n1.png;2\n",
        "file\tvalue\n0.png\t1.5\n1.png\t2",
        '"file","value"\n"0.png","1.5"\n"1.png","2"\n',
        "\n\nfile , value\n ./0.png , 1.5\n\n1.png, 2 \n,,\n".replace(",,", ","),
    ],
    ids=["Excel", "semicolons", "tabs", "quotes", "blanks"],
)
def test_separators_marks_and_blanks(write, text):
    with pytest.warns(FrozenkitWarning, match="4 images in .* are not in .*table.csv, and left out") as warned:
        ds = from_csv(write(text))
    assert warned[0].filename == __file__
    assert (ds.ids, ds.labels.tolist(), ds.skipped) == (("0.png", "1.png"), [1.5, 2.0], ())


def test_names_may_be_written_in_two_ways(write, tmp_path):
    decomposed = "cafe\u0301.png"
    Image.new("RGB", (2, 2)).save(tmp_path / decomposed)
    files = ["0.png", "1.png", "2.png", "3.png", "more\\4.png", "./more/5.PNG", "caf\u00e9.png"]
    ds = from_csv(write(table("abababa", files=files)))
    assert ds.ids == (*FILES, decomposed)


def test_images_may_lie_elsewhere(write, tmp_path):
    text = table("aab", files=["4.png", "5.PNG", "4.png"])
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text(text.replace("4.png,b", ""))
    ds = from_csv(str(tmp_path / "tables" / "t.csv"), folder=tmp_path / "more")
    assert ds.ids == ("4.png", "5.PNG")
    assert eval(ds.code, {"from_csv": from_csv}).digest == ds.digest


def test_a_row_that_spans_lines_and_hostile_names_are_read_as_text(write):
    ds = from_csv(write(table(['"=cmd|x"', '"<script>\nalert(1)"', '"a,""b"""', "x", "x", "x"])))
    assert ds.classes == ("<script>\nalert(1)", "=cmd|x", 'a,"b"', "x")
    assert "<script" not in ds._repr_html_()


# --- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataError, r"table\.csv must have a column of files and at least one of values, .*; got 0\. Begin"),
        ("file\n0.png\n", DataError, "at least one of values, separated by commas, semicolons or tabs; got 1"),
        ("0.png,1.5\n1.png,2\n", DataError, r"must begin with the names of its columns, but begins with '0\.png'"),
        (",file,value\n0,0.png,1\n", DataError, r"column 1 has none\. If pandas wrote it: to_csv\(…, index=False\)"),
        ("file,value,value\n0.png,1,2\n", DataError, "columns of distinct names, but 'value' is there twice"),
        ("file,value\n", DataError, "must name at least one image, but ends after its header"),
        ('file,value\n0.png,"1.5\n1.png,2\n', DataError, r"is no CSV table: line 3: unexpected end of data\. Mend its"),
        (
            "file,value\n0.png,é\n".encode("latin-1"),
            DataError,
            r"must be UTF-8, but line 2 is not\.",
        ),
        ("file,value\n0.png,1\n".encode("utf-16"), DataError, "must be UTF-8, but line 1 is not"),
        ("file,value\n0.png,1\n".encode("utf-16-le"), DataError, "must be text in UTF-8, but holds zero bytes"),
        ("file,a,b\n0.png,x,y\n", InputError, "must hold numbers .* for regression, but 'a' holds none, such as 'x'"),
        ("file,a,b\n0.png,1,y\n", InputError, "whole numbers under 'a', 'b'"),
        ("file,a,b\n0.png,1.5,y\n", InputError, r"but 'b' holds none, such as 'y'\. Keep one column of words"),
        (
            "file,a\n9.png,x\n8.png,y\n",
            DataError,
            r"none of the 2 files .* such as '9\.png'; it holds '0\.png'",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_named(write, text, error, message):
    with pytest.raises(error, match=message):
        from_csv(write(text))


def test_options_and_places_that_do_not_fit_are_named(write, tmp_path):
    path = write(table("ab" * 3))
    with pytest.raises(InputError, match="`task` must be one of classes, regression, multilabel, or None, got 'words'"):
        from_csv(path, task="words")
    with pytest.raises(InputError, match="'value' holds none, such as 'a'"):
        from_csv(path, task="regression")
    with pytest.raises(InputError, match="must have one column of classes beside that of the files, got 'a', 'b'"):
        from_csv(write(table("ab" * 3, "cd" * 3, header="file,a,b")), task="classes")
    for given in (None, 3, ["a.csv"], from_csv):
        with pytest.raises(InputError, match="`path` must be a path, got "):
            from_csv(given)
    with pytest.raises(InputError, match="`folder` must be a path, got int 3"):
        from_csv(path, folder=3)
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Give the one that holds the images, with `folder`"):
        from_csv(path, folder=tmp_path / "nowhere")
    for missing in (tmp_path / "gone.csv", tmp_path, "zero\0.csv"):
        with pytest.raises(DataError, match=r"is not a file\. Give a table with a line for each image"):
            from_csv(missing)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="it holds no images"):
        from_csv(write(table("ab" * 3)), folder=tmp_path / "void")


def test_every_line_that_cannot_be_used_is_named_and_can_be_left_out(write, tmp_path):
    good = [f"{name},{i}.5" for i, name in enumerate(FILES)]
    (tmp_path / "bad.png").write_bytes(b"")
    wrong = ["gone.png,1", "../0.png,1", "/etc/passwd,1", ",2", "0.png,0.5", "bad.png,1", "1.png,2,3"]
    path = write("\n".join(["file,price", *good[:5], *wrong, "more/5.PNG,n/a"]))
    with pytest.raises(DataError, match=r"has 8 problems\. With skip_bad=True they are left out\.") as caught:
        from_csv(path)
    assert [str(problem).replace(f"{tmp_path}", "") for problem in caught.value.problems] == [
        "/table.csv:13 has 3 cells, where the header has 2. Mend or remove the line.",
        "/table.csv:7 names 'gone.png', which is no image in . Correct the name, or remove the line.",
        "/table.csv:8 names '../0.png', which is no image in . Correct the name, or remove the line.",
        "/table.csv:9 names '/etc/passwd', which is no image in . Correct the name, or remove the line.",
        "/table.csv:10 names no file. Correct the name, or remove the line.",
        "/table.csv:11 names '0.png' again, after line 2. Remove one of both.",
        "/bad.png is not a readable image: it is empty. Repair or remove it.",
        "/table.csv:14 must hold a number under 'price', but has 'n/a'. Fill it in, or remove the line.",
    ]
    with pytest.warns(FrozenkitWarning, match=r"left out 8 lines or images that cannot be used: table\.csv:13") as w:
        ds = from_csv(path, skip_bad=True)
    assert w[0].filename == __file__
    assert (ds.ids, ds.labels.tolist()) == (FILES[:5], [0.5, 1.5, 2.5, 3.5, 4.5])
    assert (ds.skipped[6][0], ds.skipped[7][0]) == ("bad.png", "table.csv:14")


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1_000", "1,5", "0x1", "٣", "1e39", "1 2", "--1", "."])
def test_what_is_no_number_is_told_so(write, cell):
    text = "\n".join(["file\tvalue", *(f"{name}\t1.5" for name in FILES[:5]), f"{FILES[5]}\t{cell}"])
    with pytest.raises(DataError, match=r"table\.csv:7 (must hold a number under 'value', but has|has no 'value')"):
        from_csv(write(text))


def test_missing_classes_and_labels_are_named(write):
    with pytest.raises(DataError, match="table.csv:3 has no 'value'"):
        from_csv(write(table(["cat", "", "dog", "cat", "dog", "dog"])))
    with pytest.raises(DataError, match="table.csv:2 must hold 0 or 1 under 'dog', but has '2'"):
        from_csv(write(table("101000", "212001", header="file,cat,dog")), task="multilabel")


def test_a_file_named_twice_with_two_values_is_never_left_out_in_silence(write):
    path = write(table("abababb", files=[*FILES, "0.png"]))
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=r"table\.csv:8 names '0\.png' again, after line 2, with another value"):
            from_csv(path, skip_bad=skip_bad)


def test_nothing_left_is_an_error(write, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)must name at least one image that can be used, once .*0\.png is not"):
        from_csv(write(table("ab" * 3)), skip_bad=True)


def test_links_that_lead_out_are_refused(write, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (2, 2)).save(outside)
    (tmp_path / "link.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"link\.png is a link that leads out of the folder"):
        from_csv(write(table("abababa", files=[*FILES, "link.png"])), skip_bad=True)
    (tmp_path / "away").symlink_to(outside.parent)
    with pytest.raises(DataError, match="away is a link that leads out of the folder"):
        from_csv(write(table("abababa", files=[*FILES, "./away/secret.png"])), skip_bad=True)
    # What no line names may lie beside it, such as a virtual environment and its links.
    assert from_csv(write(table("ab" * 3))).ids == FILES


# --- all the way ------------------------------------------------------------------------------------


def test_values_from_a_table_are_predicted_from_images(backbone, tmp_path):
    """The share of red, to which a probe on frozen features finds its way."""
    random = np.random.RandomState(0)
    lines = ["file,redness"]
    for i in range(60):
        red = random.rand()
        pixels = np.stack([np.full((24, 24), 255 * red), *random.randint(0, 255, (2, 24, 24))], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{red:.4f}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    images = from_csv(tmp_path / "labels.csv")
    features = extract(backbone, images, layer="blocks.2", progress=False)
    probe = fit_probe(features[:40])
    assert probe.r_squared(features[40:]) > 0.8
    shuffled = features.relabel(features.labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))], ())
    assert fit_probe(shuffled[:40]).r_squared(shuffled[40:]) < 0.2


def test_several_labels_from_a_table_are_fitted_and_cached(backbone, tmp_path):
    """Whether an image is reddish, and whether it is bluish: four combinations."""
    random = np.random.RandomState(0)
    truth = [(i % 2, i // 2 % 2) for i in range(40)]
    for i, (red, blue) in enumerate(truth):
        grey = random.randint(60, 120, (24, 24))
        pixels = np.stack([grey + 120 * red, grey, grey + 120 * blue], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
    lines = [f"{i}.png,{red},{blue}" for i, (red, blue) in enumerate(truth)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,red,blue", *lines]))
    images, cache = from_csv(tmp_path / "labels.csv"), FeatureCache(tmp_path / "cache")
    cold, warm = (extract(backbone, images, layer="blocks.2", cache=cache, progress=False) for _ in range(2))
    assert (cold.classes, cold.fingerprint) == (("red", "blue"), warm.fingerprint)
    torch.testing.assert_close(warm.labels, torch.tensor(truth).bool(), rtol=0, atol=0)
    probe = fit_probe(warm[:24], head="logistic")
    assert (probe.predict(warm[24:]) == warm.labels[24:]).float().mean() > 0.9
