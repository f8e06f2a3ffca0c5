"""A `ProbeReport` as one self-contained HTML page: no script, no address outside it, both themes."""

import base64
import io
from typing import Any

from frozenkit import __version__
from frozenkit._outputs import Table, render
from frozenkit.app.report import ProbeReport
from frozenkit.probes.scores import Score

_MOST_WRONG = 12  # images
_MOST_CLASSES = 15  # of a confusion matrix that can be read
_MOST = 100  # entries of a list


def to_html(report: ProbeReport, *, command: str = "frozenkit probe") -> str:
    """The page; every name from data is escaped.

    Args:
        report: From `probe_report`.
        command: What produced it, shown at the end.
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
        most=_MOST,
        most_classes=_MOST_CLASSES,
    )


def _few_per_class(report: ProbeReport) -> list[int]:
    """Up to three training images per class, 18 in all."""
    labels = report.train.labels
    each = max(1, min(3, 18 // len(report.train.classes)))
    rows = [(labels == k).nonzero().flatten()[:each].tolist() for k in range(len(report.train.classes))]
    return [row for found in rows for row in found][:18]


def _data_uri(image: Any) -> str:
    small = image.copy()
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
