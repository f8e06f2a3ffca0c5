"""The few lines of Python that fit a probe again."""

import re
from collections.abc import Mapping
from typing import Any

_TO_FILL_IN = "  # TO FILL IN: "
_OWN_HEADS = ("LinearHead", "MLPHead", "AttentionHead", "EfficientProbeHead", "PrototypicalHead", "LayerMixHead")


def probe_recipe(facts: Mapping[str, Any]) -> str:
    """Python code after which ``probe`` is the probe of which `probe_facts` said this, and ``backbone`` its backbone.

    What is not known stands there as ``...``, with a comment that begins with ``TO FILL IN``.
    """
    names = {"fit_probe"}
    lines = _features(facts, names)
    arguments, more = _arguments(facts, names)
    lines.append(f"probe = fit_probe({', '.join(['train', *arguments])}){more}")
    by_folds = facts["kind"] == "softmax" and "val" not in facts["given"]
    if "val" in facts["given"] or by_folds:
        lines.append(f"probe = replace(probe, temperature={facts['temperature']!r})  # as it was calibrated then")
    head = [f"from frozenkit import {', '.join(sorted(names, key=str.lower))}", ""]
    if lines[-1].startswith("probe = replace"):
        head.insert(0, "from dataclasses import replace\n")
    return "\n".join([*head, *lines])


def _features(facts: Mapping[str, Any], names: set[str]) -> list[str]:
    """Lines after which ``train`` holds the features."""
    origin, layers = facts["origin"], facts["layer"].split("+")
    if not origin:
        size = f"{facts['n_train']} × {facts['n_features']} features of {facts['layer']!r}"
        return [f"train = ...{_TO_FILL_IN}the {size}, with labels"]
    if code := origin["code"]:
        names.add(code.partition("(")[0])
        lines = [f"images = {code}"]
    else:
        lines = [f"images = ...{_TO_FILL_IN}the {origin['n']} images of {origin['dataset']!r}, with labels"]
    name, size = origin["backbone"], origin["image_size"]
    known = name.removesuffix(" (random weights)")
    if name == "custom":
        lines.append(f"backbone = ...{_TO_FILL_IN}your Backbone, for images of {size} px")
    elif known != name:
        names.add("load_backbone")
        lines.append(f"backbone = load_backbone({known!r}, weights=None, image_size={size}){_TO_FILL_IN}seed=…")
    elif chosen := re.fullmatch(r"(\S+) \(([A-Z0-9_]+)\)", name):  # such as resnet50 (IMAGENET1K_V1)
        names.add("load_backbone")
        lines.append(f"backbone = load_backbone({chosen[1]!r}, weights={chosen[2]!r}, image_size={size})")
    else:
        names.add("load_backbone")
        lines.append(f"backbone = load_backbone({name!r}, image_size={size})")
    how = f"pooling={origin['pooling']!r}, precision={origin['precision']!r}"
    if len(layers) == 1:
        names.add("extract")
        lines.append(f"train = extract(backbone, images, layer={layers[0]!r}, {how})")
    else:
        names |= {"extract_layers", "combine"}
        mean = f"{_TO_FILL_IN}how='mean', if that is how they were combined"
        lines.append(f"train = combine(extract_layers(backbone, images, layers={layers}, {how})){mean}")
    if facts["n_train"] != origin["n"]:
        rows = f"the {facts['n_train']} of these {origin['n']} images that were fitted on"
        lines.append(f"train = train[...]{_TO_FILL_IN}{rows}")
    return lines


def _arguments(facts: Mapping[str, Any], names: set[str]) -> tuple[list[str], str]:
    """Arguments of `fit_probe`, and a comment."""
    given, kind, more = dict(facts["given"]), facts["kind"], []
    known_heads = ("ridge", "softmax", "prototype", "knn", "logistic")
    arguments = [f"head={kind!r}" if kind in known_heads else "head=..."]
    if kind not in known_heads:
        more.append(
            f"a new {kind}, built as that one was; its first weights are drawn, so that numbers differ a little"
        )
        names |= {kind} & {*_OWN_HEADS}
    if facts["strength"] is not None:
        arguments.append(f"strengths=[{facts['strength']!r}]")
    had_val = given.pop("val", None) is not None
    if had_val and (kind not in known_heads or (kind == "knn" and facts["chosen_on"] == "val")):
        arguments.append("val=...")
        more.append("the images that it was chosen on")
    for name, value in given.items():
        arguments.append(f"{name}={'...' if value == '…' else repr(value)}")
        if value == "…":
            more.append(f"the {name} that was given")
    return arguments, _TO_FILL_IN + "; ".join(more) if more else ""
