"""The waist of frozenkit: a `FeatureSet` is all that passes from images and networks to arrays and numbers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one layer for n images, with their labels.

    Attributes:
        features: (n, d) float tensor, or (n, t, d) with ``pooling="tokens"``.
        labels: (n,) int64 class indices in ``range(len(classes))``; float32 (n,) or (n, m) for regression.
        classes: Class names; empty for regression.
        ids: n stable, unique names, one an image.
        layer: Dotted layer name, or several joined by ``+``.
        fingerprint: Hex digest of what made these features (data, backbone, layer, pooling, size, precision, storage).

    Raises:
        DataError: If shapes, dtypes, labels or ids do not fit together.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> fs = FeatureSet(torch.eye(4), labels, ("cat", "dog"), ("a", "b", "c", "d"), "avgpool", "")
        >>> fs
        FeatureSet(4 images × 4 features, 2 classes, layer='avgpool')
        >>> fs.subset([2, 3]).ids
        ('c', 'd')
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    layer: str
    fingerprint: str

    def __post_init__(self) -> None:
        if self.features.ndim not in (2, 3):
            raise DataError(f"`features` must be (n, d) or (n, t, d), got shape {tuple(self.features.shape)}.")
        n = len(self.features)
        if self.labels.ndim == 0:
            raise DataError("`labels` must have one row per image, got a single number.")
        if len(self.labels) != n or len(self.ids) != n:
            raise DataError(
                "`features`, `labels` and `ids` must have one row an image, "
                f"got {n}, {len(self.labels)} and {len(self.ids)}."
            )
        if len(set(self.ids)) != n:
            raise DataError("`ids` must be unique, but at least one occurs twice.")
        if self.classes:
            if self.labels.ndim != 1 or self.labels.is_floating_point():
                raise DataError(f"`labels` must be (n,) integers, got {self.labels.dtype} {tuple(self.labels.shape)}.")
            if n and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes)):
                raise DataError(
                    f"`labels` must lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes, "
                    f"got {int(self.labels.min())}..{int(self.labels.max())}."
                )
        elif not self.labels.is_floating_point():
            raise DataError("`classes` must name the classes of integer labels; leave it empty only for regression.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_features(self) -> int:
        """d, the width of one feature vector (of one token, where there are tokens)."""
        return self.features.shape[-1]

    @property
    def n_classes(self) -> int:
        """k, the number of classes; 0 for regression."""
        return len(self.classes)

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> "FeatureSet":
        """Those rows, in that order."""
        index = torch.as_tensor(np.asarray(indices))
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        index = index.long()
        return replace(
            self,
            features=self.features[index],
            labels=self.labels[index],
            ids=tuple(self.ids[i] for i in index.tolist()),
            fingerprint=_derive("subset", [self.fingerprint], rows=index.tolist()),
        )

    def relabel(self, labels: Tensor | Sequence[int], classes: Sequence[str]) -> "FeatureSet":
        """The same features under other labels: a second task on one extraction."""
        new = torch.as_tensor(labels)
        digest = hashlib.sha256(new.contiguous().numpy().tobytes()).hexdigest()
        fingerprint = _derive("relabel", [self.fingerprint], labels=digest, classes=list(classes))
        return replace(self, labels=new, classes=tuple(classes), fingerprint=fingerprint)

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels as NumPy arrays, ready for scikit-learn."""
        return self.features.cpu().float().numpy(), self.labels.cpu().numpy()

    def to(self, device: str | torch.device) -> "FeatureSet":
        """The same set with its tensors on another device."""
        return replace(self, features=self.features.to(device), labels=self.labels.to(device))

    def to_frame(self) -> Any:
        """A pandas table: ids as index, then the label's name (or value), then one column a feature."""
        import pandas as pd

        if self.features.ndim == 3:
            raise InputError("`to_frame` needs (n, d) features, got tokens. Average them first, or index one token.")
        x, y = self.numpy()
        frame = pd.DataFrame(x, index=pd.Index(self.ids, name="id"), columns=[f"f{j}" for j in range(x.shape[1])])
        frame.insert(0, "label", [self.classes[i] for i in y] if self.classes else list(y))
        return frame

    def to_torch(self) -> torch.utils.data.TensorDataset:
        """A torch dataset of (feature, label) pairs."""
        return torch.utils.data.TensorDataset(self.features, self.labels)

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.features.shape[1:]))
        task = f"{self.n_classes} classes" if self.classes else "regression"
        return f"FeatureSet({len(self)} images × {size} features, {task}, layer={self.layer!r})"


def combine(sets: Mapping[str, FeatureSet], how: str = "concat") -> FeatureSet:
    """Several layers of the same images as one `FeatureSet`.

    Args:
        sets: Layer name to features, all with the same ids in the same order and the same labels.
        how: ``"concat"`` puts them side by side, (n, Σd); ``"mean"`` averages them, and all widths must agree.

    Raises:
        InputError: If images, labels or widths differ, or `how` is unknown.

    Example:
        >>> a = FeatureSet(torch.zeros(2, 3), torch.tensor([0, 1]), ("x", "y"), ("1", "2"), "early", "")
        >>> b = FeatureSet(torch.ones(2, 5), torch.tensor([0, 1]), ("x", "y"), ("1", "2"), "late", "")
        >>> combine({"early": a, "late": b})
        FeatureSet(2 images × 8 features, 2 classes, layer='early+late')
    """
    if not sets:
        raise InputError("`sets` must hold at least one layer, got none.")
    members = list(sets.values())
    first = members[0]
    for name, member in sets.items():
        if member.ids != first.ids:
            raise InputError(f"all layers must hold the same images in the same order; {name!r} differs in its ids.")
        if member.classes != first.classes or not torch.equal(member.labels, first.labels):
            raise InputError(f"all layers must carry the same labels; {name!r} differs.")
    if how == "concat":
        features = torch.cat([m.features for m in members], dim=-1)
    elif how == "mean":
        widths = {name: m.n_features for name, m in sets.items()}
        if len(set(widths.values())) > 1:
            raise InputError(f"`how='mean'` needs layers of one width, got {widths}. Use how='concat'.")
        features = torch.stack([m.features for m in members]).mean(0)
    else:
        raise InputError(f"`how` must be 'concat' or 'mean', got {how!r}. A learned mix is `LayerMix`.")
    fingerprint = _derive("combine", [m.fingerprint for m in members], how=how)
    return replace(first, features=features, layer="+".join(m.layer for m in members), fingerprint=fingerprint)


def reduce(
    train: FeatureSet, *others: FeatureSet, n_features: int, how: str = "pca", seed: int = 0
) -> tuple[FeatureSet, ...]:
    """Fewer features for train and others, by a projection fitted on train alone.

    Args:
        train: (n, d); what the projection is fitted on.
        others: Further sets of the same width, projected the same way.
        n_features: Width of the result; at most d, and for ``"pca"`` at most n.
        how: ``"pca"``: principal axes of the centred train features, largest variance first.
            ``"random"``: a seeded Gaussian projection scaled by 1/√n_features (Johnson and Lindenstrauss, 1984).
        seed: For ``"random"``.

    Returns:
        The reduced sets, in the order given.

    Example:
        >>> x = torch.tensor([[0., 0.], [2., 2.], [4., 4.]])
        >>> fs = FeatureSet(x, torch.tensor([0, 0, 1]), ("a", "b"), ("1", "2", "3"), "l", "")
        >>> reduce(fs, n_features=1)[0].features.abs().squeeze().round(decimals=3)
        tensor([2.8280, 0.0000, 2.8280])
    """
    limit = min(train.features.shape) if how == "pca" else train.n_features
    if train.features.ndim != 2:
        raise InputError("`train` must be (n, d), got tokens.")
    if not 1 <= n_features <= limit:
        raise InputError(f"`n_features` must lie in 1..{limit} here, got {n_features}.")
    if how == "pca":
        mean = train.features.double().mean(0)
        axes = torch.linalg.svd(train.features.double() - mean, full_matrices=False).Vh[:n_features].T
    elif how == "random":
        mean = torch.zeros(train.n_features, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        axes = torch.randn(train.n_features, n_features, generator=generator, dtype=torch.float64) / n_features**0.5
    else:
        raise InputError(f"`how` must be 'pca' or 'random', got {how!r}.")
    reduced = []
    for member in (train, *others):
        if member.n_features != train.n_features:
            raise InputError(f"all sets must be {train.n_features} wide like train, got {member.n_features}.")
        parents = [train.fingerprint, member.fingerprint]
        reduced.append(
            replace(
                member,
                features=((member.features.double() - mean) @ axes).float(),
                fingerprint=_derive("reduce", parents, how=how, n_features=n_features, seed=seed),
            )
        )
    return tuple(reduced)


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


def _derive(operation: str, parents: Sequence[str], **settings: Any) -> str:
    """The fingerprint of a set made from others: a digest of the parents and of what was done to them."""
    text = json.dumps([operation, list(parents), settings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def feature_rows(features: Any, name: str = "features") -> Tensor:
    """(n, d) float64 rows on the CPU, of a tensor, a `FeatureSet`, or a set that stays on disk.

    Raises:
        InputError: If they are tokens.
        DataError: If a row is not finite; the message names it.
    """
    loaded = features.load() if hasattr(features, "load") else features
    x = loaded if isinstance(loaded, Tensor) else loaded.features
    if x.ndim != 2:
        raise InputError(f"`{name}` must be (n, d), got shape {tuple(x.shape)}. Average tokens first.")
    if not x.isfinite().all():
        row = int((~x.isfinite()).any(1).nonzero()[0])
        which = f" ({loaded.ids[row]!r})" if hasattr(loaded, "ids") else ""
        raise DataError(f"`{name}` must be finite, but row {row}{which} has NaN or infinity.")
    return x.detach().cpu().double()
