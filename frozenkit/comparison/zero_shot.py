"""Zero-shot: the pretrained classifier's own rows as the head, for classes that have relatives among its own.

A classifier holds, for each class that it was trained on, a direction in feature space. For a class of yours that
resembles some of them, their mean is a prototype that needed no image of yours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenkit._arrays import check_classes
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.probes.scores import Score, score


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
        weights: (d, k) mean of the classifier's rows of each class's relatives.
        intercept: (k,) mean of their biases.
        classes: k names.
        relatives: Class to the names that stand for it.
        layer: Whose features it reads.
    """

    weights: Tensor
    intercept: Tensor
    classes: tuple[str, ...]
    relatives: dict[str, tuple[str, ...]]
    layer: str

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
        return f"ZeroShot({len(self.classes)} classes on {self.layer!r}. {pairs})"


def zero_shot(
    backbone: Backbone, relatives: Mapping[str, Sequence[str]], *, known: Sequence[str] | None = None
) -> ZeroShot:
    """A classifier for new classes from the backbone's own classifier, without any image of them.

    Args:
        backbone: With its pretrained classifier on, the last `nn.Linear`.
        relatives: Class → names of the backbone's own classes that resemble it, at least one each.
        known: The backbone's own class names; default ImageNet's.

    Returns:
        A `ZeroShot` for features of the penultimate layer, ``backbone.trace().penultimate``, which the classifier
        reads: the default of `extract`.

    Raises:
        UnknownNameError: If a relative is not among the known names.
        InputError: If the backbone has no linear classifier with that many outputs, or a class has no relative.

    Example:
        >>> from frozenkit import load_backbone
        >>> shoes = zero_shot(load_backbone(device="cpu"), {"shoe": ["running shoe"], "bag": ["backpack", "purse"]})
        >>> shoes.weights.shape
        torch.Size([1280, 2])
    """
    check_backbone(backbone)
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
    for name, relations in relatives.items():
        if not relations or isinstance(relations, str):
            raise InputError(f"`relatives` must give a list of names for {name!r}, got {relations!r}.")
        for relation in relations:
            if relation not in names:
                raise UnknownNameError("relative", relation, names)
        index = torch.tensor([names.index(relation) for relation in relations])
        rows.append(weight[index].mean(0))
        biases.append(bias[index].mean())
    return ZeroShot(
        torch.stack(rows, 1),
        torch.stack(biases),
        tuple(relatives),
        {name: tuple(relations) for name, relations in relatives.items()},
        trace.penultimate,
    )
