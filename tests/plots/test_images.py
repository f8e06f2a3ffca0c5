"""Images of a data set, with their names."""

import pytest
from PIL import Image

from frozenkit import plots
from frozenkit.errors import InputError


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


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="at least one image"):
        plots.plot_images(Images(), rows=[])


def test_a_figure_of_images_says_how_many():
    assert repr(plots.plot_images(Images(), columns=5)) == "<Figure: 5 images>"
