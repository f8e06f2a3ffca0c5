"""A `ProbeReport` as one self-contained HTML page: no script, no address outside it, both themes."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

from frozenkit import __version__
from frozenkit.app.report import ProbeReport
from frozenkit.errors import printable
from frozenkit.probes.scores import Score

_MOST_WRONG = 12  # pictures
_MOST_CLASSES = 15  # of a confusion matrix that can be read
_MOST = 100  # entries of a list

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5c6570; --line: #d9dee4; --page: #fff; --card: #f5f7f9;
        --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceff2; --soft: #a3adb8; --line: #3a434d; --page: #14181c; --card: #1d2329; --mark: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 4rem; background: var(--page); color: var(--ink);
       font: 17px/1.55 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; }
p.soft, figcaption, footer { color: var(--soft); }
.answer { display: flex; gap: 1.6rem; align-items: center; flex-wrap: wrap; padding: 1.4rem 1.6rem; margin: 1.4rem 0;
          background: var(--card); border-left: 6px solid var(--mark); border-radius: 6px; }
.answer b { font-size: 3rem; line-height: 1; white-space: nowrap; }
.answer div { flex: 1 1 20rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child, td:first-child, .words { text-align: left; }
td.words { white-space: normal; }
th { color: var(--soft); font-weight: 600; }
tr.chosen td { font-weight: 700; background: var(--card); }
.scroll { overflow-x: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.6rem, 1fr)); gap: 1rem; padding: 0;
            list-style: none; }
.pictures li { font-size: .85rem; line-height: 1.3; overflow-wrap: anywhere; }
.pictures img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; border: 1px solid var(--line);
                border-radius: 6px; }
.bar { position: relative; height: 1.1rem; min-width: 12rem; background: var(--card); border-radius: 3px; }
.bar i { position: absolute; top: .4rem; height: .3rem; background: var(--mark); opacity: .55; border-radius: 2px; }
.bar u { position: absolute; top: .15rem; width: .8rem; height: .8rem; margin-left: -.4rem; border-radius: 50%;
         background: var(--mark); }
.confusion { width: auto; }
.confusion td, .confusion th { text-align: center; padding: .35rem .6rem; }
.confusion tbody th { text-align: left; }
.confusion tbody td { background: color-mix(in srgb, #d55e00 var(--share), transparent); min-width: 3rem; }
.confusion tbody td.right { background: color-mix(in srgb, var(--mark) var(--share), transparent); }
code { background: var(--card); padding: .1em .35em; border-radius: 4px; }
.soft code { white-space: nowrap; }
.pictures code { font-size: .92em; padding: 0; background: none; color: var(--soft); }
footer { margin-top: 2.6rem; border-top: 1px solid var(--line); }
"""


def to_html(report: ProbeReport, *, command: str = "frozenkit probe") -> str:
    """The page; every name from data is escaped.

    Args:
        report: From `probe_report`.
        command: What produced it, shown at the end.
    """
    score, chosen = report.score, report.layers.chosen
    wrong = report.wrong()
    predicted = report.probabilities.argmax(1)
    labels, classes = report.labels, report.train.classes
    captions = [
        f"{_text(classes[int(labels[i])])}, taken for {_text(classes[int(predicted[i])])}"
        f"<br><code>{_text(report.ids[i])}</code>"
        for i in wrong[:_MOST_WRONG]
    ]
    more = f"<p>The first {_MOST_WRONG} of {len(wrong):,}.</p>" if len(wrong) > _MOST_WRONG else ""
    source = "from the cache" if report.from_cache else "computed"
    pictures = (
        f"{report.n_train:,} pictures"
        if report.folds
        else f"{len(report.train):,} pictures to learn from, {len(report.test):,} to report on"
    )
    reported = "pictures, each judged by a probe that never saw it," if report.folds else "test pictures"
    parts = [
        f"<h1>{_text(report.train.name)}: how far do frozen features get?</h1>",
        f'<p class="soft">{pictures}, {len(classes)} classes. Backbone {_text(report.backbone)} at '
        f"{report.image_size} pixels, never changed; features {source} in {report.seconds:.1f}&nbsp;s.</p>",
        f'<div class="answer"><b>{score.accuracy:.1%}</b><div>of the {reported} right (95 % interval '
        f"{score.low:.1%} to {score.high:.1%}), with a linear head on layer <code>{_text(chosen)}</code>, which "
        f"leave-one-out chooses. {_text(report.verdict)}</div></div>",
        f'<p class="soft">{_text(report.method)}</p>',
        "<h2>What it looks at</h2>",
        _pictures([(report.train[row][0], _text(classes[report.train[row][1]])) for row in _one_a_class(report)]),
        "<h2>Beside its controls</h2>",
        "<p>The same pictures and the same head, without what the backbone is said to bring.</p>",
        _score_table({f"frozen features, {chosen}": score, **report.controls}, f"frozen features, {chosen}"),
        "<h2>Freeze, or fine-tune?</h2>",
        _advice(report),
        "<h2>Layer by layer</h2>",
        f"<p>Leave-one-out accuracy chooses (←); the {'cross-validated' if report.folds else 'test'} column is only "
        "reported.</p>",
        _layer_table(report),
        "<h2>Class by class</h2>",
        _class_table(report),
        _confusion(report),
        "<h2>Most confidently wrong</h2>",
        _pictures([(report.picture(i)[0], caption) for i, caption in zip(wrong, captions)]) + more
        if wrong
        else "<p>Not one picture was wrong.</p>",
        _copies(report),
        _skipped(report),
        f"<footer><p>Made by <code>{_text(command)}</code>, frozenkit {__version__}. Intervals: Wilson, 95 %"
        f"{', counting 1.5 cross-validated pictures as one' if report.folds else ''}. The frozen probe can always "
        "be kept, so transfer reaches at least that; a given fine-tuning run may end above it or below.</p></footer>",
    ]
    title = _text(f"{report.train.name}: frozen features")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _one_a_class(report: ProbeReport) -> list[int]:
    """Up to three training pictures a class, 18 in all."""
    labels = report.train.labels
    each = max(1, min(3, 18 // len(report.train.classes)))
    rows = [(labels == k).nonzero().flatten()[:each].tolist() for k in range(len(report.train.classes))]
    return [row for found in rows for row in found][:18]


def _pictures(shown: Sequence[tuple[Any, str]]) -> str:
    """Pictures with their captions, which are HTML already."""
    items = [f'<li><img alt="" src="{_data_uri(picture)}">{caption}</li>' for picture, caption in shown]
    return f'<ul class="pictures">{"".join(items)}</ul>'


def _data_uri(picture: Any) -> str:
    small = picture.copy()
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _score_table(scores: dict[str, Score], chosen: str) -> str:
    rows = [
        (name, [f"{s.accuracy:.1%}", f"{s.low:.1%} to {s.high:.1%}"], _bar(s), name == chosen)
        for name, s in scores.items()
    ]
    return _table(["probe on", "accuracy", "95 % interval", "0 to 100 %"], rows)


def _layer_table(report: ProbeReport) -> str:
    rows = []
    for name, probe in report.layers.probes.items():
        s = report.layer_scores[name]
        chosen = name == report.layers.chosen
        cells = [f"{probe.n_features:,}", f"{probe.choice_score:.1%}{' ←' if chosen else ''}", f"{s.accuracy:.1%}"]
        rows.append((name, [*cells, f"{s.low:.1%} to {s.high:.1%}"], _bar(s), chosen))
    kind = "cross-validated" if report.folds else "test"
    return _table(["layer", "features", "leave-one-out", kind, "95 % interval", "0 to 100 %"], rows)


def _advice(report: ProbeReport) -> str:
    advice = report.advice
    rows = [(r.criterion, [r.finding, r.favours or "undecided"], "", False) for r in advice.reasons]
    table = _table(["criterion", "found", "favours"], rows, words=("found", "favours"))
    return (
        f"<p><b>{_text(advice.choice.capitalize())}.</b> {_text(advice.next_step)}</p>"
        f"{table}"
        '<p class="soft">The questions decide, in order; published rules of thumb stand beside them. Say more with '
        "<code>--target-accuracy</code> and <code>--similarity</code>.</p>"
    )


def _class_table(report: ProbeReport) -> str:
    rows = []
    confusion = report.score.confusion
    for k, name in enumerate(report.train.classes):
        n, right = int(confusion[k].sum()), int(confusion[k, k])
        others = confusion[k].clone()
        others[k] = 0
        rival = report.train.classes[int(others.argmax())] if int(others.sum()) else "–"
        counts = [f"{n:,}"] if report.folds else [f"{int((report.train.labels == k).sum()):,}", f"{n:,}"]
        rows.append((name, [*counts, f"{right / n:.1%}" if n else "–", rival], "", False))
    head = ["pictures"] if report.folds else ["to learn from", "tested"]
    taken = "most often taken for"
    return _table(["class", *head, "right", taken], rows, words=(taken,))


def _confusion(report: ProbeReport) -> str:
    """Row: what it is; column: what it was taken for; darker is more of the row."""
    classes = report.train.classes
    if len(classes) > _MOST_CLASSES:
        return ""
    titles = "".join(f"<th>{_text(name)}</th>" for name in classes)
    body = []
    for k, name in enumerate(classes):
        row = report.score.confusion[k].tolist()
        cells = "".join(
            f'<td style="--share:{70 * count / max(1, sum(row)):.0f}%"{" class=right" if j == k else ""}>'
            f"{f'{count:,}' if count else '·'}</td>"
            for j, count in enumerate(row)
        )
        body.append(f"<tr><th>{_text(name)}</th>{cells}</tr>")
    return (
        "<p>Each row is a class, each column what its pictures were taken for.</p>"
        f'<div class="scroll"><table class="confusion"><thead><tr><td></td>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str, bool]], words: Sequence[str] = ()) -> str:
    """Rows of (name, cells, bar, whether it stands out); `words` are the columns of text, which begin at the left."""
    kinds = [' class="words"' if title in words else "" for title in head]
    titles = "".join(f"<th{kind}>{_text(title)}</th>" for kind, title in zip(kinds, head))
    body = []
    for name, cells, bar, chosen in rows:
        inner = "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, [name, *cells]))
        inner += f"<td>{bar}</td>" if bar else ""
        body.append(f'<tr class="chosen">{inner}</tr>' if chosen else f"<tr>{inner}</tr>")
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _bar(score: Score) -> str:
    width = 100 * (score.high - score.low)
    interval = f'<i style="left:{100 * score.low:.1f}%;width:{width:.1f}%"></i>'
    return f'<div class="bar" aria-hidden="true">{interval}<u style="left:{100 * score.accuracy:.1f}%"></u></div>'


def _copies(report: ProbeReport) -> str:
    groups = report.copies
    if not groups:
        return ""
    items = "".join(
        f"<li>{' = '.join(f'<code>{_text(name)}</code>' for name in group)}</li>" for group in groups[:_MOST]
    )
    more = f"<p>… and {len(groups) - _MOST:,} more groups.</p>" if len(groups) > _MOST else ""
    return (
        f"<h2>Equal pictures</h2><p>{sum(map(len, groups)):,} pictures in {len(groups):,} "
        f"group{'s' * (len(groups) > 1)}, equal pixel by pixel. They are kept on one side of every split; "
        f"leave-one-out sees them all the same, and flatters.</p><ul>{items}</ul>{more}"
    )


def _skipped(report: ProbeReport) -> str:
    skipped = report.train.skipped
    if not skipped:
        return ""
    items = "".join(f"<li>{_text(name)}: {_text(reason)}</li>" for name, reason in skipped[:_MOST])
    more = f"<p>… and {len(skipped) - _MOST:,} more.</p>" if len(skipped) > _MOST else ""
    return f"<h2>Left out</h2><ul>{items}</ul>{more}"


def _text(text: object) -> str:
    return html.escape(printable(text), quote=True)
