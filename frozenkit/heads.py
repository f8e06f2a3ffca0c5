"""Heads: the small modules g that map frozen features to logits, and the published rules for choosing one.

Every head takes (b, d) features or (b, t, d) tokens and gives (b, k) logits, or k values in regression. All but
`AttentionHead` average tokens first.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit.errors import InputError, UnknownNameError
from frozenkit.features import LayerMix
from frozenkit.prototypes import PrototypicalHead, averaged, check_sizes

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class LinearHead(nn.Module):
    """One linear map, the standard way to measure features: convex, d·k + k parameters, and it cannot bend.

    Args:
        d: Width of the features.
        k: Number of classes, or of values in regression.
        normalize: Scale each feature vector to length 1 first.
        temperature: Divides the logits, > 0.

    Example:
        >>> LinearHead(4, 3)(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, d: int, k: int, *, normalize: bool = False, temperature: float = 1.0) -> None:
        super().__init__()
        check_sizes(d=d, k=k)
        _check_temperature(temperature)
        self.normalize = normalize
        self.temperature = temperature
        self.linear = nn.Linear(d, k)

    @classmethod
    def from_map(cls, weights: Tensor, intercept: Tensor) -> "LinearHead":
        """A head with these (d, k) weights and (k,) intercept, such as those of a ridge or softmax path.

        Example:
            >>> LinearHead.from_map(torch.eye(2), torch.tensor([0.0, 1.0]))(torch.tensor([[2.0, 3.0]])).tolist()
            [[2.0, 4.0]]
        """
        head = cls(*weights.shape)
        with torch.no_grad():
            head.linear.weight.copy_(weights.T)
            head.linear.bias.copy_(intercept)
        return head

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) or (b, t, d) to (b, k)."""
        x = averaged(x)
        if self.normalize:
            x = nn.functional.normalize(x, dim=-1)
        return self.linear(x) / self.temperature


class MLPHead(nn.Module):
    """A multilayer perceptron: linear, batch norm, activation, dropout per hidden layer, and a linear map at the end.

    Args:
        d: Width of the features.
        k: Number of classes, or of values in regression.
        hidden: Widths of the hidden layers.
        activation: ``"relu"``, ``"gelu"`` or ``"silu"``.
        dropout: Share of hidden units silenced in training, in [0, 1).
        batch_norm: Normalise hidden units over the batch; training then needs two rows or more a batch.

    Example:
        >>> MLPHead(4, 3, hidden=(8, 8)).eval()(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        d: int,
        k: int,
        *,
        hidden: Sequence[int] = (512,),
        activation: str = "relu",
        dropout: float = 0.5,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(d=d, k=k, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        if activation not in _ACTIVATIONS:
            raise UnknownNameError("activation", activation, _ACTIVATIONS)
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1), got {dropout!r}.")
        parts: list[nn.Module] = []
        widths = [d, *hidden]
        for before, after in pairwise(widths):
            parts.append(nn.Linear(before, after))
            if batch_norm:
                parts.append(nn.BatchNorm1d(after))
            parts += [_ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*parts, nn.Linear(widths[-1], k))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) or (b, t, d) to (b, k)."""
        return self.layers(averaged(x))


class AttentionHead(nn.Module):
    """Attention over spatial positions, before pooling: learned queries decide which tokens count, then a linear map.

    Tokens are normalised and mapped to keys and values; each of the heads asks with one learned query, and its weighted
    mean of values is its share of the summary (Lee et al., 2019, Set Transformer, equation 11, with one seed).
    Queries start at zero: at first every token counts the same.

    Args:
        d: Width of a token; a multiple of `heads`.
        k: Number of classes, or of values in regression.
        heads: Number of queries.

    Example:
        >>> head = AttentionHead(8, 3, heads=2)
        >>> tokens = torch.randn(5, 49, 8)
        >>> head(tokens).shape, head.attention(tokens).shape
        (torch.Size([5, 3]), torch.Size([5, 2, 49]))
    """

    def __init__(self, d: int, k: int, *, heads: int = 4) -> None:
        super().__init__()
        check_sizes(d=d, k=k, heads=heads)
        if d % heads:
            raise InputError(f"`heads` must divide the width {d} of a token, got {heads}. Try {math.gcd(d, 8)}.")
        self.heads = heads
        self.norm = nn.LayerNorm(d)
        self.queries = nn.Parameter(torch.zeros(heads, d // heads))
        self.keys = nn.Linear(d, d)
        self.values = nn.Linear(d, d)
        self.linear = nn.Linear(d, k)

    def attention(self, x: Tensor) -> Tensor:
        """(b, t, d) to (b, heads, t) weights that sum to 1 over the tokens: which positions each query looks at."""
        return self._weights(self.norm(_as_tokens(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d), or (b, d) as one token, to (b, k)."""
        tokens = self.norm(_as_tokens(x))
        values = self.values(tokens).unflatten(-1, (self.heads, -1))  # (b, t, heads, d / heads)
        summary = torch.einsum("bht,bthc->bhc", self._weights(tokens), values)
        return self.linear(summary.flatten(1))

    def _weights(self, tokens: Tensor) -> Tensor:
        keys = self.keys(tokens).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("hc,bthc->bht", self.queries, keys) / self.queries.shape[1] ** 0.5
        return scores.softmax(-1)  # shifted by its maximum inside, so it cannot overflow


class LayerMixHead(nn.Module):
    """A learned mix of layers and a linear map: after training, `weights` reads as a choice of layers.

    Args:
        dims: Widths of the layers, in order.
        k: Number of classes, or of values in regression.

    Example:
        >>> head = LayerMixHead([3, 5], 2)
        >>> head([torch.zeros(4, 3), torch.zeros(4, 5)]).shape, head(torch.zeros(4, 8)).shape
        (torch.Size([4, 2]), torch.Size([4, 2]))
    """

    def __init__(self, dims: Sequence[int], k: int) -> None:
        super().__init__()
        check_sizes(k=k)
        self.dims = tuple(dims)
        self.mix = LayerMix(self.dims)
        self.linear = nn.Linear(self.mix.output_dim, k)

    @property
    def weights(self) -> Tensor:
        """(layers,) share of each layer, summing to 1."""
        return self.mix.weights

    def forward(self, layers: Tensor | Sequence[Tensor]) -> Tensor:
        """A list of (b, d_i), or the layers side by side as `combine` gives them, (b, Σd), to (b, k)."""
        if isinstance(layers, Tensor):
            if layers.shape[-1] != sum(self.dims):
                raise InputError(f"the layers must be {sum(self.dims)} wide together, got {layers.shape[-1]}.")
            layers = layers.split(self.dims, dim=-1)
        return self.linear(self.mix([averaged(x) for x in layers]))


@dataclass(frozen=True)
class HeadRule:
    """One line of a published rule of thumb.

    Attributes:
        below: Holds where there are fewer than so many examples (a class, or in all).
        kind: ``"linear"``, ``"mlp"`` or ``"prototypical"``.
        settings: Keyword arguments of the head.
        advice: The rule in words.
    """

    below: float
    kind: str
    settings: Mapping[str, Any]
    advice: str


# Rule -> its lines, read from the top: the first whose `below` exceeds the number of examples holds. The rules can
# disagree (90 examples in 10 classes), and neither was derived from data: treat them as claims to be tested.
HEAD_RULES: dict[str, tuple[HeadRule, ...]] = {
    "per-class": (
        HeadRule(10, "prototypical", {"metric": "cosine"}, "prototypical, cosine"),
        HeadRule(50, "linear", {"normalize": True}, "linear, normalised"),
        HeadRule(200, "mlp", {"hidden": (512,), "dropout": 0.5}, "MLP with one hidden layer of 512, dropout 0.5"),
        HeadRule(math.inf, "mlp", {"hidden": (1024, 512), "dropout": 0.3}, "MLP with 1024 and 512, dropout 0.3"),
    ),
    "data-size": (
        HeadRule(100, "linear", {}, "linear"),
        HeadRule(1_000, "linear", {}, "linear or small MLP"),
        HeadRule(10_000, "mlp", {"hidden": (512,)}, "MLP with 1–2 layers"),
        HeadRule(math.inf, "mlp", {"hidden": (1024, 512, 256)}, "deeper MLP, or consider fine-tuning"),
    ),
}
_KINDS: dict[str, Any] = {"linear": LinearHead, "mlp": MLPHead, "prototypical": PrototypicalHead}


@dataclass(frozen=True, eq=False)
class Selection:
    """A head, and why a rule chose it.

    Attributes:
        head: Ready to train.
        reason: One sentence.
    """

    head: nn.Module
    reason: str

    def __repr__(self) -> str:
        return f"Selection({type(self.head).__name__}: {self.reason})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def select_head(d: int, k: int, n: int, *, task: str = "classification", rule: str = "per-class") -> Selection:
    """The head that a published rule of thumb names for this much data.

    Args:
        d: Width of the features.
        k: Number of classes, or of values in regression.
        n: Number of training examples, in all.
        task: ``"classification"`` or ``"regression"``; regression has no classes, and goes by ``"data-size"``.
        rule: A key of `HEAD_RULES`: ``"per-class"`` or ``"data-size"``.

    Returns:
        A `Selection` with the head and the reason.

    Example:
        >>> select_head(1280, 10, 90)
        Selection(PrototypicalHead: 9 examples a class are fewer than 10: prototypical, cosine.)
        >>> select_head(1280, 10, 90, rule="data-size")
        Selection(LinearHead: 90 examples are fewer than 100: linear.)
    """
    check_sizes(d=d, k=k, n=n)
    if task not in ("classification", "regression"):
        raise UnknownNameError("task", task, ["classification", "regression"])
    if rule not in HEAD_RULES:
        raise UnknownNameError("rule", rule, HEAD_RULES)
    if task == "regression":
        rule = "data-size"
    amount = n / k if rule == "per-class" else n
    lines = HEAD_RULES[rule]
    line = next(entry for entry in lines if amount < entry.below)
    what = f"{amount:g} examples a class" if rule == "per-class" else f"{amount:g} examples"
    limit = f"fewer than {line.below:,}" if math.isfinite(line.below) else f"at least {lines[-2].below:,}"
    return Selection(_KINDS[line.kind](d, k, **line.settings), f"{what} are {limit}: {line.advice}.")


class FrozenClassifier(nn.Module):
    """g∘φ as one module: images in, logits out; only the head ever moves.

    Args:
        extractor: φ, such as a `FeatureExtractor`. It stays in eval mode, also under ``.train()``, and gets no
            gradient, except its learned mix of layers (``extractor.mix``) where it has one: that is part of the head.
        head: g, a module. Of a ridge or softmax probe that is
            ``LinearHead.from_map(probe.logits_of.weights, probe.logits_of.intercept)``.

    Raises:
        InputError: If one of both is no module.

    Example:
        >>> model = FrozenClassifier(nn.Flatten(), LinearHead(12, 2)).train()
        >>> model(torch.zeros(5, 3, 2, 2)).shape, sum(p.numel() for p in model.trainable_parameters())
        (torch.Size([5, 2]), 26)
    """

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name, part in {"extractor": extractor, "head": head}.items():
            if not isinstance(part, nn.Module):
                advice = {
                    "Probe": " Of a ridge or softmax probe: LinearHead.from_map(probe.logits_of.weights, "
                    "probe.logits_of.intercept); of another, probe.logits_of.",
                    "Backbone": " Wrap it: FeatureExtractor(backbone).",
                }.get(type(part).__name__, "")
                raise InputError(f"`{name}` must be a torch module, got {type(part).__name__}.{advice}")
        self.extractor = extractor
        self.head = head
        mix = getattr(extractor, "mix", None)
        learned = {id(p) for p in mix.parameters()} if isinstance(mix, nn.Module) else set()
        for parameter in extractor.parameters():
            parameter.requires_grad_(id(parameter) in learned)
        self._learns_mix = bool(learned)
        self.train(self.training)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What an optimiser may have: the head's parameters, and those of a learned mix of layers."""
        return (p for p in self.parameters() if p.requires_grad)

    def train(self, mode: bool = True) -> "FrozenClassifier":
        """Train mode for the head alone."""
        super().train(mode)
        self.extractor.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, k)."""
        if self._learns_mix:
            return self.head(self.extractor(images))  # the extractor itself keeps gradients out of the backbone
        with torch.no_grad():
            features = self.extractor(images)
        return self.head(features)


def _as_tokens(x: Tensor) -> Tensor:
    """(b, t, d) from (b, d) or (b, t, d)."""
    if x.ndim not in (2, 3):
        raise InputError(f"features must be (b, d) or (b, t, d), got shape {tuple(x.shape)}.")
    return x.unsqueeze(1) if x.ndim == 2 else x


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise InputError(f"`temperature` must be a positive number, got {temperature!r}. 1.0 changes nothing.")
