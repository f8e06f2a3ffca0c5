"""What made these numbers? Digests, and a fingerprint whose ingredients stay readable."""

import hashlib
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit.errors import InputError

# Part of every fingerprint. Raise it whenever the same ingredients would give other numbers or another file layout.
FORMAT = 3

# `behaviours` cuts 17 numbers, each about 1 in size, into cells this wide. A change of the output by 1 % then moves at
# least one of them into another cell (missed about once in 10^13); rounding, 7e-6 at worst over five instruction sets
# and seven networks, stays far inside the border region, in which both cells count.
_CELL = 0.004
_BORDER = 1e-4
_PROJECTIONS = 16
_MOST_BORDERS = 6


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides the value of stored features, and its digest.

    Attributes:
        ingredients: Name to a JSON value; every one counts, defaults included.

    Example:
        >>> a = Fingerprint({"layer": "blocks.6", "pooling": "mean"})
        >>> b = Fingerprint({"layer": "blocks.6", "pooling": "max"})
        >>> a.digest == b.digest, a.differences(b)
        (False, {'pooling': ('mean', 'max')})
    """

    ingredients: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, the same on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(dict(self.ingredients), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def differences(self, other: "Fingerprint") -> dict[str, tuple[Any, Any]]:
        """Ingredient to (mine, theirs), for each that differs."""
        names = sorted({*self.ingredients, *other.ingredients})
        pairs = {name: (self.ingredients.get(name), other.ingredients.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Origin:
    """How features were made, as far as whoever uses them has to know it; no proof, which is the fingerprint.

    Attributes:
        backbone: Its name.
        image_size: Side of the preprocessed image, pixels.
        pooling: As in `extract`.
        precision: ``"exact"`` or ``"fast"``.
        dataset: The name of the images.
        n_images: How many were extracted; a set may hold some of them only.
        code: The Python expression that loads these images, or empty where it is not known.
        weights: A digest of the backbone's weights; empty where it is not known, as of features stored by older
            versions. This one and the next do not count when two origins are compared.
        preprocessing: A digest of what the backbone's preprocessing makes of `probe_images`, or empty.

    Example:
        >>> Origin.from_ingredients({"backbone": "resnet18", "image_size": 64, "pooling": "mean"}) is None
        True
    """

    backbone: str
    image_size: int
    pooling: str
    precision: str
    dataset: str
    n_images: int
    code: str = ""
    weights: str = field(default="", repr=False, compare=False)
    preprocessing: str = field(default="", repr=False, compare=False)

    @classmethod
    def from_ingredients(cls, ingredients: Mapping[str, Any]) -> "Origin | None":
        """What a fingerprint's ingredients, or `to_ingredients`, say; None where they do not say all of it."""
        names = {"backbone": str, "image_size": int, "pooling": str, "precision": str, "dataset": str, "n": int}
        if any(type(ingredients.get(name)) is not kind for name, kind in names.items()):
            return None
        backbone, image_size, pooling, precision, dataset, n = (ingredients[name] for name in names)
        preprocessing = ingredients.get("preprocessing", ingredients.get("preprocess_digest", ""))
        more = (ingredients.get("code", ""), ingredients.get("weights", ""), preprocessing)
        precision = precision.partition(" ")[0]  # "fast on cuda"
        known = (text if isinstance(text, str) else "" for text in more)
        return cls(backbone, image_size, pooling, precision, dataset, n, *known)

    def to_ingredients(self) -> dict[str, Any]:
        """JSON values, by the names of a fingerprint's ingredients."""
        values = asdict(self)
        return {"n": values.pop("n_images"), **values}


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer, those that `state_dict` leaves out included."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def digest_tensor(tensor: Tensor) -> str:
    """A digest of shape, dtype and every bit.

    Example:
        >>> import torch
        >>> digest_tensor(torch.tensor([0.0])) == digest_tensor(torch.tensor([-0.0]))
        False
    """
    data = tensor.detach().cpu().contiguous()
    header = f"{data.dtype}{tuple(data.shape)}".encode()
    # As bytes: NumPy has no bfloat16. Flattened first: a 0-dimensional tensor has no byte view.
    return hashlib.sha256(header + data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def digest_weights(module: nn.Module) -> str:
    """A digest of every parameter and buffer, by name."""
    total = hashlib.sha256()
    for name, tensor in sorted(named_tensors(module)):
        total.update(f"{name}={digest_tensor(tensor)};".encode())
    return total.hexdigest()


def digest_module(module: nn.Module) -> str:
    """A digest of a module's structure, of all its parameters and buffers, and of its plain attributes.

    Structure is its `repr`, without addresses in memory. A plain attribute is what code sets on a module beside those:
    numbers, strings, None, functions (by name), and lists, tuples, sets and dicts of these. So ``self.power = 2`` and
    ``self.power = 3`` differ. What `forward` does with them is not here: see `behaviours`.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before, layer.scale = digest_module(layer), 1.0
        >>> digest_module(layer) == before
        False
    """
    total = hashlib.sha256(stable_repr(module).encode())
    for name, tensor in named_tensors(module):
        total.update(f"{name}={digest_tensor(tensor)}".encode())
    for text in _attributes(module):
        total.update(text.encode(errors="surrogatepass"))
    return total.hexdigest()


def module_state(module: nn.Module) -> tuple[Any, ...]:
    """Something that differs once a module has changed, made without reading its weights.

    torch counts the writes to a tensor; those through ``.data`` or NumPy escape it.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before, _ = module_state(layer), layer.requires_grad_(False).weight.mul_(2)
        >>> module_state(layer) == before
        False
    """
    tensors = [(name, id(t), None if t.is_inference() else t._version) for name, t in named_tensors(module)]
    return stable_repr(module), tensors, _attributes(module)


def _attributes(module: nn.Module) -> list[str]:
    """The plain attributes of a module and its parts, part by part."""
    texts = []
    for name, part in module.named_modules():
        values = {k: _plain(v) for k, v in vars(part).items() if k not in _MODULE_ATTRIBUTES}
        texts.append(f"{name}:{sorted(values.items())}")
    return texts


def stable_repr(value: object) -> str:
    """`repr` without addresses in memory, which differ from process to process and are given out again.

    Example:
        >>> stable_repr(lambda image: image)
        '<function <lambda>>'
    """
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # its own bookkeeping: parameters, hooks, modes


def _plain(value: object, depth: int = 4) -> str:
    """Text for a plain value; just the type's name for anything else, whose state may come and go with each pass."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | torch.dtype):
        return repr(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if depth and isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{_plain(k, depth - 1)}: {_plain(v, depth - 1)}' for k, v in value.items()))}}}"
    if depth and isinstance(value, list | tuple):
        return f"[{', '.join(_plain(v, depth - 1) for v in value)}]"
    if depth and isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_plain(v, depth - 1) for v in value))}}}"
    return type(value).__qualname__


def behaviours(output: Tensor) -> list[str]:
    """Digests of what a network gave on a probe, blind to rounding: equal outputs share one, others do not.

    The logarithm of the output's norm and 16 fixed random projections of its direction are cut into cells, and the
    cells are digested. No function of a real number can be both constant under rounding and not constant: every cell
    has a border. So where a number lies at a border, within 1e-4, both sides are given: of two computations that differ
    by rounding, up to 2e-5 of the norm, the first digest of the one is among those of the other (1,000 of 1,000).
    Outputs that differ by 1 % or more share none (0 of 1,000); by 0.1 %, some do. Not finite values count by place.

    Args:
        output: Any shape.

    Returns:
        The digest to file under first, then those which rounding elsewhere could have given; mostly one to four.

    Example:
        >>> y = torch.arange(1.0, 9.0)
        >>> behaviours(y)[0] in behaviours(y * (1 + 1e-6)), behaviours(y)[0] in behaviours(y * 1.01)
        (True, False)
    """
    y = output.detach().double().cpu().contiguous().numpy().ravel()
    finite = np.isfinite(y)
    head = hashlib.sha256(f"{tuple(output.shape)}".encode() + np.packbits(finite).tobytes()).digest()
    y = np.where(finite, y, 0)
    norm = float(np.linalg.norm(y))
    if norm == 0:
        return [hashlib.sha256(head).hexdigest()]
    # The bits come from a hash, so that every machine and every version draws the same.
    size = -(-len(y) // 8)
    signs = np.frombuffer(hashlib.shake_128(b"frozenkit").digest(_PROJECTIONS * size), np.uint8).reshape(-1, size)
    y = y / norm
    projected = [2 * y[np.unpackbits(row, count=len(y)).view(bool)].sum() - y.sum() for row in signs]
    offsets = np.arange(_PROJECTIONS + 1) * 0.6180339887  # so that round numbers do not all lie on borders
    place = np.array([np.log(norm), *projected]) / _CELL + offsets
    cells = np.floor(place).astype(np.int64)
    beside = place - np.round(place)  # below 0: just under a border; above: just past it
    other = cells + np.where(beside < 0, 1, -1)
    nearest = np.argsort(np.abs(beside))[:_MOST_BORDERS]
    near = [i for i in nearest if abs(beside[i]) < _BORDER / _CELL]
    found = []
    for flips in itertools.product((False, True), repeat=len(near)):
        variant = cells.copy()
        for i, flip in zip(near, flips, strict=True):
            variant[i] = other[i] if flip else cells[i]
        found.append(hashlib.sha256(head + variant.astype("<i8").tobytes()).hexdigest())
    return found


def probe_images(sizes: Sequence[tuple[int, int]] = ((331, 247), (61, 97))) -> list[Image.Image]:
    """Fixed RGB images on which preprocessing shows what it does; the same on every machine.

    Neither square nor symmetric, with slopes, edges, fine stripes and noise, and with three channels that differ: so
    size, crop, aspect ratio, interpolation, order of colours and normalisation each change some byte.

    Args:
        sizes: (width, height), pixels, of each.

    Example:
        >>> [image.size for image in probe_images()]
        [(331, 247), (61, 97)]
    """
    images = []
    for width, height in sizes:
        y, x = np.mgrid[:height, :width]
        noise = np.frombuffer(hashlib.shake_128(b"frozenkit probe").digest(height * width), np.uint8)
        red = 255 * x // width
        green = 200 * y // height + 50 * ((x // 7 + y // 5) % 2)
        blue = np.where((x - width // 3) ** 2 + (y - height // 2) ** 2 < min(width, height) ** 2 // 9, 230, 40)
        pixels = np.stack([red, green, blue], -1) * 3 // 4 + noise.reshape(height, width, 1) // 4
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return images


def probe_preprocess(preprocess: Callable[[Image.Image], Tensor], images: Sequence[Image.Image]) -> list[Tensor]:
    """What preprocessing makes of some images, after making sure that it always makes the same of them.

    Raises:
        InputError: If it gives one image two results, as random augmentation does.
    """
    before = _random_state()
    try:
        tensors = [preprocess(image.copy()) for image in images]
        digests = [digest_tensor(tensor) for tensor in tensors]
        # One more look finds noise and random crops; whoever draws from a global generator may act now and then only.
        drew = _random_state() != before
        for _ in range(32 if drew else 1):
            if [digest_tensor(preprocess(image.copy())) for image in images] != digests:
                raise InputError(
                    f"`preprocess` must give one image the same numbers each time, but {stable_repr(preprocess)[:200]}"
                    " does not. Take random augmentation out of it, or extract without a cache."
                )
    finally:
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        random.setstate(before[1])
        np.random.set_state(before[2])
    return tensors


def _random_state() -> tuple[Any, ...]:
    """The global generators of torch, Python and NumPy."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    state = {**numpy["state"], "key": numpy["state"]["key"].tolist()}
    return torch.get_rng_state().tolist(), random.getstate(), {**numpy, "state": state}
