"""Extraction against what a competent user types today: a float32 loop with hooks and a full forward."""

from functools import cache
from typing import Any

import torch

from frozenkit import extract_layers, from_torch, load_backbone, load_dataset
from frozenkit._devices import has_native_bfloat16
from tests.benchmarks.timing import Figure, figure, median_seconds

IMAGES, BATCH = 512, 64  # 64: what the loop's author takes


@cache
def some_images() -> Any:
    """512 decoded images of Fashion-MNIST."""
    decoded = load_dataset("fashion-mnist", limit=IMAGES)
    return from_torch([decoded[i] for i in range(IMAGES)], classes=decoded.classes)


@cache
def backbone() -> Any:
    return load_backbone(image_size=96, device="cpu")


def plain_loop(layers: list[str]) -> dict[str, torch.Tensor]:
    """Hooks on the wanted layers, batch after batch, spatial means kept."""
    module, transform, images = backbone().module, backbone().preprocess, some_images()
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: kept[name].append(
            output.flatten(2).mean(2) if output.ndim > 2 else output
        )

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.stack([transform(images[i][0]) for i in range(start, min(start + BATCH, len(images)))])
            module(batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in kept.items()}


def ours(layers: list[str], precision: str) -> Any:
    return extract_layers(backbone(), some_images(), layers=layers, precision=precision, progress=False)


def every_stage() -> list[str]:
    return list(backbone().stages)


def p1_fast() -> Figure:
    layers = every_stage()
    fast = median_seconds(lambda: ours(layers, "fast"))
    reference = median_seconds(lambda: plain_loop(layers))
    kind = "bfloat16" if has_native_bfloat16("cpu") else "no bfloat16 hardware here: computed as exact"
    note = f"Lite0 at 96 px, {IMAGES} decoded images, {len(layers)} layers; {kind}."
    return figure("extraction, fast", fast, reference, floor=2.5, goal=4, note=note)


def p1b_exact() -> Figure:
    layers = every_stage()
    exact = median_seconds(lambda: ours(layers, "exact"))
    reference = median_seconds(lambda: plain_loop(layers))
    found, expected = ours(layers, "exact"), plain_loop(layers)
    worst = max(float((found[name].features - expected[name]).abs().max()) for name in layers)
    note = f"The same values to {worst:.1g}."
    return figure("extraction, exact", exact, reference, floor=1.2, goal=1.5, note=note)


def p2_third_of_the_depth() -> Figure:
    stages = every_stage()
    early = stages[: max(1, len(stages) // 3)]
    part = median_seconds(lambda: ours(early[-1:], "exact"))
    whole = median_seconds(lambda: ours(stages[-1:], "exact"))
    return figure(f"extraction up to {early[-1]!r}", part, whole, floor=1.3, goal=2, note="Against the full depth.")


def p3_overhead() -> Figure:
    images = some_images()
    ready = torch.stack([backbone().preprocess(images[i][0]) for i in range(len(images))])
    ready = ready.to(memory_format=torch.channels_last)  # as extraction has it
    module = backbone().module

    def bare() -> None:
        with torch.inference_mode():
            for batch in ready.split(32):
                module(batch)

    whole = median_seconds(lambda: ours([backbone().default_layer], "exact"))
    alone = median_seconds(bare)
    note = f"That is an overhead of {whole / alone:.2f} (floor 1.25, goal 1.1), decoding and resizing included."
    return figure("bare forward / extraction", whole, alone, floor=1 / 1.25, goal=1 / 1.1, note=note)
