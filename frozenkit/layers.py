"""What layers a network has, in which order they finish, and what shape they give: one pass on the meta device."""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenkit.errors import ActivationError


@dataclass(frozen=True)
class Trace:
    """The layers of a network that run exactly once and return one tensor, in the order in which they finish.

    Attributes:
        outputs: Name to output shape for one image, batch dimension left out.
        image_size: Side of the input, pixels.
    """

    outputs: dict[str, tuple[int, ...]]
    image_size: int

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names, first to finish first."""
        return tuple(self.outputs)

    def is_channels_last(self, name: str) -> bool:
        """Whether a map comes as (h, w, c), as in Swin; square inputs give square maps, which tells h and w from c."""
        shape = self.outputs[name]
        return len(shape) == 3 and shape[0] == shape[1] != shape[2]

    def hwc(self, name: str) -> tuple[int, int, int]:
        """Shape as (h, w, c): a vector is (1, 1, c), t tokens are (t, 1, c)."""
        shape = self.outputs[name]
        if len(shape) == 3:
            return shape if self.is_channels_last(name) else (shape[1], shape[2], shape[0])
        if len(shape) == 2:
            return (shape[0], 1, shape[1])
        return (1, 1, math.prod(shape))


def trace_layers(module: nn.Module, image_size: int) -> Trace:
    """Runs one imaginary image through the network; nothing is computed and nothing in the module changes.

    Args:
        module: Any network that takes (b, 3, image_size, image_size).
        image_size: Pixels.

    Raises:
        ActivationError: If the network does not accept this size.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    runs: Counter[str] = Counter()

    def note(name: str, output: object) -> None:
        runs[name] += 1
        if isinstance(output, Tensor) and output.ndim >= 2:
            shapes[name] = tuple(output.shape[1:])

    # Parameters are swapped for meta copies during the call only: this works where building on meta does not.
    imaginary = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with in_eval_mode(module), hooked(module, note), torch.no_grad():
        try:
            torch.func.functional_call(module, imaginary, image)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0][:160]
            raise ActivationError(f"the network does not take {image_size} px images: {reason}") from error
    return Trace({name: shape for name, shape in shapes.items() if name and runs[name] == 1}, image_size)


def penultimate_layer(module: nn.Module, trace: Trace) -> str:
    """The last layer to finish before the classifier, the last `nn.Linear`; the last of all if there is none."""
    names = list(trace.names)
    modules = dict(module.named_modules())
    linear = [i for i, name in enumerate(names) if isinstance(modules[name], nn.Linear)]
    if linear:
        names = names[: linear[-1]] or names
    skipped = (nn.Dropout, nn.Identity, nn.Flatten)
    return next((n for n in reversed(names) if not isinstance(modules[n], skipped)), names[-1])


def module_stages(module: nn.Module, trace: Trace, default_layer: str) -> tuple[str, ...]:
    """The network's big steps up to the default layer.

    Children that hold weights, normalisations aside; while they are fewer than five, the largest is opened up. For
    ResNet-50 that gives conv1, layer1 … layer4, avgpool.
    """
    finish = {name: i for i, name in enumerate(trace.names)}
    last = finish[default_layer]
    modules = dict(module.named_modules())

    def size(name: str) -> int:
        return sum(p.numel() for p in modules[name].parameters())

    def steps(parent: str) -> list[str]:
        prefix = f"{parent}." if parent else ""
        children = [f"{prefix}{child}" for child, _ in modules[parent].named_children()]
        return [c for c in children if size(c) and "Norm" not in type(modules[c]).__name__ and first(c) <= last]

    def first(name: str) -> int:
        """When the first layer inside `name` finishes."""
        inside = [i for layer, i in finish.items() if layer == name or layer.startswith(f"{name}.")]
        return min(inside, default=last + 1)

    stages = steps("")
    while len(stages) < 5:
        openable = [s for s in stages if len(steps(s)) > 1]
        if not openable:
            break
        largest = max(openable, key=size)
        at = stages.index(largest)
        stages[at : at + 1] = steps(largest)
    chosen = {s for s in stages if s in finish and finish[s] <= last} | {default_layer}
    return tuple(sorted(chosen, key=finish.__getitem__))


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
    module: nn.Module, note: Callable[[str, object], None], names: Container[str] | None = None
) -> Iterator[None]:
    """Calls ``note(name, output)`` whenever a (named) submodule finishes; all hooks are gone after the block."""

    def hook(name: str) -> Callable[..., None]:
        def report(_module: nn.Module, _inputs: object, output: object) -> None:
            note(name, output)  # returns nothing: what a hook returns would replace the output

        return report

    handles = [
        m.register_forward_hook(hook(name)) for name, m in module.named_modules() if names is None or name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
