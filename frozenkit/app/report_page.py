"""A `ProbeReport` as one self-contained HTML page: no script, no address outside it, both themes."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

from frozenkit import __version__
from frozenkit._outputs import Table, render
from frozenkit.app.report import ProbeReport
from frozenkit.probes.scores import Score

_MOST_WRONG = 12  # images, here and among suspected labels
_MOST_NEAR = 8  # pairs that are shown; the rest are listed
_MOST_WALLS = 12  # classes
_MOST_CLASSES = 15  # of a confusion matrix that can be read
_MOST = 100  # entries of a list
_LOSSLESS = 12_000  # bytes


def to_html(report: ProbeReport, *, command: str = "frozenkit probe", next_steps: Sequence[str] = ()) -> str:
    """The page; every name from data is escaped.

    Args:
        report: From `probe_report`.
        command: What produced it, shown at the end.
        next_steps: Commands that could be typed next.
    """
    classes, wrong = report.train.classes, report.wrong()
    predicted = report.probabilities.argmax(1)
    mistakes = [
        {
            "source": _data_uri(report.image(row)[0]),
            "name": f"{classes[int(report.labels[row])]}, taken for {classes[int(predicted[row])]}",
            "id": report.ids[row],
        }
        for row in wrong[:_MOST_WRONG]
    ]
    shown = [report.train[row] for row in _few_per_class(report)]
    return render(
        "app/report.html",
        report=report,
        title=f"{report.train.name}: frozen features",
        command=command,
        version=__version__,
        interval=_interval,
        examples=[{"source": _data_uri(image), "name": classes[label]} for image, label in shown],
        controls=_controls(report),
        reasons=_reasons(report),
        layers=_layers(report),
        by_class=_classes(report),
        mistakes=mistakes,
        n_mistakes=len(wrong),
        confused=_confused(report),
        wall=_wall(report),
        near=_near(report),
        n_near=_MOST_NEAR,
        suspects=_suspects(report),
        plot=_curve(report),
        outlook=_outlook(report),
        next_steps=next_steps,
        recipe=report.layers.probe.recipe(),
        most=_MOST,
        most_classes=_MOST_CLASSES,
    )


def _few_per_class(report: ProbeReport) -> list[int]:
    """Up to three training images per class, 18 in all."""
    labels = report.train.labels
    each = max(1, min(3, 18 // len(report.train.classes)))
    rows = [(labels == k).nonzero().flatten()[:each].tolist() for k in range(len(report.train.classes))]
    return [row for found in rows for row in found][:18]


def _wall(report: ProbeReport) -> list[dict[str, Any]]:
    """Per class some images that were right, and some that were wrong; of many classes those with most mistakes."""
    classes, (sure, predicted) = report.train.classes, report.probabilities.max(1)
    order = [k for k in range(len(classes)) if not math.isnan(report.score.per_class[k])]
    if len(order) > _MOST_WALLS:
        order = sorted(order, key=lambda k: float(report.score.per_class[k]))[:_MOST_WALLS]

    def shown(row: int) -> dict[str, Any]:
        said = f"{classes[int(predicted[row])]} {float(sure[row]):.0%}"
        return {"source": _data_uri(report.image(row)[0], 112), "name": said, "id": report.ids[row]}

    wall = []
    for k in order:
        right, wrong = report.right_and_wrong(k)
        recall = float(report.score.per_class[k])
        wall.append({"name": classes[k], "recall": recall, "right": map(shown, right), "wrong": map(shown, wrong)})
    return wall


def _confused(report: ProbeReport) -> Table | None:
    """The commonest confusions, where a matrix of all would be too large to read."""
    classes, pairs = report.train.classes, report.confused_pairs()
    if len(classes) <= _MOST_CLASSES or not pairs:
        return None
    images = report.score.confusion.sum(1).tolist()
    rows = [(classes[a], classes[b], f"{n:,}", f"{n / images[a]:.0%}") for a, b, n in pairs[:_MOST_CLASSES]]
    return Table(("class", "taken for", "images", "of its class"), rows, numeric=(2, 3))


def _near(report: ProbeReport) -> list[dict[str, Any]]:
    """Pairs of nearly equal images; the first with the images themselves."""
    pairs = []
    for number, pair in enumerate(report.near_pairs()[: _MOST_NEAR + _MOST]):
        members = [report.any_image(row) for row in (pair.first, pair.second)]
        pairs.append(
            {
                "images": [
                    {
                        "source": _data_uri(image) if number < _MOST_NEAR else "",
                        "name": report.train.classes[label],
                        "id": name,
                    }
                    for name, image, label in members
                ],
                "similarity": f"{pair.similarity:.3f}",
                "across": pair.across,
                "odd": not pair.same_label,
            }
        )
    return pairs


def _suspects(report: ProbeReport) -> list[dict[str, Any]]:
    """The labels that are worth a look first."""
    classes, found = report.train.classes, report.inspection.suspects
    shown = []
    rows = zip(found.rows[:_MOST_WRONG].tolist(), found.labels.tolist(), found.suggested.tolist())
    for row, label, suggested in rows:
        name, image, _ = report.any_image(row)
        said = f"labelled {classes[label]}, looks like {classes[suggested]}"
        shown.append({"source": _data_uri(image), "name": said, "id": name})
    return shown


def _outlook(report: ProbeReport) -> Table | None:
    """Accuracy with more labels."""
    outlook = report.inspection.outlook
    if outlook is None:
        return None
    rows = [
        (f"{forecast.n:,}", f"{forecast.accuracy:.1%}", f"{forecast.low:.1%} to {forecast.high:.1%}")
        for forecast in outlook.forecasts
    ]
    now = (f"{outlook.n:,}, as measured", f"{outlook.accuracy:.1%}", "")
    return Table(("labelled images", "accuracy", "95 % interval"), [now, *rows], numeric=(1, 2))


def _curve(report: ProbeReport) -> dict[str, Any] | None:
    """Where the marks of the learning curve stand; sizes on a logarithmic scale."""
    curve, outlook = report.inspection.curve, report.inspection.outlook
    if curve is None:
        return None
    forecasts = outlook.forecasts if outlook else ()
    draws = [(run.n, run.score.accuracy) for run in curve.runs]
    sizes = sorted({n for n, _ in draws})
    means = [(n, _mean([accuracy for m, accuracy in draws if m == n])) for n in sizes]
    values = [accuracy for _, accuracy in draws] + [end for f in forecasts for end in (f.low, f.high)]
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if max(values) - min(values) <= 6 * step or step == 0.2)
    bottom, top = math.floor(min(values) / step), math.ceil(max(values) / step + 1e-9)
    width, height, left, right, low, high = 640, 260, 56, 620, 210, 14
    least, most = math.log(sizes[0]), math.log(max([*sizes, *(f.n for f in forecasts)]))

    def x(n: float) -> float:
        return round(left + 20 + (right - left - 50) * (math.log(n) - least) / max(most - least, 1e-9), 1)

    def y(accuracy: float) -> float:
        return round(low - (low - high) * (accuracy / step - bottom) / max(top - bottom, 1), 1)

    last = means[-1]
    upper = [(f.n, f.high) for f in forecasts]
    lower = [(f.n, f.low) for f in reversed(forecasts)]

    def points(pairs: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x(n)},{y(accuracy)}" for n, accuracy in pairs)

    return {
        "label": f"accuracy from {sizes[0]:,} to {sizes[-1]:,} labelled images"
        + (", and what more would bring" if forecasts else ""),
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "bottom": low,
        "levels": [{"at": y(i * step), "name": f"{i * step:.0%}"} for i in range(bottom, top + 1)],
        "sizes": [{"at": x(n), "name": f"{n:,}"} for n in [*sizes, *(f.n for f in forecasts)]],
        "line": points(means),
        "dots": [(x(n), y(accuracy)) for n, accuracy in draws],
        "dashed": points([last, *((f.n, f.accuracy) for f in forecasts)]) if forecasts else "",
        "band": points([last, *upper, *lower]) if forecasts else "",
        "ends": [(x(f.n), y(f.low), y(f.high), y(f.accuracy)) for f in forecasts],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _data_uri(image: Any, side: int = 160) -> str:
    """A small copy: lossless where that is small, as it is for icons and digits."""
    small = image.copy()
    small.thumbnail((side, side))
    kind, buffer = "png", io.BytesIO()
    small.save(buffer, "PNG")
    if buffer.tell() > _LOSSLESS:
        kind, buffer = "jpeg", io.BytesIO()
        small.save(buffer, "JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _controls(report: ProbeReport) -> Table:
    scores = {f"frozen features, {report.layers.chosen}": report.score, **report.controls}
    rows = [(name, f"{s.accuracy:.1%}", _interval(s), render("app/bar.html", score=s)) for name, s in scores.items()]
    return Table(("probe on", "accuracy", "95 % interval", "0 to 100 %"), rows, numeric=range(1, 4), chosen=0)


def _reasons(report: ProbeReport) -> Table:
    rows = [(r.criterion, r.finding, r.favours or "undecided") for r in report.advice.reasons]
    return Table(("criterion", "found", "favours"), rows)


def _layers(report: ProbeReport) -> Table:
    rows = []
    for name, probe in report.layers.probes.items():
        s, mark = report.layer_scores[name], " ←" if name == report.layers.chosen else ""
        chosen_by = f"{probe.choice_score:.1%}{mark}"
        rows.append(
            (
                name,
                f"{probe.n_features:,}",
                chosen_by,
                f"{s.accuracy:.1%}",
                _interval(s),
                render("app/bar.html", score=s),
            )
        )
    kind = "cross-validated" if report.folds else "test"
    columns = ("layer", "features", "leave-one-out", kind, "95 % interval", "0 to 100 %")
    chosen = list(report.layers.probes).index(report.layers.chosen)
    return Table(columns, rows, numeric=range(1, 6), chosen=chosen)


def _classes(report: ProbeReport) -> Table:
    rows = []
    confusion = report.score.confusion
    for k, name in enumerate(report.train.classes):
        n, right = int(confusion[k].sum()), int(confusion[k, k])
        others = confusion[k].clone()
        others[k] = 0
        rival = report.train.classes[int(others.argmax())] if int(others.sum()) else "–"
        counts = [f"{n:,}"] if report.folds else [f"{int((report.train.labels == k).sum()):,}", f"{n:,}"]
        rows.append((name, *counts, f"{right / n:.1%}" if n else "–", rival))
    counted = ["images"] if report.folds else ["to learn from", "tested"]
    columns = ("class", *counted, "right", "most often taken for")
    return Table(columns, rows, numeric=range(1, len(columns) - 1))


def _interval(score: Score) -> str:
    return f"{score.low:.1%} to {score.high:.1%}"
