"""A network in training: an epoch at a time, its state to be taken and given back."""

import copy
import math
import time
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._devices import has_native_bfloat16
from frozenkit.errors import InputError
from frozenkit.extraction.extract import decode_batches
from frozenkit.heads.modules import LinearHead
from frozenkit.images.dataset import ImageDataset
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.layers import pooled_activations

AUGMENTATIONS = ("none", "flip", "crop")
WEIGHT_DECAY = 1e-2
WARM_UP = 0.1  # of all steps; the first steps of Adam know nothing of the size of the gradients


class Tuning:
    """One network and its head in training.

    Args:
        target: A backbone of its own: its module is trained in place.
        head: Trained in place.
        train: What is trained on.
        val: What `evaluate` looks at.
        unfreeze: ``"all"``, or the number of last stages.
        epochs: Over which the rate falls.
        batch_size: Images a step.
        batch_norm: ``"eval"`` or ``"train"``.
        augment: One of `AUGMENTATIONS`.
        precision: ``"auto"``, ``"exact"``, ``"fast"``.
        seed: Of the order and the augmentation of every epoch.
    """

    def __init__(
        self,
        target: Backbone,
        head: LinearHead,
        train: ImageDataset,
        val: ImageDataset,
        unfreeze: str | int,
        epochs: int,
        batch_size: int,
        batch_norm: str,
        augment: str,
        precision: str,
        seed: int,
    ) -> None:
        self.backbone, self.module, self.layer = target, target.module, target.default_layer
        self.head = head.to(target.device)
        self.train, self.val, self.n = train, val, len(train)
        self.batch_norm, self.augment, self.seed = batch_norm == "train", augment, seed
        kind = target.device.type
        self.fast = precision == "fast" or (precision == "auto" and kind == "cuda" and has_native_bfloat16(kind))
        self.trace = target.trace()
        trained = unfrozen(target, unfreeze)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.trained_norms = norms_of(self.module, trained)
        parameters = [*trained, *self.head.parameters()]
        self.groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parts = max(1, math.ceil(self.n / batch_size))
        self.steps, self.batch_size = epochs * self.parts, batch_size

    def restart(self, lr: float) -> None:
        """A new optimiser at this rate."""
        self.lr = lr
        self.optimiser = torch.optim.AdamW([dict(group) for group in self.groups], lr=lr)

    def rate(self, step: int) -> float:
        """Of one of all steps: up a line, down half a cosine."""
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def epoch(self, number: int, advance: Callable[[int], None]) -> dict[str, float]:
        """One pass over train, then val."""
        begin, total = time.perf_counter(), 0.0
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        order = torch.randperm(self.n, generator=generator).tensor_split(self.parts)  # of almost equal size
        self.module.eval()
        for norm in self.trained_norms if self.batch_norm else []:
            norm.train()
        batches = decode_batches(self.backbone.preprocess, self.train, [part.tolist() for part in order])
        for i, (rows, images) in enumerate(zip(order, batches, strict=True)):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate((number - 1) * self.parts + i)
            logits = self.logits(augmented(images, self.augment, generator))
            labels = torch.as_tensor(self.train.labels)[rows].to(logits.device)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach()) * len(rows)
            advance(len(rows))
        self.module.eval()
        found = self.evaluate()
        seconds = time.perf_counter() - begin
        return {"epoch": number, "lr": self.lr, "train_loss": total / self.n, **found, "seconds": seconds}

    def evaluate(self) -> dict[str, float]:
        """Mean loss and accuracy on val."""
        self.module.eval()
        parts = [p.tolist() for p in torch.arange(len(self.val)).split(2 * self.batch_size)]
        with torch.no_grad():
            batches = decode_batches(self.backbone.preprocess, self.val, parts)
            logits = torch.cat([self.logits(images).float().cpu() for images in batches])
        labels = torch.as_tensor(self.val.labels)
        loss = float(nn.functional.cross_entropy(logits, labels))
        return {"val_loss": loss, "val_score": float((logits.argmax(1) == labels).double().mean())}

    def logits(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, k)."""
        images = images.to(self.backbone.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.fast):
            features = pooled_activations(self.module, images, [self.layer], "mean", self.trace)[self.layer]
            return self.head(features)

    def state(self) -> dict[str, Tensor]:
        """Copies of all weights and buffers, on the CPU."""
        both = {"backbone": self.module, "head": self.head}
        return {f"{a}.{k}": v.detach().cpu().clone() for a, part in both.items() for k, v in part.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name, part in {"backbone.": self.module, "head.": self.head}.items():
            part.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})

    def optimiser_state(self) -> dict[str, Any]:
        """A copy: the optimiser goes on changing its own."""
        return copy.deepcopy(self.optimiser.state_dict())

    def load_optimiser(self, state: dict[str, Any]) -> None:
        """Puts back what `optimiser_state` gave."""
        self.optimiser.load_state_dict(copy.deepcopy(state))


def unfrozen(backbone: Backbone, unfreeze: str | int) -> list[nn.Parameter]:
    """The parameters to be trained: all, or those of what finishes after the last stage that stays frozen."""
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


def norms_of(module: nn.Module, trained: list[nn.Parameter]) -> list[nn.Module]:
    """Batch norms whose own parameters are trained; those of a frozen part keep their statistics."""
    chosen = {id(p) for p in trained}
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in norms if any(id(p) in chosen for p in m.parameters(recurse=False))]


def augmented(images: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """(b, 3, h, w) preprocessed images, each flipped or shifted at random."""
    if augment == "none":
        return images
    flipped = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    if augment == "flip":
        return images
    side = images.shape[-1]
    border = side // 8
    padded = nn.functional.pad(images, (border,) * 4, mode="reflect")
    at = torch.randint(2 * border + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([one[:, y : y + side, x : x + side] for one, (y, x) in zip(padded, at)])
