"""Images in a grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from frozenkit.errors import InputError
from frozenkit.plots.style import new_figure, styled


@styled
def plot_images(
    images: Any,
    *,
    rows: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    figure: Figure | None = None,
) -> Figure:
    """A grid of images, each titled with its class or with what is given.

    Args:
        images: An `ImageDataset`, or any sequence of (PIL image, class index) with ``.classes``.
        rows: Which ones, in order; default the first two lines.
        titles: One an image; default the class names, for regression the value, and without labels the id.
        columns: Images a line.
        figure: Where to draw; default a new one.
    """
    chosen = [int(i) for i in (range(min(len(images), 2 * columns)) if rows is None else rows)]
    if not chosen:
        raise InputError("`rows` must name at least one image, got none.")
    columns = min(columns, len(chosen))
    lines = -(-len(chosen) // columns)
    if figure is None:
        figure = new_figure((1.6 * columns, 1.95 * lines))
    for place, row in enumerate(chosen):
        image, label = images[row]
        ax = figure.add_subplot(lines, columns, place + 1)
        ax.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 64 else "antialiased")
        ax.set_axis_off()
        name = titles[place] if titles is not None else _title(images, row, label)
        ax.set_title(name, fontsize=12, loc="center", pad=4)
    return figure


def _title(images: Any, row: int, label: Any) -> str:
    if label is None:
        return str(images.ids[row])
    values = np.asarray(label)
    if not images.classes:
        return ", ".join(f"{value:.4g}" for value in values.reshape(-1))
    return ", ".join(images.classes[i] for i in (np.flatnonzero(values) if values.ndim else [int(values)]))
