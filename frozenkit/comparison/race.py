"""A race: what an epoch takes when all is trained, when the backbone is frozen, and when it has run once for all."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit.errors import InputError
from frozenkit.extraction.extract import extract
from frozenkit.heads.modules import LinearHead
from frozenkit.images.dataset import ImageDataset
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.layers import pooled_activations

LANES = ("fine-tuned", "frozen", "frozen, cached")

# Seconds an epoch, for 50,000 images and ResNet-50: as published, for comparison, not measured here.
PUBLISHED_RACE = {"fine-tuned": 300.0, "frozen": 180.0, "frozen, cached": 5.0}


@dataclass(frozen=True)
class Lane:
    """One way to train a head.

    Attributes:
        name: One of `LANES`.
        seconds: Wall-clock seconds of each epoch.
        losses: Mean cross-entropy of each epoch, as it was trained.
    """

    name: str
    seconds: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def seconds_per_epoch(self) -> float:
        """Of the quickest epoch: what disturbs a machine only ever slows it down."""
        return min(self.seconds)


@dataclass(frozen=True)
class Race:
    """Three lanes on the same images, batches and head.

    Attributes:
        lanes: `Lane` for each of `LANES`.
        extraction_seconds: What the cached lane pays once, before its first epoch.
        n: Images.
        backbone: Its name and image size.
    """

    lanes: tuple[Lane, ...]
    extraction_seconds: float
    n: int
    backbone: str

    def __getitem__(self, name: str) -> Lane:
        return next(lane for lane in self.lanes if lane.name == name)

    def ratio(self, name: str = "fine-tuned") -> float:
        """How many cached epochs fit into one epoch of that lane."""
        return self[name].seconds_per_epoch / self["frozen, cached"].seconds_per_epoch

    def seconds_after(self, epochs: int) -> dict[str, float]:
        """Lane to seconds until that many epochs are done, extraction included."""
        once = {"frozen, cached": self.extraction_seconds}
        return {lane.name: once.get(lane.name, 0.0) + epochs * lane.seconds_per_epoch for lane in self.lanes}

    def break_even(self, name: str = "frozen") -> int | None:
        """The first number of epochs after which extracting once was quicker than lane `name`; None if it never is.

        Extraction is one pass through the backbone, as is an epoch of the lane ``"frozen"``: so against that lane, the
        one that a cache replaces, it pays from about the second epoch. ``"fine-tuned"`` trains another network.
        """
        gain = self[name].seconds_per_epoch - self["frozen, cached"].seconds_per_epoch
        return max(1, math.floor(self.extraction_seconds / gain) + 1) if gain > 0 else None

    def to_frame(self) -> Any:
        """A pandas table, one row a lane."""
        import pandas as pd

        rows = [
            {
                "lane": lane.name,
                "once": self.extraction_seconds if lane.name == "frozen, cached" else 0.0,
                "seconds an epoch": lane.seconds_per_epoch,
                "times the cached": self.ratio(lane.name),
                "published": PUBLISHED_RACE[lane.name] / PUBLISHED_RACE["frozen, cached"],
            }
            for lane in self.lanes
        ]
        return pd.DataFrame(rows).set_index("lane")

    def __repr__(self) -> str:
        times = ", ".join(f"{lane.name} {lane.seconds_per_epoch:.3g} s" for lane in self.lanes)
        once = f"extracted once in {self.extraction_seconds:.3g} s"
        return f"Race({self.n} images, {self.backbone}; an epoch: {times}; {once})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.to_frame().to_html(float_format='{:.3g}'.format, border=0)}"


def race(
    backbone: Backbone,
    train: ImageDataset,
    *,
    epochs: int = 2,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Race:
    """Train a linear head three ways on the same images, for real, and time each epoch.

    * ``"fine-tuned"``: forward and backward through backbone and head.
    * ``"frozen"``: forward through the backbone, forward and backward through the head; images are decoded each epoch.
    * ``"frozen, cached"``: the backbone runs once over all images; each epoch is the head's alone.

    The given backbone is left as it is: the first lane trains a copy.

    Args:
        backbone: From `load_backbone`.
        train: n images.
        epochs: Of each lane, at least 1; the first also warms up, and the quickest counts.
        batch_size: Of each lane.
        seed: Of the order of images and of the head.
        progress: Called with (lane or ``"extraction"``, images done, images in all); what it raises ends the race.

    Returns:
        A `Race`.

    Raises:
        InputError: If `epochs` or `batch_size` is below 1.
    """
    if epochs < 1 or batch_size < 1:
        raise InputError(f"`epochs` and `batch_size` must be at least 1, got {epochs} and {batch_size}.")
    layer, trace, device = backbone.default_layer, backbone.trace(), backbone.device
    labels = torch.as_tensor(train.labels)
    tell = progress or (lambda *_: None)

    def pictures(rows: Tensor) -> Tensor:
        return torch.stack([backbone.preprocess(train[int(i)][0]) for i in rows]).to(device)

    def features(module: nn.Module, rows: Tensor) -> Tensor:
        return pooled_activations(module, pictures(rows), [layer], "mean", trace)[layer]

    tuned = copy.deepcopy(backbone.module).eval().requires_grad_(True)
    lanes = [_run("fine-tuned", lambda rows: features(tuned, rows), tuned, labels, epochs, batch_size, seed, tell)]

    def frozen(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return features(backbone.module, rows)

    lanes.append(_run("frozen", frozen, None, labels, epochs, batch_size, seed, tell))
    start = time.perf_counter()
    extracted = extract(
        backbone, train, layer=layer, precision="exact", progress=lambda *step: tell("extraction", *step)
    )
    stored = extracted.features.to(device)
    once = time.perf_counter() - start
    lanes.append(_run(LANES[2], lambda rows: stored[rows], None, labels, epochs, batch_size, seed, tell))
    return Race(tuple(lanes), once, len(train), f"{backbone.name}, {backbone.image_size} px")


def _run(
    name: str,
    features: Callable[[Tensor], Tensor],
    trained: nn.Module | None,
    labels: Tensor,
    epochs: int,
    batch_size: int,
    seed: int,
    tell: Callable[[str, int, int], None],
) -> Lane:
    """One lane: `features` of some rows, then the head's forward and backward, and through `trained` where given."""
    n, k = len(labels), int(labels.max()) + 1
    head: nn.Module | None = None
    optimiser: torch.optim.Optimizer | None = None
    seconds, losses = [], []
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for done, rows in _batches(n, batch_size, seed + epoch):
            x = features(rows)
            if head is None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    head = LinearHead(x.shape[1], k).to(x.device)
                groups: list[dict[str, Any]] = [{"params": list(head.parameters()), "lr": 1e-3}]
                if trained is not None:
                    # Gently: what was learnt in pretraining must survive the first steps of a new head.
                    groups.append({"params": list(trained.parameters()), "lr": 1e-4})
                optimiser = torch.optim.AdamW(groups)
            assert optimiser is not None
            loss = nn.functional.cross_entropy(head(x), labels[rows].to(x.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
            tell(name, epoch * n + done, epochs * n)
        seconds.append(time.perf_counter() - start)
        losses.append(total / n)
    return Lane(name, tuple(seconds), tuple(losses))


def _batches(n: int, size: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """(images done after it, rows) in a seeded order."""
    done = 0
    for rows in torch.randperm(n, generator=torch.Generator().manual_seed(seed)).split(size):
        done += len(rows)
        yield done, rows
