"""Class means as a head: by hand, calibrated on Gaussians, and without overflow."""

import math

import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError, UnknownNameError
from frozenkit.heads.prototypical import PrototypicalHead


class TestPrototypes:
    def test_means_by_hand(self):
        x = torch.tensor([[0.0, 2.0], [0.0, 4.0], [6.0, 0.0]])
        head = PrototypicalHead(2, 2, metric="euclidean").fit_means(x, torch.tensor([0, 0, 1]))
        assert_close(head.prototypes.detach(), torch.tensor([[0.0, 3.0], [6.0, 0.0]]))
        # Variance within classes: squares 1 + 1 over (3 − 2)·2 degrees of freedom = 1, so T = 2.
        assert_close(head.temperature, 2.0)
        logits = head(torch.tensor([[0.0, 0.0]])).detach()
        assert_close(logits[0, 0] - logits[0, 1], torch.tensor((36.0 - 9.0) / 2.0))

    def test_euclidean_with_closed_form_temperature_is_calibrated_on_gaussians(self):
        generator = torch.Generator().manual_seed(0)
        centres = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
        labels = torch.arange(6000) % 3
        x = centres[labels] + torch.randn(6000, 2, generator=generator)
        likelihood = (-(x.unsqueeze(1) - centres).square().sum(2) / 2).softmax(1)
        ours = PrototypicalHead(2, 3, metric="euclidean").fit_means(x, labels)(x).detach().softmax(1)
        assert_close(ours, likelihood, rtol=0, atol=0.05)

    def test_cosine_ignores_length(self):
        head, x = PrototypicalHead(4, 3), torch.randn(5, 4)
        assert_close(head(x), head(x * 1e20), rtol=1e-4, atol=1e-4)
        assert_close(head(x), head(x * 1e-20), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("metric", ["cosine", "euclidean"])
    @pytest.mark.parametrize("length", [1.0, 1e4, 1e25])
    def test_nothing_overflows_at_a_small_temperature(self, metric, length):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(40) % 4
        x = (torch.eye(4)[labels] + 0.1 * torch.randn(40, 4, generator=generator)) * length
        head = PrototypicalHead(4, 4, metric=metric).fit_means(x, labels)
        with torch.no_grad():
            head.log_temperature.fill_(math.log(1e-3))
        logits = head(x).detach()
        assert torch.isfinite(logits).all()
        assert_close(logits.exp().argmax(1), labels)
        assert_close((logits.exp() / logits.exp().sum(1, keepdim=True)).isfinite().all().item(), True)

    def test_the_unshifted_exponential_is_caught(self):
        # The broken variant: exp(similarity / T) with no shift is inf / inf at T = 0.01, and argmax of NaN is class 0.
        similarity, labels = torch.eye(4) * 0.5 + 0.5, torch.arange(4)
        broken = (similarity / 0.01).exp()
        assert not torch.isfinite(broken / broken.sum(1, keepdim=True)).all()
        head = PrototypicalHead(4, 4).fit_means(torch.eye(4), labels)
        with torch.no_grad():
            head.log_temperature.fill_(math.log(0.01))
        assert_close(head(torch.eye(4)).exp().argmax(1), labels)

    def test_float16_features_do_not_overflow(self):
        x = torch.tensor([[300.0, 0.0], [0.0, 300.0]], dtype=torch.float16)
        head = PrototypicalHead(2, 2, metric="euclidean").fit_means(x, torch.tensor([0, 1]))
        assert not torch.isfinite(x.square()).all()
        assert_close(head(x).argmax(1), torch.tensor([0, 1]))

    def test_a_zero_vector_is_no_harm(self):
        assert torch.isfinite(PrototypicalHead(4, 3)(torch.zeros(1, 4))).all()

    def test_bad_input_is_named(self):
        head, x = PrototypicalHead(2, 2), torch.zeros(3, 2)
        with pytest.raises(DataError, match=r"\[1\] have none"):
            head.fit_means(x, torch.tensor([0, 0, 0]))
        with pytest.raises(InputError, match=r"must lie in 0\.\.1"):
            head.fit_means(x, torch.tensor([0, 1, 2]))
        with pytest.raises(InputError, match=r"must be \(n, 2\)"):
            head.fit_means(torch.zeros(3, 4), torch.tensor([0, 1, 1]))
        with pytest.raises(DataError, match="row 1 has NaN"):
            head.fit_means(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), torch.tensor([0, 1]))
        with pytest.raises(UnknownNameError, match="Did you mean 'euclidean'"):
            PrototypicalHead(2, 2, metric="euclid")
