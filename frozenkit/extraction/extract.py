"""Images + backbone + layer → a `FeatureSet`; several layers in a single pass that ends after the last one wanted."""

import copy
import functools
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import described
from frozenkit._devices import full_float32, resolve_precision
from frozenkit._progress import progress_bar
from frozenkit.errors import ActivationError, CacheError, CacheMissError, FrozenkitWarning, InputError
from frozenkit.extraction._file import PartFile
from frozenkit.extraction.cache import CachedFeatures, FeatureCache, check_cache, round_through
from frozenkit.extraction.decoding import decode_batches, decode_threads
from frozenkit.extraction.key import NoFingerprintError, as_images, backbone_digests, fingerprints
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint, Origin, module_state
from frozenkit.images.dataset import Images
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import check_pooling, in_eval_mode, pooled_activations, pooled_shape


class _Options(TypedDict, total=False):
    """What `extract` and `extract_layers` share."""

    pooling: str
    precision: str
    batch_size: int | None
    workers: int | str
    cache: FeatureCache | None
    progress: bool | Callable[[int, int], None] | None


@overload
def extract(
    backbone: Backbone,
    dataset: Images,
    *,
    layer: str | None = None,
    lazy: Literal[False] = False,
    **options: Unpack[_Options],
) -> FeatureSet: ...
@overload
def extract(
    backbone: Backbone, dataset: Images, *, layer: str | None = None, lazy: Literal[True], **options: Unpack[_Options]
) -> CachedFeatures: ...
def extract(
    backbone: Backbone,
    dataset: Images,
    *,
    layer: str | None = None,
    pooling: str = "mean",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int | str = "auto",
    cache: FeatureCache | None = None,
    lazy: bool = False,
    progress: bool | Callable[[int, int], None] | None = None,
) -> FeatureSet | CachedFeatures:
    """The features of every image at one layer.

    The backbone is in eval mode and computes no gradients; its modes and hooks are given back. Rows come in the order
    of the dataset, and an image's features do not depend on its batch neighbours. Each image is decoded once. Without a
    cache only the backbone is digested, its weights once, until somebody asks for ``.fingerprint``; it is then that of
    a cache, or empty if the backbone has changed or gone meanwhile.

    Args:
        backbone: From `load_backbone`, or your own.
        dataset: An `ImageDataset` of n images, or whatever `from_torch` or `from_huggingface` takes.
        layer: A name from ``backbone.layers``; default what the network's own classifier reads, see
            `Backbone.default_layer`, which no pooling changes. Several in one pass: `extract_layers`.
        pooling: What becomes of a map or of tokens: ``"mean"`` or ``"max"`` over all positions; ``"pyramid"``, averages
            over 1×1, 2×2 and 4×4 cells (21·c numbers); ``"tokens"``, (t, d) left as they are; of a transformer these
            four are over its patches, without CLS, distillation and register tokens. ``"cls"`` is its CLS token,
            ``"cls+mean"`` that beside the mean over its patches (2·d numbers; the linear protocol of Oquab et al.,
            2023, DINOv2); ``"flatten"`` is every number.
        precision: ``"exact"`` computes in float32, ``"fast"`` in bfloat16 where the hardware multiplies it natively,
            else as ``"exact"``; ``"auto"`` is ``"fast"`` where that helps. Features come as float32 either way.
        batch_size: Images at a time; default on a CPU 32, or 64 in bfloat16, on a GPU 256. Rows keep their order.
        workers: Threads that decode and preprocess ahead of the network; ``"auto"`` takes two on a CPU, which is busy
            with the network, and on a GPU as many as there are cores, up to 16. Features do not depend on it.
        cache: Where to look first and to store; None stores nothing. An interrupted extraction is carried on
            in its own batches, unless smaller ones are asked for now, which begins anew.
        lazy: Leave the features on disk: the result is `CachedFeatures`, and memory stays flat in n. Needs `cache`.
        progress: True for a bar with rate and time left, False for none, None for a bar where someone watches (a
            terminal or a notebook), or a function called with (images done, images in all).

    Returns:
        A `FeatureSet` (or `CachedFeatures`): (n, d) float32 on the CPU; (n, t, d) with ``pooling="tokens"``.

    Raises:
        InputError: If an argument does not fit (`UnknownNameError` for a layer's name), or if features are to be kept
            and the backbone's preprocessing is random.
        ActivationError: If a layer gives a value that is not finite; names layer and images.
        CacheError: If the cache cannot be written.

    Example:
        >>> from frozenkit import load_backbone, load_dataset
        >>> backbone = load_backbone(image_size=64, device="cpu")
        >>> extract(backbone, load_dataset("digits", limit=20), layer="blocks.6", progress=False)
        FeatureSet(20 images × 320 features, 10 classes, layer='blocks.6')
    """
    check_backbone(backbone)
    if layer is not None and not isinstance(layer, str):
        raise InputError(
            f"`layer` must name one layer, got {described(layer)}. For several: extract_layers(backbone, dataset, "
            "layers=[…])."
        )
    names = backbone.check_layers(layer)
    features = _extract(backbone, dataset, names, pooling, precision, batch_size, workers, cache, lazy, progress)
    return features[names[0]]


@overload
def extract_layers(
    backbone: Backbone,
    dataset: Images,
    *,
    layers: Sequence[str] | None = None,
    lazy: Literal[False] = False,
    **options: Unpack[_Options],
) -> dict[str, FeatureSet]: ...
@overload
def extract_layers(
    backbone: Backbone,
    dataset: Images,
    *,
    layers: Sequence[str] | None = None,
    lazy: Literal[True],
    **options: Unpack[_Options],
) -> dict[str, CachedFeatures]: ...
def extract_layers(
    backbone: Backbone,
    dataset: Images,
    *,
    layers: Sequence[str] | None = None,
    pooling: str = "mean",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int | str = "auto",
    cache: FeatureCache | None = None,
    lazy: bool = False,
    progress: bool | Callable[[int, int], None] | None = None,
) -> Mapping[str, FeatureSet | CachedFeatures]:
    """The features of every image at several layers, in one pass that stops after the last one wanted.

    Everything else is as in `extract`, which gives the same numbers one layer at a time.

    Args:
        backbone: From `load_backbone`, or your own.
        dataset: An `ImageDataset` of n images, or whatever `from_torch` or `from_huggingface` takes.
        layers: Names from ``backbone.layers``, each once; default `Backbone.stages`, the network's big steps.
        pooling: As in `extract`, the same for all layers.
        precision: As in `extract`.
        batch_size: As in `extract`.
        workers: As in `extract`.
        cache: As in `extract`; one entry per layer. Only layers that are not stored are computed.
        lazy: As in `extract`.
        progress: As in `extract`.

    Returns:
        Layer name to `FeatureSet` (or `CachedFeatures`), in the order asked for.

    Raises:
        InputError: As `extract` does, and if `layers` names none, or one twice.
        ActivationError: As `extract` does.
        CacheError: As `extract` does.

    Example:
        >>> from frozenkit import load_backbone, load_dataset
        >>> backbone = load_backbone(image_size=64, device="cpu")
        >>> extract_layers(backbone, load_dataset("digits", limit=20), layers=["blocks.2", "blocks.6"], progress=False)
        {'blocks.2': FeatureSet(20 images × 40 features, ...), 'blocks.6': FeatureSet(20 images × 320 features, ...)}
    """
    check_backbone(backbone)
    names = backbone.check_layers(backbone.stages if layers is None else layers)
    return _extract(backbone, dataset, names, pooling, precision, batch_size, workers, cache, lazy, progress)


def _extract(
    backbone: Backbone,
    dataset: Images,
    names: Sequence[str],
    pooling: str,
    precision: str,
    batch_size: int | None,
    workers: int | str,
    cache: FeatureCache | None,
    lazy: bool,
    progress: bool | Callable[[int, int], None] | None,
) -> dict[str, Any]:
    check_pooling(pooling)
    check_cache(cache)
    dataset = as_images(dataset)
    if len(dataset) == 0:
        raise InputError("`dataset` must hold at least one image, got none.")
    is_whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if batch_size is not None and (not is_whole or batch_size < 1):
        raise InputError(f"`batch_size` must be at least 1 and a whole number, got {batch_size!r}.")
    threads = decode_threads(workers, backbone.device.type)
    if lazy and cache is None:
        raise InputError("`lazy=True` leaves features on disk, so it needs `cache=FeatureCache()`.")
    resolved = resolve_precision(precision, backbone.device.type)
    default = 256 if backbone.device.type == "cuda" else 64 if resolved == "fast" else 32
    size, largest = int(batch_size or default), int(batch_size or sys.maxsize)
    run = _Run(backbone, dataset, pooling, resolved, size, threads, largest, backbone_digests(backbone))
    if cache is None:
        with progress_bar(progress, len(dataset), backbone.name) as advance:
            return _in_memory(run, names, advance)
    prints = fingerprints(backbone, dataset, names, pooling, resolved, cache.storage, cache)
    with progress_bar(progress, len(dataset), backbone.name) as advance:
        stored: dict[str, Any] = {name: _find(cache, prints[name]) for name in names}
        missing = [name for name in names if isinstance(stored[name], CacheError)]
        with cache._writing(prints[name].digest for name in missing) as alone:
            stored |= {name: _find(cache, prints[name]) for name in missing}  # another process may have been quicker
            missing = [name for name in missing if isinstance(stored[name], CacheError)]
            for name in missing:
                if not isinstance(stored[name], CacheMissError):
                    warnings.warn(f"{stored[name]} Extracting it again.", FrozenkitWarning, stacklevel=3)
            if missing:
                _into_cache(run, {name: prints[name] for name in missing}, cache, alone, advance)
            else:
                advance(len(dataset))
        stored |= {name: cache.open(prints[name].digest) for name in missing}
    for name in names:
        stored[name].origin = run.origin  # which knows more than the entry
    if lazy:
        return stored
    loaded: dict[str, FeatureSet] = {}
    try:
        for name in names:
            loaded[name] = stored[name].load()
        return loaded
    except CacheError as error:  # a row is damaged, which shows only when it is read
        warnings.warn(f"{error} Extracting it again.", FrozenkitWarning, stacklevel=3)
    unread = {name: prints[name] for name in names if name not in loaded}
    with (
        progress_bar(progress, len(dataset), backbone.name) as advance,
        cache._writing(print_.digest for print_ in unread.values()) as alone,
    ):
        damaged = {name: key for name, key in unread.items() if cache._verify_entry(key.digest) != "ok"}
        if damaged:  # else another process has mended it
            _into_cache(run, damaged, cache, alone, advance)
    # One's own come before a shared, damaged one.
    again = {name: cache.load(prints[name].digest) for name in unread}
    return {name: loaded[name] if name in loaded else replace(again[name], origin=run.origin) for name in names}


def _find(cache: FeatureCache, fingerprint: Fingerprint) -> CachedFeatures | CacheError:
    """What is stored, left on disk; or why nothing sound is, as far as that shows without reading the rows."""
    try:
        return cache.open(fingerprint.digest)
    except CacheError as error:
        return error.with_traceback(None)  # whose frames would keep open files, and the dataset


@dataclass(frozen=True)
class _Run:
    """One extraction: what computes, on what, how."""

    backbone: Backbone
    dataset: Images
    pooling: str
    precision: str
    batch_size: int
    workers: int
    largest_batch: int
    digests: tuple[str, str]

    @property
    def origin(self) -> Origin:
        """What the features say of how they were made."""
        network, images = self.backbone, self.dataset
        made = network.name, network.image_size, self.pooling, self.precision
        return Origin(*made, images.name, len(images), getattr(images, "code", ""), *self.digests)

    def batches(self, layers: Sequence[str], starts: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(first row, layer → pooled features on the CPU) for each start; images are decoded ahead of the computing."""
        module = self.backbone.module
        trace = self.backbone.trace()
        if self.precision == "fast":
            module = copy.deepcopy(module).to(dtype=torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        exact = nullcontext() if self.precision == "fast" else full_float32()
        with in_eval_mode(module), torch.no_grad(), exact:
            n = len(self.dataset)
            parts = [range(start, min(start + self.batch_size, n)) for start in starts]
            batches = decode_batches(self.backbone.preprocess, self.dataset, parts, workers=self.workers)
            for start, images in zip(starts, batches, strict=True):
                batch = images.to(self.backbone.device, non_blocking=True)
                if self.precision == "fast":
                    batch = batch.to(torch.bfloat16)
                pooled = pooled_activations(module, batch, layers, self.pooling, trace)
                yield start, {name: self._finite(name, start, pooled[name].cpu()) for name in layers}

    def _finite(self, layer: str, start: int, features: Tensor) -> Tensor:
        bad = ~torch.isfinite(features).flatten(1).all(1)
        if bad.any():
            ids = [self.dataset.ids[start + int(i)] for i in bad.nonzero().flatten()[:5]]
            raise ActivationError(
                f"activations of layer {layer!r} must be finite, but are not for {int(bad.sum())} images of a batch: "
                f"{', '.join(ids)}. Look at these images, or try precision='exact'."
            )
        return features


def _in_memory(run: _Run, layers: Sequence[str], advance: Callable[[int], None]) -> dict[str, Any]:
    n, data = len(run.dataset), run.dataset
    rows: dict[str, Tensor] = {}
    for start, batch in run.batches(layers, range(0, n, run.batch_size)):
        for name, features in batch.items():
            if name not in rows:
                rows[name] = torch.empty(n, *features.shape[1:])
            rows[name][start : start + len(features)] = features
        advance(len(features))
    digest_of = _digests_on_demand(run, layers)
    about = data.labels, tuple(data.classes), tuple(data.ids)
    digests: dict[str, Any] = {name: functools.partial(digest_of, name) for name in layers}  # told when asked for
    return {name: FeatureSet(rows[name], *about, name, digests[name], run.origin) for name in layers}


def _digests_on_demand(run: _Run, layers: Sequence[str]) -> Callable[[str], str]:
    """A function from a layer to the digest that a cache would file it under, worked out for all when one is asked for.

    What cannot be told is empty: if preprocessing is random, or the backbone has changed or gone since. The features
    hold on to the dataset, but not to the backbone, which may be large and on a GPU.
    """
    alive, preprocess, state = weakref.ref(run.backbone), run.backbone.preprocess, module_state(run.backbone.module)
    dataset, pooling, precision = run.dataset, run.pooling, run.precision

    @functools.cache
    def digests() -> dict[str, str]:
        backbone = alive()
        if backbone is None or backbone.preprocess is not preprocess or module_state(backbone.module) != state:
            return {}
        try:
            prints = fingerprints(backbone, dataset, layers, pooling, precision, "float32", None)
        except NoFingerprintError:  # nothing is kept, so nothing can be stale
            return {}
        return {name: fingerprint.digest for name, fingerprint in prints.items()}

    return lambda layer: digests().get(layer, "")


def _into_cache(
    run: _Run,
    missing: Mapping[str, Fingerprint],
    cache: FeatureCache,
    alone: bool,
    advance: Callable[[int], None],
) -> None:
    """Computes what no finished or interrupted run has left, batch by batch, straight into the files."""
    n = len(run.dataset)
    unfinished = cache._unfinished_batch_size(key.digest for key in missing.values())
    size = min(unfinished or run.batch_size, run.largest_batch)  # whoever ran out of memory asks for smaller ones
    run = replace(run, batch_size=size)
    starts = range(0, n, size)
    trace = run.backbone.trace()
    with ExitStack() as stack:
        parts: dict[str, PartFile] = {}
        done = np.ones(n, dtype=bool)
        for name, fingerprint in missing.items():
            shape = (n, *pooled_shape(trace, name, run.pooling))
            part = cache._part(_blank(run.dataset, name, fingerprint), shape, size, fingerprint, alone=alone)
            stack.callback(part.close)
            parts[name] = part
            done &= part.finished_rows()
        todo = [start for start in starts if not done[start : start + size].all()]
        advance(n - sum(min(size, n - start) for start in todo))
        for start, batch in run.batches(list(missing), todo):
            for name, features in batch.items():
                round_through(features, cache.storage)  # refuses what does not fit
                parts[name].write(start, features)
            advance(len(features))
        for part in parts.values():
            part.finish()


def _blank(dataset: Images, layer: str, fingerprint: Fingerprint) -> FeatureSet:
    """Labels, classes and ids without features: what a file is begun with."""
    empty = torch.empty(len(dataset), 0)
    return FeatureSet(empty, dataset.labels, tuple(dataset.classes), tuple(dataset.ids), layer, fingerprint.digest)
