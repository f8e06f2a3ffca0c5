"""The key of an extraction: every ingredient that decides the numbers, and what preprocessing and network do."""

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from frozenkit._arrays import described
from frozenkit._devices import full_float32, resolve_precision
from frozenkit.errors import InputError
from frozenkit.extraction.cache import FeatureCache, check_cache, check_storage
from frozenkit.features import Features
from frozenkit.fingerprint import (
    FORMAT,
    Fingerprint,
    behaviours,
    digest_tensor,
    digest_weights,
    module_state,
    probe_images,
    probe_preprocess,
    stable_repr,
)
from frozenkit.images.dataset import ImageDataset, Images
from frozenkit.images.huggingface import from_huggingface, is_huggingface
from frozenkit.images.pairs import from_torch
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import check_pooling, in_eval_mode, pooled_activations


def fingerprint_of(
    backbone: Backbone,
    dataset: Images,
    layer: str,
    *,
    pooling: str = "mean",
    precision: str = "auto",
    storage: str = "float32",
    cache: FeatureCache | None = None,
) -> Fingerprint:
    """What `extract` files these features under: every ingredient that decides the numbers, defaults included.

    Preprocessing and network count by what they *do*. Two fixed images are preprocessed, and every byte counts; one of
    them goes through the network, and its pooled output at this layer counts, rounding aside (see
    `frozenkit.fingerprint.behaviours`). Weights, buffers, the network's printed structure and its modules' plain
    attributes count exactly. So closures, lambdas, edited forwards and hooks are told apart, and an equal pipeline
    agrees in another process and on another machine.

    Not covered: what preprocessing or network do differently on other images only; an edited forward that moves the
    layer's output by much less than 1 %; the library that decodes the files (another Pillow may decode a JPEG
    differently in the last bit). A network whose plain attributes change with each pass, such as a counter, never finds
    its own entries again.

    Args:
        backbone: As in `extract`.
        dataset: As in `extract`.
        layer: One layer.
        pooling: As in `extract`.
        precision: As in `extract`; ``"auto"`` counts as what it resolves to here, ``"fast"`` with the type of device.
        storage: The cache's storage type, unless `cache` is given.
        cache: Where to look: of two fingerprints that only rounding tells apart, the stored one is taken.

    Raises:
        InputError: If preprocessing is random, if preprocessing or network do not take the fixed images, or if layer,
            pooling, precision or storage are none that `extract` knows.
    """
    check_backbone(backbone)
    if not isinstance(layer, str):
        raise InputError(f"`layer` must be the name of one layer, got {described(layer)}. List them: backbone.layers.")
    backbone.check_layer(layer)
    check_pooling(pooling)
    check_storage(storage)
    check_cache(cache)
    dataset = as_images(dataset)
    resolved = resolve_precision(precision, backbone.device.type)
    storage = cache.storage if cache is not None else storage
    return fingerprints(backbone, dataset, [layer], pooling, resolved, storage, cache)[layer]


class NoFingerprintError(InputError):
    """What preprocessing and network do cannot be told."""


def fingerprints(
    backbone: Backbone,
    dataset: Images,
    layers: Sequence[str],
    pooling: str,
    precision: str,
    storage: str,
    cache: FeatureCache | None,
) -> dict[str, Fingerprint]:
    """The keys of several layers, from one pass; of two that only rounding tells apart, the one that is stored."""
    preprocess_digest, outputs = probe_backbone(backbone, layers, pooling)
    shared = {
        "format": FORMAT,
        "dataset": dataset.name,  # names are for the reader; digests decide
        "dataset_digest": dataset.digest,
        "n": len(dataset),
        "backbone": backbone.name,
        "weights_digest": backbone.digest,  # after the pass, which may set plain attributes
        "preprocess": stable_repr(backbone.preprocess),
        "preprocess_digest": preprocess_digest,
        "image_size": backbone.image_size,
        "pooling": pooling,
        "precision": f"fast on {backbone.device.type}" if precision == "fast" else precision,
        "storage": storage,
    }
    prints = {}
    for layer in layers:
        # The prefix: tokens that are no patches, left out by "mean" and its like.
        own = {**shared, "layer": layer, "prefix_tokens": backbone.trace().prefix(layer)}
        each = [Fingerprint({**own, "output_digest": digest}) for digest in behaviours(outputs[layer])]
        stored = [fingerprint for fingerprint in each if cache is not None and fingerprint.digest in cache]
        prints[layer] = (stored or each)[0]
    return prints


def probe_backbone(backbone: Backbone, layers: Sequence[str], pooling: str) -> tuple[str, dict[str, Tensor]]:
    """A digest of what preprocessing makes of fixed images, and what the layers give for the first, in float32.

    Raises:
        NoFingerprintError: If preprocessing is random, or preprocessing or network do not take these images.
    """
    # Preprocessing that keeps an image's size needs one that fits the network.
    square = (backbone.image_size, backbone.image_size)
    for images in (probe_images(), probe_images([square])):
        try:
            tensors = probe_preprocess(backbone.preprocess, images)
            with in_eval_mode(backbone.module), torch.no_grad(), full_float32():
                batch = tensors[0][None].to(backbone.device)
                outputs = pooled_activations(backbone.module, batch, layers, pooling, backbone.trace())
            digest = hashlib.sha256("".join(map(digest_tensor, tensors)).encode()).hexdigest()
        except InputError as error:
            raise NoFingerprintError(str(error)) from error
        except Exception as error:  # other people's preprocessing and networks raise what they like
            reason = error
        else:
            return digest, outputs
    raise NoFingerprintError(
        f"`preprocess` and the network must take any RGB image, but a test image of {square[0]}×{square[1]} pixels gave"
        f" {type(reason).__name__}: {reason}. Mend that, or extract without a cache."
    ) from reason


# Backbone → (the state of its module, the digest of its weights).
_weights: WeakKeyDictionary[Backbone, tuple[Any, str]] = WeakKeyDictionary()


def backbone_digests(backbone: Backbone) -> tuple[str, str]:
    """Digests of the weights, taken once for each state of the module, and of what preprocessing makes of fixed images.

    The second is empty where it cannot be told: if preprocessing is random, or does not take these images.
    """
    state = module_state(backbone.module)
    if backbone not in _weights or _weights[backbone][0] != state:
        _weights[backbone] = (state, digest_weights(backbone.module))
    try:
        tensors = probe_preprocess(backbone.preprocess, probe_images())
        preprocessing = hashlib.sha256("".join(map(digest_tensor, tensors)).encode()).hexdigest()
    except Exception:  # other people's preprocessing raises what it likes
        preprocessing = ""
    return _weights[backbone][1], preprocessing


def as_images(dataset: Any) -> Images:
    """The one door for images: a dataset that says who its images are, else what `from_torch` makes of it, or
    `from_huggingface` does.
    """
    if isinstance(dataset, ImageDataset):
        return dataset.pinned()  # one digest from here on, even if another thread takes a newer one meanwhile
    if isinstance(dataset, Features):
        raise InputError(f"`dataset` must hold images, got {dataset!r}. These features are extracted already.")
    named = all(hasattr(dataset, name) for name in ("labels", "classes", "ids", "name"))
    # Asked of the class where it is a property, which would read every image.
    if named and (hasattr(type(dataset), "digest") or hasattr(dataset, "digest")):
        return dataset
    return from_huggingface(dataset) if is_huggingface(dataset) else from_torch(dataset)
