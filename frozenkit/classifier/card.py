"""The card of a classifier: what it is, in Markdown, beside its file."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from frozenkit._files import disk_errors, write_sealed, written_aside
from frozenkit._outputs import printable
from frozenkit.errors import InputError
from frozenkit.probes.recipe import probe_recipe

VERSION = 1  # of what a classifier's file says; raise it whenever an older reader would misread it
_MARK = "<!-- Written by frozenkit: changes are lost when the classifier is saved again. -->"


def as_facts(name: str, scores: Any) -> dict[str, str]:
    """Name to text, of one score, or of several by name.

    Raises:
        InputError: If `scores` is neither.
    """
    if scores is None:
        return {}
    given = scores if isinstance(scores, Mapping) else {"test": scores}
    if any(isinstance(value, Tensor | list | dict | type) or value is None for value in given.values()):
        raise InputError(f"`{name}` must be a Score, or a mapping of names to scores, got {scores!r:.100}.")
    return {str(key): f"{value:.3f}" if isinstance(value, float) else str(value) for key, value in given.items()}


def check_card_place(path: Path) -> None:
    """Raises an `InputError` if there is a file in the place of this classifier's card that is none of ours."""
    card = path.with_suffix(".md")
    with disk_errors(card):
        if os.path.lexists(card) and not (card.is_file() and card.read_bytes().startswith(_MARK.encode())):
            raise InputError(
                f"{card} is in the way of the card that is written beside the classifier, and is no such card. Rename "
                "it, or choose another name."
            )


def write_with_card(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a classifier's file, and its card beside it.

    Raises:
        InputError: If there is a file in the card's place that is none of ours; nothing is written then.
        CacheError: If a file cannot be written.
    """
    check_card_place(path)
    card = path.with_suffix(".md")
    with disk_errors(card), written_aside(card) as part:
        seal = write_sealed(path, "classifier", VERSION, about, tensors)
        part.write_text(card_text(path.name, about, seal), encoding="utf-8")


def card_text(file: str, about: Mapping[str, Any], seal: str) -> str:
    """The card, as Markdown; names from data are text in it, whatever they hold."""
    facts, backbone = about["facts"] or {}, about["backbone"]
    origin = facts.get("origin") or {}
    name = Path(file).stem
    is_multilabel = bool(about["classes"] and facts.get("label_shape"))
    task = ", ".join(_escaped(each) for each in about["classes"]) or "numbers"
    what = "An image classifier" if about["classes"] else "A regression"
    lines = [
        _MARK,
        f"# {_escaped(name)}",
        "",
        f"{what} on frozen features: a pretrained network that was not changed, and a small head on it.",
    ]
    if about["notes"]:
        lines += ["", _escaped(about["notes"])]
    lines += [
        "",
        "## What it is",
        "",
        f"- It tells{', each by itself' if is_multilabel else ''}: {task}",
        f"- Backbone: {_escaped(backbone['name'])}, {backbone['parameters'] / 1e6:.1f} M parameters, "
        f"images of {backbone['image_size']} px",
        f"- Features: {_escaped(' + '.join(about['layers']))}, pooling {_escaped(about['pooling'])}",
    ]
    if facts:
        strength = "" if facts["strength"] is None else f", strength {facts['strength']:.3g}"
        lines += [
            f"- Head: {_escaped(facts['kind'])}{strength}, chosen by {_escaped(facts['chosen_on'])} "
            f"({facts['choice_score']:.3f} there, which flatters)",
            f"- Fitted on {facts['n_train']} images" + (f" of {_escaped(origin['dataset'])}" if origin else ""),
        ]
        missing = [c for i, c in enumerate(facts["classes"]) if facts["present"] and i not in facts["present"]]
        if missing:
            lines.append(f"- Never predicted, for want of a training image: {', '.join(map(_escaped, missing))}")
    if about["is_changed"]:
        lines.append("- The head has been changed since it was fitted: nothing above says how.")
    lines += ["", "## How good it is", ""]
    lines += [f"- {_escaped(key)}: {_escaped(value)}" for key, value in about["scores"].items()]
    lines += [f"- control, {_escaped(key)}: {_escaped(value)}" for key, value in about["controls"].items()]
    lines += [] if about["scores"] else ["- No score on images that took no part in fitting was given."]
    if about["scores"] or about["controls"]:
        lines += ["- In brackets: intervals for the images at hand; other images may be another domain."]
    lines += ["", "## Limits", ""]
    lines += ["- The backbone was not adapted: what its pretraining ignores, the head cannot see."]
    if is_multilabel:
        lines += ["- Each label is decided by itself: an image may get several, or none."]
    elif about["classes"]:
        lines += ["- It knows no 'none of these': every image gets one of its classes."]
    if about["classes"]:
        calibrated = about["temperature"] != 1
        lines.append(
            f"- Probabilities are calibrated by one temperature ({about['temperature']:.3g}), on images like those of "
            "train." if calibrated else "- Probabilities are not calibrated."
        )  # fmt: skip
    lines += [f"- {_LICENCES.get(backbone['name'], 'The licence of the weights is that of their source: look there.')}"]
    if facts and not about["is_changed"]:
        lines += ["", "## How it was made", "", "```python", probe_recipe(facts), "```"]
    lines += [
        "",
        "## How to use it",
        "",
        "```python",
        "from frozenkit import load_classifier",
        "",
        f"model = load_classifier({file!r}{'' if backbone['loaded'] else ', backbone=…'})",
        'found = model.predict("folder/of/images")',
        "print(found)",
        'found.to_csv("found.csv")',
        "```",
        "",
        f"Written by frozenkit {about['frozenkit']}; sha256 {seal}",
        "",
    ]
    return "\n".join(lines)


_LITE = "The weights of the backbone are Apache 2.0, © The TensorFlow Authors."
_LICENCES = {"efficientnet-lite0": _LITE, "efficientnet-lite2": _LITE}


def _escaped(text: object) -> str:
    """Text in which Markdown and HTML see nothing but text."""
    return (
        re.sub(r"([\\`*_{}\[\]()#+!|<>&~$:@-])", r"\\\1", printable(text))
        .replace("\\<", "&lt;")
        .replace("\\&", "&amp;")
    )
