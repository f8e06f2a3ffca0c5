"""Sorting into folders: copies, never over another file, and never out of the folder, whatever classes are called."""

from pathlib import Path

import pytest

from frozenkit.app.sorting import check_sort_folder, folder_names, sort_into
from frozenkit.errors import InputError

HOSTILE = ["../../etc", "/etc/passwd", "..", ".", "", " ", "a/b", "a\\b", "\x1b[2J", "x" * 400, "\U0001f98a" * 200]
HOSTILE += [".ssh", "con", "NUL.txt", "\udcff", "a\nb"]


@pytest.fixture
def files(tmp_path):
    """Three files in two folders, two of one name."""
    made = [tmp_path / "in" / name for name in ("a/1.png", "b/1.png", "b/2.png")]
    for number, file in enumerate(made):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image %d" % number)
    return made


def test_hostile_names_are_one_plain_part_of_a_path(tmp_path, files):
    names = folder_names(HOSTILE)
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    for name in names:
        assert name == Path(name).name
        assert not name.startswith(".")
        assert len(name.encode()) < 250
        assert name.isprintable()
    out = tmp_path / "out"
    copied, _ = sort_into(out, files[:1] * len(HOSTILE), range(len(HOSTILE)), HOSTILE)
    assert copied == len(HOSTILE)
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_nothing_is_written_over_and_nothing_moved(tmp_path, files):
    out = tmp_path / "out"
    assert sort_into(out, files, [0, 0, 1], ["cat", "dog"]) == (3, 0)
    assert (out / "cat" / "1.png").read_bytes() == b"image 0"
    assert (out / "cat" / "1 (2).png").read_bytes() == b"image 1"
    assert (out / "dog" / "2.png").read_bytes() == b"image 2"
    assert all(file.exists() for file in files)
    assert sort_into(out, files, [0, 0, 1], ["cat", "dog"]) == (0, 3)
    files[0].write_bytes(b"another")
    assert sort_into(out, files, [0, 0, 1], ["cat", "dog"]) == (1, 2)
    assert (out / "cat" / "1.png").read_bytes() == b"image 0"
    assert (out / "cat" / "1 (3).png").read_bytes() == b"another"


def test_files_of_one_name_are_not_read_again_for_each(tmp_path, monkeypatch):
    files = [tmp_path / "in" / f"{number:02}" / "frame.png" for number in range(30)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * (100 + number // 2) + b"%02d" % (number - number % 6))  # some are equal, some as long
    distinct = len({file.read_bytes() for file in files})
    opened, plain = [], Path.open

    def count(path, *args, **kwargs):
        opened.append(path)
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", count)
    out = tmp_path / "out"
    assert sort_into(out, files, [0] * 30, ["a"]) == (distinct, 30 - distinct)
    assert len(opened) < 6 * len(files)
    assert sort_into(out, files, [0] * 30, ["a"]) == (0, 30)
    kept = [path.read_bytes() for path in sorted((out / "a").iterdir())]
    assert sorted(kept) == sorted({file.read_bytes() for file in files})
    (out / "a" / "frame (3).png").write_bytes(b"mine")
    assert sort_into(out, files, [0] * 30, ["a"]) == (1, 29)
    assert (out / "a" / "frame (3).png").read_bytes() == b"mine"


def test_links_lead_nowhere(tmp_path, files):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "cat").symlink_to(elsewhere)
    with pytest.raises(InputError, match="must lead to plain folders, but .*cat is a link or a file"):
        sort_into(out, files, [0, 0, 0], ["cat"])
    (out / "dog").mkdir()
    (elsewhere / "kept").write_text("kept")
    (out / "dog" / "1.png").symlink_to(elsewhere / "kept")
    (out / "dog" / "1 (2).png").symlink_to(elsewhere / "new")
    assert sort_into(out, files[:1], [0], ["dog"]) == (1, 0)
    assert (elsewhere / "kept").read_text() == "kept"
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_a_copy_that_fails_is_not_left_half(tmp_path, files):
    files[1].unlink()
    with pytest.raises(InputError, match="cannot copy .*b/1.png to .*No such file"):
        sort_into(tmp_path / "out", files, [0, 0, 0], ["cat"])
    assert [path.name for path in (tmp_path / "out" / "cat").iterdir()] == ["1.png"]


def test_where_to_sort(tmp_path, files):
    with pytest.raises(InputError, match="must be a folder, or a name that is free"):
        check_sort_folder(files[0], [tmp_path / "in"])
    with pytest.raises(InputError, match="`--sort` must lie outside the images, .*in, got .*in/sorted"):
        check_sort_folder(tmp_path / "in" / "sorted", [tmp_path / "in"])
    check_sort_folder(tmp_path / "inside", [tmp_path / "in", files[0]])
