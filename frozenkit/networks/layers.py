"""What layers a network has, in which order they finish, and what shape they give: one pass on the meta device."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenkit.errors import ActivationError, InputError

_ONE_PASS = threading.RLock()

# What the classifier takes, where no layer that does something gives exactly that: a CLS token, say, or a mean taken
# by a function. Headless networks: what they give.
PRE_LOGITS = "pre_logits"
_TRIVIAL = (nn.Dropout, nn.Identity, nn.Flatten)
_CLS_TOKENS = {"cls_token", "class_token", "class_embedding"}
_PREFIX_TOKENS = {*_CLS_TOKENS, "dist_token", "distillation_token", "reg_token", "register_tokens"}


@dataclass(frozen=True)
class Trace:
    """The layers of a network that run exactly once and return one tensor, in the order in which they finish.

    Attributes:
        outputs: Name to output shape for one image, batch dimension left out.
        image_size: Side of the input, pixels.
        classifiers: The linear layers whose outputs are the logits; several (distilled DeiT) are averaged, and none
            means that the network is headless.
        penultimate: The layer that holds what the classifiers read, side by side; of a headless network its output.
        n_prefix_tokens: CLS, distillation and register tokens that stand before the patches.
        has_cls: Whether the first of them is a CLS token; there are transformers with registers alone.
    """

    outputs: dict[str, tuple[int, ...]]
    image_size: int
    classifiers: tuple[str, ...] = ()
    penultimate: str = ""
    n_prefix_tokens: int = 0
    has_cls: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names, first to finish first."""
        return tuple(self.outputs)

    def is_channels_last(self, name: str) -> bool:
        """Whether a map comes as (h, w, c), as in Swin; square inputs give square maps, which tells h and w from c."""
        shape = self.outputs[name]
        return len(shape) == 3 and shape[0] == shape[1] != shape[2]

    def prefix(self, name: str) -> int:
        """How many of a layer's tokens stand before the patches; 0 where they are not there yet, or no longer.

        There are as many patches as positions before the first tokens, or, where patches are merged later, s² of them,
        which tells 197 tokens (a CLS and 14²) from 196.
        """
        shape = self.outputs[name]
        patches = shape[0] - self.n_prefix_tokens if len(shape) == 2 else 0
        if patches < 1 or shape[0] == self._n_patches:
            return 0
        merged = math.isqrt(patches) ** 2 == patches and math.isqrt(shape[0]) ** 2 != shape[0]
        return self.n_prefix_tokens if merged or patches == self._n_patches else 0

    @property
    def _n_patches(self) -> int:
        """Positions of the last map before the first tokens."""
        last = 0
        for name, shape in self.outputs.items():
            if len(shape) == 2:
                break
            last = math.prod(self.hwc(name)[:2]) if len(shape) == 3 else last
        return last

    def hwc(self, name: str) -> tuple[int, int, int]:
        """Shape as (h, w, c): a vector is (1, 1, c), t tokens are (t, 1, c)."""
        shape = self.outputs[name]
        if len(shape) == 3:
            return shape if self.is_channels_last(name) else (shape[1], shape[2], shape[0])
        if len(shape) == 2:
            return (shape[0], 1, shape[1])
        return (1, 1, math.prod(shape))


def trace_layers(module: nn.Module, image_size: int, n_prefix_tokens: int | None = None) -> Trace:
    """Runs one imaginary image through the network; nothing is computed and nothing in the module changes.

    Args:
        module: Any network that takes (b, 3, image_size, image_size).
        image_size: Pixels.
        n_prefix_tokens: As in `Backbone`; None looks for them.

    Raises:
        ActivationError: If the network does not accept this size.
    """
    taken: dict[str, Tensor] = {}
    given: dict[str, tuple[Tensor, int]] = {}  # with the version, which an in-place change raises
    runs: Counter[str] = Counter()

    def note(name: str, output: object) -> None:
        runs[name] += 1
        if isinstance(output, Tensor) and output.ndim >= 2:
            given[name] = (output, output._version)

    def note_input(name: str) -> Callable[..., None]:
        def report(_module: nn.Module, inputs: tuple[object, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                taken[name] = inputs[0]

        return report

    # Parameters are swapped for meta copies during the call only: this works where building on meta does not.
    imaginary = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    linear = {n: m for n, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    handles = [m.register_forward_pre_hook(note_input(name)) for name, m in linear.items()]
    try:
        with in_eval_mode(module), hooked(module, note), torch.no_grad():
            torch.func.functional_call(module, imaginary, image)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ActivationError(f"the network does not take {image_size} px images: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    shapes = {name: tuple(t.shape[1:]) for name, (t, _) in given.items() if name and runs[name] == 1}
    logits = given[""][0] if "" in given else None
    classifiers = _classifiers(module, shapes, None if logits is None else tuple(logits.shape[1:]))
    sources = [taken[name] for name in classifiers] or ([] if logits is None else [logits])
    names = list(shapes)
    before = names[: names.index(classifiers[0])] if classifiers else names
    penultimate = _holder(module, before, given, sources, shapes)
    if penultimate is None:
        penultimate = PRE_LOGITS
        shape = (sum(t[0].numel() for t in sources),)
        shapes = {n: shapes[n] for n in before} | {PRE_LOGITS: shape} | shapes
    n_prefix = prefix_tokens(module) if n_prefix_tokens is None else n_prefix_tokens
    return Trace(shapes, image_size, classifiers, penultimate, n_prefix, _has_cls(module, n_prefix))


def _classifiers(
    module: nn.Module, shapes: dict[str, tuple[int, ...]], logits: tuple[int, ...] | None
) -> tuple[str, ...]:
    """The last linear layers, if what they give has the shape of what the network gives, one vector per image."""
    modules = dict(module.named_modules())
    linear = [name for name in shapes if isinstance(modules[name], nn.Linear)]
    if logits is None and linear:  # several outputs: nothing may come after it but what it is part of
        after = list(shapes)[list(shapes).index(linear[-1]) + 1 :]
        if any(_size(modules[name]) and not linear[-1].startswith(f"{name}.") for name in after):
            return ()
    if not linear or (logits is not None and (len(logits) != 1 or shapes[linear[-1]] != logits)):
        convolutions = [name for name in shapes if isinstance(modules[name], nn.Conv2d)]
        known = getattr(module, "num_classes", None)  # SqueezeNet's classifier is a convolution
        is_last = convolutions and known and shapes[convolutions[-1]][0] == known and logits == (known,)
        return (convolutions[-1],) if is_last and not linear else ()
    if len(linear) > 1 and shapes[linear[-2]] == shapes[linear[-1]]:
        first, second = modules[linear[-2]], modules[linear[-1]]
        between = list(shapes)[list(shapes).index(linear[-2]) + 1 : list(shapes).index(linear[-1])]
        apart = second.in_features != first.out_features  # the one cannot feed the other
        if apart and all(isinstance(modules[name], _TRIVIAL) for name in between):
            return (linear[-2], linear[-1])
    return (linear[-1],)


def _holder(
    module: nn.Module,
    names: list[str],
    given: dict[str, tuple[Tensor, int]],
    sources: list[Tensor],
    shapes: dict[str, tuple[int, ...]],
) -> str | None:
    """The last layer that does something and whose output is the very tensor wanted, as one vector per image."""
    modules = dict(module.named_modules())
    able = [name for name in names if not isinstance(modules[name], _TRIVIAL)] or names
    if not sources or (len(sources) == 1 and sources[0].ndim != 2):  # a map or tokens: what is pooled is pooled
        return able[-1] if able else None
    if len(sources) > 1:
        return None

    def is_it(name: str) -> bool:
        output, version = given[name]
        same = output.untyped_storage()._cdata == sources[0].untyped_storage()._cdata
        width = sources[0].numel()
        return same and output._version == version and shapes[name] in ((width,), (width, 1, 1))

    return next((name for name in reversed(able) if is_it(name)), None)


def prefix_tokens(module: nn.Module) -> int:
    """How many CLS, distillation and register tokens a transformer puts before its patches; 0 for other networks.

    Example:
        >>> import timm
        >>> prefix_tokens(timm.create_model("deit_tiny_distilled_patch16_224"))
        2
    """
    known = getattr(module, "num_prefix_tokens", None)
    return known if isinstance(known, int) else sum(_token_parameters(module).values())


def _token_parameters(module: nn.Module) -> dict[str, int]:
    """Name of a parameter to how many tokens it holds; those of several scales or towers (cls_token1, …) count once."""
    counts: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        kind = name.rpartition(".")[2].rstrip("0123456789").rstrip("_")
        if kind in _PREFIX_TOKENS:
            counts[kind] = max(counts.get(kind, 0), parameter.shape[-2] if parameter.ndim > 1 else 1)
    return counts


def _has_cls(module: nn.Module, n_prefix_tokens: int) -> bool:
    """Whether the first token is a CLS token; taken for granted where there are some and no parameter's name tells."""
    kinds = set(_token_parameters(module))
    return n_prefix_tokens > 0 and bool(kinds & _CLS_TOKENS or not kinds)


def module_stages(module: nn.Module, trace: Trace, default_layer: str) -> tuple[str, ...]:
    """The network's big steps up to the default layer.

    Of a transformer: what comes before its blocks, all blocks, the norm after them. Of another network: children that
    hold weights, normalisations aside; while they are fewer than five, the largest is opened up. For ResNet-50 that
    gives conv1, layer1 … layer4, avgpool.
    """
    finish = {name: i for i, name in enumerate(trace.names)}
    last = finish[default_layer]
    modules = dict(module.named_modules())

    def steps(parent: str) -> list[str]:
        prefix = f"{parent}." if parent else ""
        children = [f"{prefix}{child}" for child, _ in modules[parent].named_children()]
        found = [c for c in children if _size(modules[c]) and not _is_norm(modules[c]) and first(c) <= last]
        # A lone list that is no layer, such as an encoder's of its stages, is looked through.
        return steps(found[0]) if len(found) == 1 and found[0] not in finish else found

    def first(name: str) -> int:
        """When the first layer inside `name` finishes."""
        inside = [i for layer, i in finish.items() if layer == name or layer.startswith(f"{name}.")]
        return min(inside, default=last + 1)

    def open_up(stage: str) -> None:
        at = stages.index(stage)
        stages[at : at + 1] = steps(stage)

    stages = steps("")
    blocks = [name for name in _transformer_blocks(modules, trace) if finish[name] <= last]
    if blocks:
        while around := [s for s in stages if blocks[0].startswith(f"{s}.")]:
            open_up(around[0])
        after = trace.names[finish[blocks[-1]] + 1 : last + 1]
        stages += [name for name in after if name in modules and _is_norm(modules[name])][:1]
    while len(stages) < 5 and not blocks:
        # A layer whose parts are none, such as lists of blocks, says more than they do.
        openable = [s for s in stages if len(steps(s)) > 1 and (s not in finish or finish.keys() & {*steps(s)})]
        if not openable:
            break
        open_up(max(openable, key=lambda name: _size(modules[name])))
    chosen = {s for s in stages if s in finish and finish[s] <= last} | {default_layer}
    return tuple(sorted(chosen, key=finish.__getitem__))


def _transformer_blocks(modules: dict[str, nn.Module], trace: Trace) -> list[str]:
    """The blocks of a transformer without a hierarchy, first to last; of another network none.

    They are neighbours of one class that give tokens; of several such classes, the one with the most weights. Where
    blocks of that class have several parents, these are the big steps.
    """
    kinds: dict[type[nn.Module], list[str]] = {}
    for name, shape in trace.outputs.items():
        if len(shape) == 2 and name in modules and any(modules[name].children()):
            kinds.setdefault(type(modules[name]), []).append(name)
    several = [names for names in kinds.values() if len(names) > 1]
    blocks = max(several, key=lambda names: sum(_size(modules[name]) for name in names), default=[])
    return blocks if len({name.rpartition(".")[0] for name in blocks}) == 1 else []


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; each submodule's own mode is given back afterwards, whatever happens."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def hooked(
    module: nn.Module,
    note: Callable[[str, object], None],
    names: Container[str] | None = None,
    classifiers: Sequence[str] | None = None,
) -> Iterator[None]:
    """Calls ``note(name, output)`` whenever a (named) submodule finishes; all hooks are gone after the block.

    Given the `classifiers` of a trace, `PRE_LOGITS` among the names is what these take, side by side, or what the
    module gives if it has none.
    """
    parts: list[Tensor] = []

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        parts.append(inputs[0])
        if len(parts) == len(classifiers or ()):
            note(PRE_LOGITS, torch.cat(parts, -1))

    def hook(name: str) -> Callable[..., None]:
        def report(_module: nn.Module, _inputs: object, output: object) -> None:
            note(name, output)  # returns nothing: what a hook returns would replace the output

        return report

    with _ONE_PASS:  # a pass of another thread would set these hooks off, and rows would change places
        handles = [
            m.register_forward_hook(hook(name)) for name, m in module.named_modules() if names is None or name in names
        ]
        try:
            if classifiers is not None and names is not None and PRE_LOGITS in names:
                for name in classifiers:
                    handles.append(module.get_submodule(name).register_forward_pre_hook(before))
                if not classifiers:
                    handles.append(module.register_forward_hook(hook(PRE_LOGITS)))
            yield
        finally:
            for handle in handles:
                handle.remove()


POOLINGS = ("mean", "max", "pyramid", "flatten", "tokens", "cls", "cls+mean")


def pooled_activations(
    module: nn.Module, images: Tensor, layers: Sequence[str], pooling: str, trace: Trace
) -> dict[str, Tensor]:
    """Pooled float32 activations of one batch; the pass ends as soon as the last layer wanted has finished.

    Gradients flow where the caller has them on. Each hook pools, and thereby copies, at once: a later in-place
    activation cannot reach what it keeps.

    Raises:
        ActivationError: If a layer did not run.
    """
    pooled: dict[str, Tensor] = {}
    # An exception would end an export, too; `is_exporting` came with torch 2.7.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()

    def note(name: str, output: object) -> None:
        if name in pooled:
            raise ActivationError(
                f"the layer {name!r} ran twice in one pass. List those that run once: backbone.layers."
            )
        pooled[name] = _pool_layer(output, name, pooling, trace)  # type: ignore[arg-type]
        if len(pooled) == len(layers) and not exporting:
            raise _Stop

    if images.ndim == 4:  # convolutions then read pixels whole: two thirds of the time, in float32 too
        images = images.to(memory_format=torch.channels_last)
    with hooked(module, note, layers, trace.classifiers), suppress(_Stop):
        module(images)
    if silent := [name for name in layers if name not in pooled]:
        raise ActivationError(f"the layer {silent[0]!r} did not run. List those that do with backbone.layers.")
    return pooled


def _pool_layer(output: Tensor, name: str, pooling: str, trace: Trace) -> Tensor:
    """What `pool` makes of a layer's output, given what the trace knows about it."""
    if output.ndim == 2 and pooling in ("tokens", "cls", "cls+mean"):
        wide = [layer for layer in trace.names[: trace.names.index(name)] if len(trace.outputs[layer]) > 1]
        raise InputError(
            f"`pooling={pooling!r}` needs tokens or a map, but the layer {name!r} gives one vector per image. "
            + (f"Take the layer before it, {wide[-1]!r}, or 'mean'." if wide else "Take 'mean'.")
        )
    return pool(output, pooling, trace.is_channels_last(name), trace.prefix(name), trace.has_cls)


def check_pooling(pooling: object) -> None:
    """Raise an `InputError` unless this is one of `POOLINGS`."""
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise InputError(f"`pooling` must be one of {', '.join(POOLINGS)}, got {pooling!r}.")


def pool(output: Tensor, pooling: str, channels_last: bool = False, n_prefix: int = 0, has_cls: bool = True) -> Tensor:
    """Activations to features; the result is float32 and owns its memory.

    Args:
        output: (b, c, h, w), or (b, h, w, c) if `channels_last`, or (b, t, d) tokens, or (b, d).
        pooling: See `extract`.
        n_prefix: How many of the tokens are CLS, distillation or register tokens, which stand first and are no patches.
        has_cls: Whether the first of these is a CLS token.

    Example:
        >>> pool(torch.ones(2, 3, 8, 8), "pyramid").shape
        torch.Size([2, 63])
    """
    check_pooling(pooling)
    x = output.float()
    if x.ndim == 4 and channels_last:
        x = x.permute(0, 3, 1, 2)
    if x.ndim == 2:
        return x.clone()
    if pooling == "flatten":
        return x.flatten(1).clone(memory_format=torch.contiguous_format)
    if pooling in ("cls", "cls+mean"):
        if x.ndim != 3:
            raise InputError(
                f"`pooling={pooling!r}` takes the first token of a transformer, but this layer gives a map."
            )
        if n_prefix < 1 or not has_cls:
            raise InputError(
                f"`pooling={pooling!r}` needs a CLS token, but this layer has "
                + ("registers and patches only. Take 'mean'." if n_prefix else "patches only. Take 'mean', or say ")
                + ("" if n_prefix else "`n_prefix_tokens` to `Backbone`.")
            )
        return x[:, 0].clone() if pooling == "cls" else torch.cat([x[:, 0], x[:, n_prefix:].mean(1)], 1)
    if x.ndim == 3:
        x = x[:, n_prefix:]
    if pooling == "tokens":
        return (x.flatten(2).transpose(1, 2) if x.ndim == 4 else x).clone(memory_format=torch.contiguous_format)
    if pooling == "mean":
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)
    if pooling == "max":
        return x.amax((2, 3)) if x.ndim == 4 else x.amax(1)
    if x.ndim == 3:
        side = math.isqrt(x.shape[1])
        if side**2 != x.shape[1]:
            raise InputError(
                f"`pooling='pyramid'` needs a square of patches, but this layer gives {x.shape[1]} tokens. Take 'mean'."
            )
        x = x.transpose(1, 2).unflatten(2, (side, side))
    cells = [nn.functional.adaptive_avg_pool2d(x, size).flatten(1) for size in (1, 2, 4)]
    return torch.cat(cells, 1)


class _Stop(BaseException):
    """Ends a forward pass; not an `Exception`, so that no module's own except clause catches it."""


def pooled_shape(trace: Trace, layer: str, pooling: str) -> tuple[int, ...]:
    """Shape of one image's features: (d,), or (t, d) for tokens."""
    imaginary = torch.empty(1, *trace.outputs[layer], device="meta")
    return tuple(_pool_layer(imaginary, layer, pooling, trace).shape[1:])
