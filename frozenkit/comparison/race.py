"""What an epoch takes when all is trained, when the backbone is frozen, and when its features are cached."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frozenkit._arrays import whole_number
from frozenkit._loop import mean_loss, run_epoch
from frozenkit._outputs import Shown, frame_html
from frozenkit.errors import require
from frozenkit.extraction.decoding import decode_batches
from frozenkit.extraction.extract import extract
from frozenkit.heads.modules import LinearHead
from frozenkit.images.dataset import ImageDataset, check_images
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import pooled_activations, pooled_shape

if TYPE_CHECKING:
    import pandas as pd

LANES = ("fine-tuned", "frozen", "frozen, cached")

# Seconds per epoch, for 50,000 images and ResNet-50: as published, for comparison, not measured here.
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
class Race(Shown):
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

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row per lane."""
        pd = require("pandas", "course")

        rows = [
            {
                "lane": lane.name,
                "once": self.extraction_seconds if lane.name == "frozen, cached" else 0.0,
                "seconds per epoch": lane.seconds_per_epoch,
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

    def _table_html(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3g}".format)


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
        InputError: If `epochs` or `batch_size` is no whole number of at least 1, or `seed` none of at least 0.
    """
    check_backbone(backbone)
    check_images("train", train)
    epochs, batch_size = whole_number("epochs", epochs), whole_number("batch_size", batch_size)
    seed = whole_number("seed", seed, least=0)
    layer, trace, device = backbone.default_layer, backbone.trace(), backbone.device
    labels, n = torch.as_tensor(train.labels), len(train)
    report = progress or (lambda *_: None)

    def run_backbone(module: nn.Module, order: Sequence[Tensor], *, tuned: bool) -> Iterator[Tensor]:
        for images in decode_batches(backbone.preprocess, train, [rows.tolist() for rows in order]):
            with torch.set_grad_enabled(tuned):
                features = pooled_activations(module, images.to(device), [layer], "mean", trace)[layer]
            yield features

    def run_lane(
        name: str, compute: Callable[[Sequence[Tensor]], Iterator[Tensor]], tuned: Iterable[nn.Parameter] = ()
    ) -> Lane:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = LinearHead(pooled_shape(trace, layer, "mean")[0], int(labels.max()) + 1).to(device)
        # The backbone gently: what was learnt in pretraining must survive the first steps of a new head.
        optimiser = torch.optim.AdamW([{"params": head.parameters(), "lr": 1e-3}, {"params": tuned, "lr": 1e-4}])

        def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
            done, generator = epoch * n, torch.Generator().manual_seed(seed + epoch)
            order = torch.randperm(n, generator=generator).split(batch_size)
            for rows, x in zip(order, compute(order), strict=True):
                yield mean_loss(head(x), labels[rows].to(device)), len(rows)
                done += len(rows)
                report(name, done, epochs * n)

        seconds, means = [], []
        for epoch in range(epochs):
            start = time.perf_counter()
            means.append(run_epoch(optimiser, losses(epoch)))
            seconds.append(time.perf_counter() - start)
        return Lane(name, tuple(seconds), tuple(means))

    copied = copy.deepcopy(backbone.module).eval().requires_grad_(True)
    lanes = [
        run_lane(LANES[0], partial(run_backbone, copied, tuned=True), copied.parameters()),
        run_lane(LANES[1], partial(run_backbone, backbone.module, tuned=False)),
    ]
    start = time.perf_counter()
    extracted = extract(backbone, train, layer=layer, precision="exact", progress=partial(report, "extraction"))
    features = extracted.features.to(device)
    once = time.perf_counter() - start
    lanes.append(run_lane(LANES[2], lambda order: (features[rows] for rows in order)))
    return Race(tuple(lanes), once, len(train), f"{backbone.name}, {backbone.image_size} px")
