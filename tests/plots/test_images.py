"""Images of a data set, with their names."""

import numpy as np
import pytest
from PIL import Image

from frozenkit import plots
from frozenkit.errors import InputError
from tests.toy import tiny_images


class Images:
    classes = ("dark", "light")

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return Image.new("RGB", (8, 8), (50 * i,) * 3), i % 2


def test_images_are_drawn_with_their_names():
    figure = plots.plot_images(Images(), rows=[4, 1, 2], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["dark", "light", "dark"]
    titled = plots.plot_images(Images(), rows=[0], titles=["cat for dog"])
    assert titled.axes[0].get_title() == "cat for dog"
    assert len(plots.plot_images(Images()).axes) == 5


def test_images_without_one_class_each_are_titled_with_what_they_have():
    def titles(labels, classes):
        return [ax.get_title() for ax in plots.plot_images(tiny_images(labels, classes)).axes]

    assert titles(None, ()) == ["id0", "id1", "id2", "id3"]
    assert titles(np.array([0.5, 2, 1e-9, 3]), ()) == ["0.5", "2", "1e-09", "3"]
    assert titles(np.ones((1, 2)), ()) == ["1, 1"]
    assert titles(np.array([[True, False], [False, False], [True, True]]), ("cat", "dog")) == ["cat", "", "cat, dog"]


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="at least one image"):
        plots.plot_images(Images(), rows=[])


def test_a_figure_of_images_says_how_many():
    assert repr(plots.plot_images(Images(), columns=5)) == "<Figure: 5 images>"
