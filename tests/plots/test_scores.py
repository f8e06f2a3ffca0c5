import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import plots
from frozenkit.errors import InputError
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.reports import layer_report, learning_curve
from frozenkit.probes.scores import score
from tests.toy import clouds

TRAIN, TEST = clouds(60, 0, apart=1.0, layer="late"), clouds(90, 1, apart=1.0, layer="late")
PROBE = fit_probe(TRAIN)
SCORE = PROBE.score(TEST)
REPORT = layer_report({"early": TRAIN, "late": TRAIN}, {"early": TEST, "late": TEST})
CURVE = learning_curve(TRAIN, TEST, sizes=[2, 5, 10], repeats=2, heads=("ridge", "knn"))


class Pictures:
    classes = ("dark", "light")

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return Image.new("RGB", (8, 8), (50 * i,) * 3), i % 2


CALLS = {
    "score": lambda ax: plots.plot_score(SCORE, ax=ax),
    "scores": lambda ax: plots.plot_scores({"probe": SCORE, "again": SCORE}, ax=ax),
    "confusion": lambda ax: plots.plot_confusion(SCORE, ax=ax),
    "path": lambda ax: plots.plot_ridge_path(PROBE.strength_path, ax=ax),
    "layers": lambda ax: plots.plot_layer_report(REPORT, ax=ax),
    "depths": lambda ax: plots.plot_depths({"data": REPORT}, {"data": REPORT}, ax=ax),
    "curve": lambda ax: plots.plot_learning_curve(CURVE, ax=ax),
}


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


def test_scores_stand_where_they_are_with_their_intervals():
    ax = plots.plot_scores({"probe": SCORE})
    bars = ax.containers[0]
    np.testing.assert_allclose(bars.lines[0].get_xdata(), [SCORE.accuracy])
    np.testing.assert_allclose(bars.lines[2][0].get_segments()[0][:, 0], [SCORE.low, SCORE.high])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["probe"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [f"commonest class alone {SCORE.chance:.3f}"]


def test_the_confusion_writes_its_counts():
    written = [int(t.get_text()) for t in plots.plot_confusion(SCORE).texts]
    assert written == SCORE.confusion[SCORE.confusion > 0].tolist()


def test_a_confusion_of_many_classes_is_left_unwritten():
    y = torch.arange(50)
    assert len(plots.plot_confusion(score(y, y, n_classes=50)).texts) == 0


def test_the_path_marks_the_chosen_strength():
    chosen = plots.plot_ridge_path(PROBE.strength_path).lines[1]
    np.testing.assert_allclose(chosen.get_xdata(), [PROBE.strength])
    np.testing.assert_allclose(chosen.get_ydata(), [PROBE.choice_score])


def test_a_report_without_test_shows_none():
    ax = plots.plot_layer_report(layer_report({"early": TRAIN, "late": TRAIN}))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["leave-one-out (chooses)"]
    assert ax.get_title(loc="left") == "Chosen: early"


def test_heads_differ_in_mark_and_not_by_colour_alone():
    lines = [line for line in plots.plot_learning_curve(CURVE).lines if line.get_linestyle() == "-"]
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 2


def test_pictures_are_drawn_with_their_names():
    figure = plots.plot_images(Pictures(), rows=[4, 1, 2], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["dark", "light", "dark"]
    titled = plots.plot_images(Pictures(), rows=[0], titles=["cat for dog"])
    assert titled.axes[0].get_title() == "cat for dog"
    assert len(plots.plot_images(Pictures()).axes) == 5


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="at least one picture"):
        plots.plot_images(Pictures(), rows=[])
    with pytest.raises(InputError, match="at least one score"):
        plots.plot_scores({})


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
    assert repr(plots.plot_images(Pictures(), columns=5)) == "<Figure: 5 pictures>"
    assert repr(plt.figure()).startswith("<Figure size")  # other figures are left alone
    plt.close("all")
