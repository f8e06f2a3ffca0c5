"""Heads: shapes, and formulas by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit.errors import InputError, UnknownNameError
from frozenkit.heads.modules import AttentionHead, EfficientProbeHead, LayerMix, LayerMixHead, LinearHead, MLPHead
from frozenkit.heads.prototypical import PrototypicalHead

HEADS = {
    "linear": lambda: LinearHead(8, 3, normalize=True, temperature=0.1),
    "mlp": lambda: MLPHead(8, 3, hidden=(5, 4), activation="gelu"),
    "attention": lambda: AttentionHead(8, 3, heads=2),
    "efficient": lambda: EfficientProbeHead(8, 3, queries=2),
    "efficient, values": lambda: EfficientProbeHead(8, 3, values=True),
    "cosine": lambda: PrototypicalHead(8, 3),
    "euclidean": lambda: PrototypicalHead(8, 3, metric="euclidean"),
    "mix": lambda: LayerMixHead([3, 5], 3),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
class TestEveryHead:
    def test_features_and_tokens_give_logits(self, make):
        head = make().eval()
        assert head(torch.randn(4, 8)).shape == (4, 3)
        assert head(torch.randn(4, 7, 8)).shape == (4, 3)
        assert head(torch.randn(1, 8)).shape == (1, 3)

    def test_one_token_is_a_feature_vector(self, make):
        head, x = make().eval(), torch.randn(4, 8)
        assert_close(head(x), head(x.unsqueeze(1)))

    def test_an_image_does_not_see_its_neighbours(self, make):
        head, x = make().eval(), torch.randn(4, 8)
        assert_close(head(x)[:1], head(x[:1]), rtol=1e-5, atol=1e-5)

    def test_all_parameters_get_a_gradient(self, make):
        head = make()
        nn.functional.cross_entropy(head(torch.randn(6, 5, 8)), torch.arange(6) % 3).backward()
        assert all(p.grad is not None for p in head.parameters())

    def test_saved_and_loaded_it_is_the_same(self, make, tmp_path):
        head, other, x = make().eval(), make().eval(), torch.randn(4, 8)
        torch.save(head.state_dict(), tmp_path / "head.pt")
        other.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
        assert_close(head(x), other(x), rtol=0, atol=0)


def test_linear_is_its_formula():
    head, x = LinearHead(4, 2, normalize=True, temperature=0.5), torch.randn(3, 4)
    unit = x / x.norm(dim=1, keepdim=True)
    assert_close(head(x), (unit @ head.linear.weight.T + head.linear.bias) / 0.5)


def test_linear_normalised_ignores_length():
    head, x = LinearHead(4, 2, normalize=True), torch.randn(3, 4)
    assert_close(head(x), head(1000 * x))


@pytest.mark.parametrize("unit", [False, True])
def test_linear_from_map_is_that_map(unit):
    weights, intercept, x = torch.randn(4, 3), torch.randn(3), torch.randn(5, 4)
    rows = x / x.norm(dim=1, keepdim=True) if unit else x
    assert_close(LinearHead.from_map(weights, intercept, unit=unit)(x), rows @ weights + intercept)
    assert_close(LinearHead.from_map(weights, intercept)(x), x @ weights + intercept)


def test_mlp_without_hidden_layers_is_linear():
    head, x = MLPHead(4, 2, hidden=()), torch.randn(3, 4)
    assert_close(head(x), head.layers[-1](x))


ATTENTIVE = {"attention": AttentionHead, "efficient": EfficientProbeHead}


@pytest.mark.parametrize("kind", ATTENTIVE.values(), ids=ATTENTIVE)
class TestAttention:
    def test_weights_sum_to_one_and_start_equal(self, kind):
        weights = kind(8, 3).attention(torch.randn(4, 7, 8))
        assert_close(weights, torch.full((4, weights.shape[1], 7), 1 / 7))

    def test_it_finds_the_one_token_that_matters(self, kind):
        # The class is the sign of one token; which token it is, only its mark tells. An average drowns it in noise.
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(512, 9, 8, generator=generator)
        labels, place = torch.arange(512) % 2, torch.randint(9, (512,), generator=generator)
        tokens[:, :, 0] = 0
        tokens[torch.arange(512), place, 0] = 4.0
        tokens[torch.arange(512), place, 1] = 2.0 * labels - 1
        torch.manual_seed(0)
        head = kind(8, 2, **{"heads" if kind is AttentionHead else "queries": 2})
        optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
        for _ in range(100 if kind is AttentionHead else 400):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(tokens), labels).backward()
            optimiser.step()
        assert (head(tokens).argmax(1) == labels).float().mean() > 0.95
        assert (head.attention(tokens).amax(1).argmax(1) == place).float().mean() > 0.8

    def test_order_of_tokens_does_not_matter(self, kind):
        head, x, order = kind(8, 3), torch.randn(2, 7, 8), torch.randperm(7)
        nn.init.normal_(head.queries)
        assert_close(head(x), head(x[:, order]))
        assert_close(head.attention(x)[..., order], head.attention(x[:, order]))

    def test_width_must_divide(self, kind):
        with pytest.raises(InputError, match="must divide the width 6"):
            kind(6, 3, **{"heads" if kind is AttentionHead else "queries": 4})
        with pytest.raises(InputError, match=r"\(b, d\) or \(b, t, d\)"):
            kind(8, 3)(torch.zeros(8))


class TestEfficientProbe:
    @pytest.mark.parametrize("values", [False, True])
    def test_it_is_the_papers_formula(self, values):
        head, x = EfficientProbeHead(8, 3, queries=2, values=values), torch.randn(4, 7, 8)
        nn.init.normal_(head.queries)
        mean, deviation = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False).add(1e-5).sqrt()
        tokens = (x - mean) / deviation
        mapped = tokens @ head.values.weight.T if values else tokens
        slices = []
        for j in range(2):
            weights = (tokens @ head.queries[j] / 8**0.5).softmax(1)  # (4, 7)
            assert_close(head.attention(x)[:, j], weights)
            slices.append((weights[:, :, None] * mapped[:, :, 4 * j : 4 * j + 4]).sum(1))
        assert_close(head(x), torch.cat(slices, 1) @ head.linear.weight.T + head.linear.bias)

    def test_it_has_few_parameters(self):
        def count(head):
            return sum(p.numel() for p in head.parameters())

        assert count(EfficientProbeHead(384, 10)) == 8 * 384 + 384 * 10 + 10
        assert count(EfficientProbeHead(384, 10, values=True)) == 384**2 + count(EfficientProbeHead(384, 10))
        assert count(AttentionHead(384, 10)) == 2 * 384**2 + 5 * 384 + 384 * 10 + 10

    def test_untrained_it_is_a_linear_head_on_the_mean_of_normalised_tokens(self):
        head, x = EfficientProbeHead(8, 3), torch.randn(4, 7, 8)
        assert_close(head(x), head.linear(nn.functional.layer_norm(x, (8,)).mean(1)))


class TestLayerMixHead:
    def test_a_list_equals_layers_side_by_side(self):
        head, a, b = LayerMixHead([3, 5], 2), torch.randn(4, 3), torch.randn(4, 5)
        assert_close(head([a, b]), head(torch.cat([a, b], 1)))

    def test_it_finds_the_layer_that_knows(self):
        labels = torch.arange(200) % 2
        known, noise = torch.randn(200, 4) + 2.0 * labels[:, None] * torch.tensor([1.0, 0, 0, 0]), torch.randn(200, 4)
        head = LayerMixHead([4, 4], 2)
        optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head([known, noise]), labels).backward()
            optimiser.step()
        assert head.weights[0] > 0.8
        assert_close(head.weights.sum(), torch.tensor(1.0))

    def test_widths_must_fit(self):
        with pytest.raises(InputError, match="8 wide together, got 7"):
            LayerMixHead([3, 5], 2)(torch.zeros(1, 7))


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="`temperature` must be a positive number, got 0"):
        LinearHead(4, 2, temperature=0)
    with pytest.raises(InputError, match="`k` must be a whole number"):
        LinearHead(4, 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'relu'"):
        MLPHead(4, 2, activation="rleu")
    with pytest.raises(InputError, match=r"`dropout` must lie in \[0, 1\)"):
        MLPHead(4, 2, dropout=1.0)
    with pytest.raises(InputError, match=r"`hidden\[1\]` must be"):
        MLPHead(4, 2, hidden=(3, 0))


def test_sizes_may_be_numpys_whole_numbers():
    d, k = np.int64(8), np.int64(2)
    for head in (LinearHead(d, k), PrototypicalHead(d, k), MLPHead(d, k, hidden=(np.int64(4),)).eval()):
        assert head(torch.zeros(3, 8)).shape == (3, 2)


def test_layer_mix_weights_learn_which_layer_helps():
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    target = torch.nn.functional.layer_norm(x, (4,))
    mix = LayerMix([4, 4])
    optimiser = torch.optim.Adam(mix.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (mix([x, torch.randn(200, 4)]) - target).pow(2).mean().backward()
        optimiser.step()
    assert mix.weights[0] > 0.9
    assert_close(mix.weights.sum(), torch.tensor(1.0))
