"""A probe as JSON and tensors: what its file holds, and its part of a classifier's."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from frozenkit import __version__
from frozenkit.heads.stored import describe_head

VERSION = 1  # of what `describe_probe` says; raise it whenever an older reader would misread it
# What a file holds as it is; not the path of strengths and the log of training, which are as long as they are of use
# only to whoever has just fitted it.
PLAIN: tuple[str, ...] = ("kind", "classes", "layer", "n_features", "n_train", "label_shape", "strength")
PLAIN += ("chosen_on", "choice_score", "temperature", "settings", "given")
LEFT_OUT = ("strength_path", "log")


def describe_probe(probe: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON that says what a `Probe` is, and the tensors of its head.

    Raises:
        InputError: As `describe_head` does.
    """
    said, tensors = describe_head(probe.head)
    return {**probe_facts(probe), "head": said}, tensors


def probe_facts(probe: Any) -> dict[str, Any]:
    """JSON of all that is known of a `Probe` beside its head."""
    about = {name: getattr(probe, name) for name in PLAIN}
    assert {*about, "head", "present", "origin", *LEFT_OUT} == {field.name for field in fields(probe)}
    return about | {
        "present": probe.present.tolist(),
        "origin": probe.origin.to_ingredients() if probe.origin else None,
        "frozenkit": __version__,
    }
