"""A backbone and its head as the training loop takes them: what moves, the batches' losses, the score on val."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from frozenkit._arrays import whole_number
from frozenkit._devices import PRECISIONS, resolve_precision
from frozenkit._loop import adamw, cosine, judge, mean_loss
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.extraction.decoding import decode_batches
from frozenkit.heads.modules import LinearHead
from frozenkit.images.dataset import ImageDataset
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.layers import pooled_activations

AUGMENTATIONS = ("none", "flip", "crop")
WEIGHT_DECAY = 1e-2
WARM_UP = 0.1  # of all steps; the first steps of Adam know nothing of the size of the gradients


@dataclass(frozen=True)
class TuningSettings:
    """How a network is tuned; each means what it means in `finetune`. NumPy's whole numbers become Python's.

    Raises:
        InputError: If one is out of range (`UnknownNameError` for a name).
    """

    unfreeze: str | int = "all"
    epochs: int = 5
    batch_size: int = 32
    batch_norm: str = "eval"
    augment: str = "none"
    precision: str = "auto"
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("seed", 0)):
            if name != "patience" or self.patience is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name, known in (
            ("batch_norm", ("eval", "train")),
            ("augment", AUGMENTATIONS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        if isinstance(self.unfreeze, Integral) and not isinstance(self.unfreeze, bool):
            object.__setattr__(self, "unfreeze", int(self.unfreeze))


class Tuning:
    """One network and its head, to be trained in place.

    Args:
        backbone: A copy of its own; its `default_layer` is what the head reads.
        head: Moved to the backbone's device.
        train: What is trained on.
        val: What `evaluate` looks at.
        settings: How.

    Attributes:
        module: Backbone and head as one module.
        n_batches: Per epoch.
    """

    def __init__(
        self, backbone: Backbone, head: LinearHead, train: ImageDataset, val: ImageDataset, settings: TuningSettings
    ) -> None:
        self.backbone, self.head, self.train, self.val = backbone, head.to(backbone.device), train, val
        self.settings = settings
        self.module = nn.ModuleDict({"backbone": backbone.module, "head": head})
        self.is_fast = resolve_precision(settings.precision, backbone.device.type, training=True) == "fast"
        self.n_batches = max(1, math.ceil(len(train) / settings.batch_size))
        self._trace = backbone.trace()
        self._unfrozen = unfrozen_parameters(backbone, settings.unfreeze)
        for parameter in self._unfrozen:
            parameter.requires_grad_(True)

    def optimiser(self, lr: float) -> torch.optim.Optimizer:
        """A new one, of all that is trained."""
        return adamw([*self._unfrozen, *self.head.parameters()], lr, WEIGHT_DECAY)

    def rate(self, lr: float, epoch: int, batch: int) -> float:
        """Where the schedule that reaches `lr` stands."""
        steps = self.settings.epochs * self.n_batches
        return cosine(lr, (epoch - 1) * self.n_batches + batch, steps, max(1, round(WARM_UP * steps)))

    def losses(self, epoch: int, advance: Callable[[int], None]) -> Iterator[tuple[Tensor, int]]:
        """One pass over train; `advance` hears of each batch when its step is done."""
        generator = torch.Generator().manual_seed(1_000_003 * self.settings.seed + epoch)
        order = torch.randperm(len(self.train), generator=generator).tensor_split(self.n_batches)  # almost equal sizes
        self.module.eval()
        for norm in batch_norms(self.backbone.module, self._unfrozen) if self.settings.batch_norm == "train" else []:
            norm.train()
        labels = torch.as_tensor(self.train.labels)
        batches = decode_batches(self.backbone.preprocess, self.train, [rows.tolist() for rows in order])
        for rows, images in zip(order, batches, strict=True):
            logits = self.logits(augment(images, self.settings.augment, generator))
            yield mean_loss(logits.float(), labels[rows].to(logits.device)), len(rows)
            advance(len(rows))

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy on val."""
        self.module.eval()
        parts = [rows.tolist() for rows in torch.arange(len(self.val)).split(2 * self.settings.batch_size)]
        batches = decode_batches(self.backbone.preprocess, self.val, parts)
        return judge(map(self.logits, batches), torch.as_tensor(self.val.labels))

    def logits(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, k)."""
        images, layer = images.to(self.backbone.device), self.backbone.default_layer
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.is_fast):
            return self.head(pooled_activations(self.backbone.module, images, [layer], "mean", self._trace)[layer])


def unfrozen_parameters(backbone: Backbone, unfreeze: str | int) -> list[nn.Parameter]:
    """The parameters to be trained: all, or those of what finishes after the last stage that stays frozen.

    Raises:
        InputError: If `unfreeze` is neither ``"all"`` nor a number of stages.
    """
    module, trace = backbone.module, backbone.trace()
    end = trace.names.index(backbone.default_layer)
    # What runs after the layer that the head reads gets no gradient, and is none of the tuned network's.
    after = {name for i, name in enumerate(trace.names) if i > end}
    if unfreeze == "all":
        return [p for name, p in module.named_parameters() if name.rpartition(".")[0] not in after]
    stages = [s for s in backbone.stages if s != backbone.default_layer]
    if not isinstance(unfreeze, Integral) or isinstance(unfreeze, bool) or not 0 <= unfreeze <= len(stages):
        raise InputError(f"`unfreeze` must be 'all' or a number of stages in 0..{len(stages)}, got {unfreeze!r}.")
    if unfreeze == 0:
        return []
    border = trace.names.index(stages[-unfreeze - 1]) if unfreeze < len(stages) else -1
    late = {name for i, name in enumerate(trace.names) if border < i <= end}
    return [p for name, p in module.named_parameters() if name.rpartition(".")[0] in late]


def batch_norms(module: nn.Module, trained: list[nn.Parameter]) -> list[nn.Module]:
    """Batch norms whose own parameters are trained; those of a frozen part keep their statistics."""
    chosen = {id(p) for p in trained}
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in norms if any(id(p) in chosen for p in m.parameters(recurse=False))]


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """(b, 3, h, w) preprocessed images, each flipped or shifted at random.

    Args:
        images: Square ones where they are shifted.
        how: One of `AUGMENTATIONS`.
        generator: Of what is random.
    """
    if how == "none":
        return images
    flipped = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    if how == "flip":
        return images
    side = images.shape[-1]
    border = side // 8
    padded = nn.functional.pad(images, (border,) * 4, mode="reflect")
    corners = torch.randint(2 * border + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, corners)])
