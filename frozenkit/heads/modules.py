"""Heads: the small modules g that map frozen features to logits, and the published rules for choosing one.

Every head takes (b, d) features or (b, t, d) tokens and gives (b, k) logits, or k values in regression. All but
`AttentionHead` and `EfficientProbeHead` average tokens first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from frozenkit.errors import InputError, UnknownNameError
from frozenkit.heads.prototypical import averaged, check_sizes

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
    def from_map(cls, weights: Tensor, intercept: Tensor, *, unit: bool = False) -> "LinearHead":
        """A head with these (d, k) weights and (k,) intercept, such as those of a ridge or softmax path.

        Args:
            weights: (d, k).
            intercept: (k,).
            unit: Scale each feature vector to length 1 first: ``LinearMap.unit`` of a fit with ``scale="unit"``.

        Example:
            >>> LinearHead.from_map(torch.eye(2), torch.tensor([0.0, 1.0]))(torch.tensor([[2.0, 3.0]])).tolist()
            [[2.0, 4.0]]
        """
        head = cls(*weights.shape, normalize=unit)
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


class EfficientProbeHead(nn.Module):
    """Efficient probing: attention over tokens that are their own keys and values, then a linear map.

    Each learned query weighs all tokens by its product with the whole of them, and its weighted mean fills one slice of
    the summary's d channels. There are d·queries parameters beside the linear map's, where `AttentionHead` has
    2·d² + 4·d. Queries start at zero: at first every token counts the same. (Psomas et al., 2026, ICLR, "Attention,
    Please! Revisiting Attentive Probing Through the Lens of Efficiency". Their probe maps the values, as with `values`.
    That tokens are normalised, without parameters, is ours: layers before the final norm have scales of their own.)

    With 200 labels and the tokens of ``"vit-small-focus"``, ridge on the mean of the patches was ahead: measure first.

    Args:
        d: Width of a token; a multiple of `queries`.
        k: Number of classes, or of values in regression.
        queries: Number of queries.
        values: Whether to learn a d × d map of the values.

    Example:
        >>> head = EfficientProbeHead(8, 3, queries=2)
        >>> tokens = torch.randn(5, 49, 8)
        >>> head(tokens).shape, head.attention(tokens).shape
        (torch.Size([5, 3]), torch.Size([5, 2, 49]))
    """

    def __init__(self, d: int, k: int, *, queries: int = 8, values: bool = False) -> None:
        super().__init__()
        check_sizes(d=d, k=k, queries=queries)
        if d % queries:
            raise InputError(f"`queries` must divide the width {d} of a token, got {queries}. Try {math.gcd(d, 8)}.")
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.queries = nn.Parameter(torch.zeros(queries, d))
        self.values = nn.Linear(d, d, bias=False) if values else nn.Identity()
        self.linear = nn.Linear(d, k)

    def attention(self, x: Tensor) -> Tensor:
        """(b, t, d) to (b, queries, t) weights that sum to 1 over the tokens: which positions each query looks at."""
        return self._weights(self.norm(_as_tokens(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d), or (b, d) as one token, to (b, k)."""
        tokens = self.norm(_as_tokens(x))
        values = self.values(tokens).unflatten(-1, (len(self.queries), -1))  # (b, t, queries, d / queries)
        summary = torch.einsum("bqt,btqc->bqc", self._weights(tokens), values)
        return self.linear(summary.flatten(1))

    def _weights(self, tokens: Tensor) -> Tensor:
        scores = torch.einsum("qd,btd->bqt", self.queries, tokens) / tokens.shape[-1] ** 0.5
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


def _as_tokens(x: Tensor) -> Tensor:
    """(b, t, d) from (b, d) or (b, t, d)."""
    if x.ndim not in (2, 3):
        raise InputError(f"features must be (b, d) or (b, t, d), got shape {tuple(x.shape)}.")
    return x.unsqueeze(1) if x.ndim == 2 else x


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise InputError(f"`temperature` must be a positive number, got {temperature!r}. 1.0 changes nothing.")


class LayerMix(nn.Module):
    """A learned convex mix of layers: softmax weights over layer-normalised, projected features.

    Each layer is normalised per row, mapped to the widest layer's width where it is narrower, and the results are
    averaged with weights softmax(w). The weights start equal and read as "how much does the task want this layer".
    (The scalar mix of Peters et al., 2018, ELMo, equation 1.)

    Args:
        dims: Widths of the layers, in order.

    Example:
        >>> mix = LayerMix([3, 5])
        >>> mix([torch.randn(2, 3), torch.randn(2, 5)]).shape, mix.weights.tolist()
        (torch.Size([2, 5]), [0.5, 0.5])
    """

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        if not dims or min(dims) < 1:
            raise InputError(f"`dims` must be positive widths, one a layer, got {list(dims)}.")
        self.output_dim = max(dims)
        self.logits = nn.Parameter(torch.zeros(len(dims)))
        self.norms = nn.ModuleList(nn.LayerNorm(d, elementwise_affine=False) for d in dims)
        self.maps = nn.ModuleList(
            nn.Identity() if d == self.output_dim else nn.Linear(d, self.output_dim, bias=False) for d in dims
        )

    @property
    def weights(self) -> Tensor:
        """(layers,) softmax weights, detached."""
        return self.logits.detach().softmax(0)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Mix one (b, d_i) tensor a layer into (b, max d)."""
        mapped = [m(norm(x)) for m, norm, x in zip(self.maps, self.norms, layers, strict=True)]
        return torch.einsum("l,l...->...", self.logits.softmax(0), torch.stack(mapped))


def in_batches(head: Callable[[Tensor], Tensor], batches: Iterator[Tensor], n: int) -> Tensor:
    """(n, k) float32 on the CPU, what `head` makes of all batches, without gradients.

    Filled in place: pieces kept between the batches would keep the allocator from using their neighbourhood again, and
    memory would grow with the features of sets that were left on disk for its sake.
    """
    start, out = 0, torch.empty(n, 0)
    with torch.no_grad():
        for batch in batches:
            part = head(batch)
            if start == 0:
                out = torch.empty(n, *part.shape[1:])
            out[start : start + len(part)] = part
            start += len(part)
    return out
