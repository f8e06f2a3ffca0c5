"""Zero-shot: a head that needed no image of yours, from the pretrained classifier's own rows or from words.

A classifier holds, for each class that it was trained on, a direction in feature space. For a class of yours that
resembles some of them, their mean is a prototype. A backbone with a text tower has a direction for every sentence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenkit._arrays import check_classes, described
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.probes.scores import Score, score

# What a class's name is put into where the backbone has a text tower.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of a small {}.",
    "a photo of a large {}.",
    "a drawing of a {}.",
)


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 names of ImageNet's classes, in the order of the logits; doubled names carry their index.

    Example:
        >>> names = imagenet_classes()
        >>> len(names), names[0], names.index("running shoe")
        (1000, 'tench', 770)
    """
    from torchvision.models import ResNet18_Weights

    names = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names))


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """A head made without one labelled image.

    Attributes:
        weights: (d, k) mean of the classifier's rows of each class's relatives; from words, directions of length 1.
        intercept: (k,) mean of their biases; from words 0, which leaves the order of the cosines.
        classes: k names.
        relatives: Class to the names that stand for it.
        layer: Whose features it reads.
        templates: What the names were put into; empty where no words were read.
    """

    weights: Tensor
    intercept: Tensor
    classes: tuple[str, ...]
    relatives: dict[str, tuple[str, ...]]
    layer: str
    templates: tuple[str, ...] = ()

    def predict(self, features: FeatureSet) -> Tensor:
        """(n,) int64 class indices."""
        if features.layer != self.layer:
            raise InputError(f"`features` must be of {self.layer!r}, as the classifier's are, got {features.layer!r}.")
        return (features.features @ self.weights + self.intercept).argmax(1)

    def score(self, test: FeatureSet) -> Score:
        """The `Score` on images that nothing was fitted on; there is no other kind here."""
        check_classes("test", test.classes, self.classes)
        return score(self.predict(test), test.labels, n_classes=len(self.classes), classes=self.classes)

    def __repr__(self) -> str:
        pairs = "; ".join(f"{name}: {', '.join(names)}" for name, names in self.relatives.items())
        words = f", {len(self.templates)} templates" if self.templates else ""
        return f"ZeroShot({len(self.classes)} classes on {self.layer!r}{words}. {pairs})"


def zero_shot(
    backbone: Backbone,
    relatives: Mapping[str, Sequence[str]] | Sequence[str],
    *,
    known: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> ZeroShot:
    """A classifier for new classes without any image of them.

    With a text tower (see `Backbone.encode_text`), a class is the direction of its name: the name is put into each
    template, each sentence becomes a direction of length 1, and their mean is brought to length 1 again, as Radford et
    al. do (2021, section 3.1.4). Without one, a class is the mean row of its relatives in the backbone's own
    classifier.

    Args:
        backbone: With a text tower, or with its pretrained classifier on, the last `nn.Linear`.
        relatives: Class → names that stand for it, at least one each: of the backbone's own classes that resemble it,
            or, with a text tower, any words instead of the class's name. A list of classes stands for themselves.
        known: The backbone's own class names; default ImageNet's. Not for a text tower, which knows words.
        templates: Sentences with a gap ``{}`` for the name; ``["{}"]`` if the relatives are whole sentences.

    Returns:
        A `ZeroShot` for features of ``backbone.default_layer``, of a classifier what it reads: the default of
        `extract`.

    Raises:
        UnknownNameError: If a relative is not among the known names.
        InputError: If the backbone has no linear classifier with that many outputs, a class has no relative, or a
            template no gap.

    Example:
        >>> from frozenkit import load_backbone
        >>> shoes = zero_shot(load_backbone(device="cpu"), {"shoe": ["running shoe"], "bag": ["backpack", "purse"]})
        >>> shoes.weights.shape
        torch.Size([1280, 2])

    References:
        Radford et al. 2021, Learning transferable visual models from natural language supervision, section 3.1.4.
    """
    check_backbone(backbone)
    named = _check_relatives(relatives)
    if backbone.text is not None:
        if known is not None:
            raise InputError(f"`known` must be left out: {backbone.name} has a text tower, to which any word is known.")
        return _from_words(backbone, named, templates)
    names = tuple(known) if known is not None else imagenet_classes()
    trace = backbone.trace()
    modules = [backbone.module.get_submodule(name) for name in trace.classifiers]
    linear = [m for m in modules if isinstance(m, nn.Linear)]
    if not linear or linear[-1].out_features != len(names):
        outputs = linear[-1].out_features if linear else "no linear layer"
        raise InputError(f"the backbone's classifier must have {len(names)} outputs, got {outputs}. Give `known`.")
    # Logits that are the mean of several classifiers' are one linear map of what these read, side by side.
    weight = torch.cat([m.weight.detach().cpu().float() for m in linear], 1) / len(linear)
    bias = torch.stack(
        [torch.zeros(len(names)) if m.bias is None else m.bias.detach().cpu().float() for m in linear]
    ).mean(0)
    rows, biases = [], []
    for relations in named.values():
        for relation in relations:
            if relation not in names:
                raise UnknownNameError("relative", relation, names)
        index = torch.tensor([names.index(relation) for relation in relations])
        rows.append(weight[index].mean(0))
        biases.append(bias[index].mean())
    return ZeroShot(torch.stack(rows, 1), torch.stack(biases), tuple(named), named, trace.penultimate)


def _from_words(backbone: Backbone, named: dict[str, tuple[str, ...]], templates: Sequence[str]) -> ZeroShot:
    given = () if isinstance(templates, str) else tuple(templates)
    if not given or not all(isinstance(template, str) and "{}" in template for template in given):
        raise InputError(
            f"`templates` must be a list of sentences with a gap {{}} for the name, got {templates!r:.80}. "
            f"Such as {TEMPLATES[0]!r}."
        )
    columns = []
    for names in named.values():
        # Not str.format, in which a name's braces would mean something.
        directions = backbone.encode_text([template.replace("{}", name) for name in names for template in given])
        columns.append(nn.functional.normalize(directions.mean(0), dim=0))
    intercept = torch.zeros(len(columns))
    return ZeroShot(torch.stack(columns, 1), intercept, tuple(named), named, backbone.default_layer, given)


def _check_relatives(relatives: Mapping[str, Sequence[str]] | Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Class to the names that stand for it, from either form."""
    if not isinstance(relatives, Mapping):
        names = [] if isinstance(relatives, str) or not isinstance(relatives, Iterable) else list(relatives)
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise InputError(
                "`relatives` must give the names that stand for each class, {class: [name, …]}, or a list of different "
                f"classes that stand for themselves, got {described(relatives)}."
            )
        relatives = {name: [name] for name in names}
    if not relatives:
        raise InputError("`relatives` must give at least one class, got none.")
    for name, relations in relatives.items():
        is_list = isinstance(relations, Iterable) and not isinstance(relations, str)
        if not is_list or not [*relations] or not all(isinstance(relation, str) for relation in relations):
            raise InputError(f"`relatives` must give a list of names for {name!r}, got {relations!r}.")
    return {name: tuple(relations) for name, relations in relatives.items()}
