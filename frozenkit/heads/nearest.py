"""Probes without an optimiser: nearest class mean and nearest neighbours, each with leave-one-out logits.

Those are exact, what a fit without the row would say, but for centring: the mean is that of all of train.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot


class Centered(nn.Module):
    """Subtracts the train mean, then, if asked, scales each row to length 1 (CL2N of Wang et al., 2019, SimpleShot).

    Args:
        train: (n, d) features that the mean is taken of.
        center: Whether to subtract it. Without `normalize` it is subtracted anyway: no distance changes, and features
            that lie far from the origin lose no digits.
        normalize: Whether to scale rows to length 1; a zero row stays zero.
    """

    mean: Tensor

    def __init__(self, train: Tensor, *, center: bool = True, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        mean = train.double().mean(0)
        self.register_buffer("mean", mean if center or not normalize else torch.zeros_like(mean))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to (b, d), float64: what float32 can hold never overflows it when squared."""
        moved = x.double() - self.mean
        if not self.normalize:
            return moved
        largest = moved.abs().amax(1, keepdim=True)
        return normalize(moved / largest.clamp_min(torch.finfo(moved.dtype).tiny), dim=1)


class NearestMean(nn.Module):
    """Logits −‖z − m_c‖² to the mean of each class, less the largest of them; z is the feature after `Centered`.

    Args:
        features: (n, d) train features.
        labels: (n,) class indices in ``range(k)``, every class present.
        center: Passed to `Centered`.
        normalize: Passed to `Centered`.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
        >>> NearestMean(x, torch.tensor([0, 0, 1]))(x).argmax(1)
        tensor([0, 0, 1])

    References:
        Y. Wang, W.-L. Chao, K. Q. Weinberger, L. van der Maaten (2019), SimpleShot, arXiv:1911.04623.
    """

    means: Tensor
    counts: Tensor

    def __init__(self, features: Tensor, labels: Tensor, *, center: bool = True, normalize: bool = True) -> None:
        super().__init__()
        self.prepare = Centered(features, center=center, normalize=normalize)
        members = one_hot(labels).double()  # (n, k)
        self.register_buffer("counts", members.sum(0))
        self.register_buffer("means", (members.T @ self.prepare(features)) / self.counts[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to (b, k) float32 logits, the largest of each row 0."""
        return self._shifted(self._minus_squares(x))

    def leave_one_out(self, features: Tensor, labels: Tensor) -> Tensor:
        """(n, k) logits of train rows, each without itself in its class mean (centring stays that of all of train).

        With m the mean of n_c rows, z − m₋ᵢ = (z − m) · n_c / (n_c − 1): the own distance only grows. A class of one
        image has no mean left, so its logit is −∞.
        """
        logits = self._minus_squares(features)
        count = self.counts[labels]
        own = logits.gather(1, labels[:, None]).squeeze(1)
        grown = torch.where(count > 1, own * (count / (count - 1)).square(), -torch.inf)
        return self._shifted(logits.scatter(1, labels[:, None], grown[:, None]))

    def _minus_squares(self, x: Tensor) -> Tensor:
        z = self.prepare(x)
        if torch.compiler.is_compiling():  # ONNX has no such distance
            return -(z[:, None] - self.means[None]).square().sum(-1)
        return -torch.cdist(z, self.means).square()

    def _shifted(self, logits: Tensor) -> Tensor:
        # Softmax does not care, and the squares of large features do not overflow where they decide.
        return (logits - logits.amax(1, keepdim=True)).float()


class NearestNeighbours(nn.Module):
    """Log share of the votes of the m nearest train rows by cosine, nearer ones weighing more.

    A neighbour at cosine s votes with weight exp(s / T), T = 0.07 as in the usual k-NN evaluation of self-supervised
    networks; the largest s is subtracted first, so that no T overflows.

    Args:
        features: (n, d) train features, kept.
        labels: (n,) class indices in ``range(k)``.
        neighbours: m; at most n.
        center: Passed to `Centered`.
        normalize: Passed to `Centered`.
        temperature: T > 0.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> NearestNeighbours(x, torch.tensor([0, 0, 1]), neighbours=1)(x).argmax(1)
        tensor([0, 0, 1])

    References:
        Z. Wu, Y. Xiong, S. X. Yu, D. Lin (2018), Unsupervised feature learning via non-parametric instance
        discrimination, CVPR, section 3.4.
    """

    rows: Tensor
    labels: Tensor

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        neighbours: int,
        center: bool = True,
        normalize: bool = True,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.neighbours, self.temperature = neighbours, temperature
        self.prepare = Centered(features, center=center, normalize=normalize)
        rows = self.prepare(features)
        self.register_buffer("rows", rows.float() if normalize else rows)
        self.register_buffer("labels", labels)
        self.k = int(labels.max()) + 1

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to (b, k) log shares; a class without a neighbour keeps its part of one vote shared by all."""
        return self._votes(self._similarity(x))

    def leave_one_out(self, features: Tensor) -> Tensor:
        """(n, k) log shares of the train rows, none of which may vote for itself."""
        chunks = []
        for start in range(0, len(features), 2048):  # flat in n: n × n similarities are never held
            similarity = self._similarity(features[start : start + 2048])
            similarity.diagonal(offset=start).fill_(-torch.inf)
            chunks.append(self._votes(similarity))
        return torch.cat(chunks)

    def _similarity(self, x: Tensor) -> Tensor:
        prepared = self.prepare(x)
        if self.prepare.normalize:
            return prepared.float() @ self.rows.T
        return -torch.cdist(prepared, self.rows)

    def _votes(self, similarity: Tensor) -> Tensor:
        nearest, rows = similarity.topk(self.neighbours, dim=1)
        weights = ((nearest - nearest[:, :1]) / self.temperature).exp()  # (b, m)
        votes = weights.new_zeros(weights.shape[0], self.k).scatter_add_(1, self.labels[rows], weights)
        share = votes / weights.sum(1, keepdim=True)
        # One more vote, spread over all classes: no class is impossible for want of a neighbour, and none overtakes.
        return ((self.neighbours * share + 1 / share.shape[1]) / (self.neighbours + 1)).log().float()
