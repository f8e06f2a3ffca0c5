"""What all plots share: on axes given or their own, legible, described, and without a trace."""

import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from frozenkit import plots
from tests.plots.results import (
    CALLS,
    SCORE,
)


def luminance(color):
    """Relative luminance, as WCAG 2 defines it."""
    parts = np.asarray(mpl.colors.to_rgb(color))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def poorly_legible(figure):
    """Text whose contrast to the figure's own ground is below 7:1; all of it where there is no ground.

    What is written onto an image in a plot is left out.
    """
    ground = figure.get_facecolor()
    on_images = {text for ax in figure.axes if ax.images for text in ax.texts}
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible() and t not in on_images]
    assert texts
    light = luminance(ground)
    contrast = {t: np.divide(*sorted((light + 0.05, luminance(t.get_color()) + 0.05), reverse=True)) for t in texts}
    return [t.get_text() for t in texts if ground[3] < 1 or contrast[t] < 7]


def test_grey_on_white_and_ink_on_nothing_would_be_seen():
    for ground, ink in (("white", "#7F7F7F"), ("none", "black")):
        figure = plt.figure(facecolor=ground)
        figure.text(0, 0, "faint", color=ink)
        assert poorly_legible(figure) == ["faint"]


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_draws_on_the_axes_given_or_on_its_own(name):
    _, given = plt.subplots()
    assert CALLS[name](given) is given
    own = CALLS[name](None)
    assert own is not given
    own.figure.canvas.draw()
    assert poorly_legible(own.figure) == []


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_changes_no_global_style(name):
    before = dict(mpl.rcParams)
    CALLS[name](None)
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_every_figure_not_only_the_first():
    """The first figure loads the notebook's backend; giving its settings back with the style hid all later ones."""
    import nbformat
    from nbclient import NotebookClient

    source = """
        from frozenkit.plots import plot_scores
        from frozenkit.probes.scores import score
        right = score([0, 1, 1], [0, 1, 0], n_classes=2)
        ax = plot_scores({"a": right})
    """
    cells = [
        textwrap.dedent(source),
        'ax = plot_scores({"b": right})',
        "import matplotlib.pyplot as plt; plt.plot([1, 2])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [[output.get("data", {}) for output in cell.outputs] for cell in notebook.cells]
    assert [any("image/png" in data for data in cell) for cell in shown] == [True, True, True]


def test_a_figure_says_what_it_shows_and_leaves_out_what_differs_between_machines():
    assert repr(
        plots.plot_scores({"probe": SCORE}).figure
    ) == "<Figure: accuracy,  % interval, showing commonest class alone …>".replace(",  %", ", 95 %")
    assert repr(plt.figure()).startswith("<Figure size")  # other figures are left alone
    plt.close("all")
