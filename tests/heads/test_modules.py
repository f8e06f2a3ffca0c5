"""Heads: shapes, formulas by hand, the published rules, and a backbone that stays asleep."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit.classifier import FrozenClassifier
from frozenkit.errors import DataError, InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import AttentionHead, LayerMix, LayerMixHead, LinearHead, MLPHead
from frozenkit.heads.prototypical import PrototypicalHead
from frozenkit.heads.rules import HEAD_RULES, select_head

HEADS = {
    "linear": lambda: LinearHead(8, 3, normalize=True, temperature=0.1),
    "mlp": lambda: MLPHead(8, 3, hidden=(5, 4), activation="gelu"),
    "attention": lambda: AttentionHead(8, 3, heads=2),
    "cosine": lambda: PrototypicalHead(8, 3),
    "euclidean": lambda: PrototypicalHead(8, 3, metric="euclidean"),
    "mix": lambda: LayerMixHead([3, 5], 3),
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


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


def test_linear_from_map_is_that_map():
    weights, intercept, x = torch.randn(4, 3), torch.randn(3), torch.randn(5, 4)
    assert_close(LinearHead.from_map(weights, intercept)(x), x @ weights + intercept)


def test_mlp_without_hidden_layers_is_linear():
    head, x = MLPHead(4, 2, hidden=()), torch.randn(3, 4)
    assert_close(head(x), head.layers[-1](x))


class TestAttention:
    def test_weights_sum_to_one_and_start_equal(self):
        weights = AttentionHead(8, 3, heads=2).attention(torch.randn(4, 7, 8))
        assert_close(weights, torch.full((4, 2, 7), 1 / 7))

    def test_it_finds_the_one_token_that_matters(self):
        # The class is the sign of one token; which token it is, only its mark tells. An average drowns it in noise.
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(512, 9, 8, generator=generator)
        labels, place = torch.arange(512) % 2, torch.randint(9, (512,), generator=generator)
        tokens[:, :, 0] = 0
        tokens[torch.arange(512), place, 0] = 4.0
        tokens[torch.arange(512), place, 1] = 2.0 * labels - 1
        torch.manual_seed(0)
        head = AttentionHead(8, 2, heads=2)
        optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
        for _ in range(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(tokens), labels).backward()
            optimiser.step()
        assert (head(tokens).argmax(1) == labels).float().mean() > 0.95
        assert (head.attention(tokens).amax(1).argmax(1) == place).float().mean() > 0.8

    def test_order_of_tokens_does_not_matter(self):
        head, x, order = AttentionHead(8, 3), torch.randn(2, 7, 8), torch.randperm(7)
        nn.init.normal_(head.queries)
        assert_close(head(x), head(x[:, order]))
        assert_close(head.attention(x)[..., order], head.attention(x[:, order]))

    def test_width_must_divide(self):
        with pytest.raises(InputError, match="must divide the width 6"):
            AttentionHead(6, 3, heads=4)
        with pytest.raises(InputError, match=r"\(b, d\) or \(b, t, d\)"):
            AttentionHead(8, 3)(torch.zeros(8))


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


class TestRules:
    @pytest.mark.parametrize(
        ("shots", "kind", "hidden"),
        [
            (9, PrototypicalHead, None),
            (10, LinearHead, None),
            (49, LinearHead, None),
            (50, MLPHead, [512]),
            (199, MLPHead, [512]),
            (200, MLPHead, [1024, 512]),
        ],
    )
    def test_per_class(self, shots, kind, hidden):
        head = select_head(16, 4, 4 * shots).head
        assert type(head) is kind
        if hidden:
            assert [m.out_features for m in head.modules() if isinstance(m, nn.Linear)] == [*hidden, 4]
            assert next(m.p for m in head.modules() if isinstance(m, nn.Dropout)) == (0.5 if shots < 200 else 0.3)
        if kind is LinearHead:
            assert head.normalize

    @pytest.mark.parametrize(
        ("n", "kind"), [(99, LinearHead), (100, LinearHead), (999, LinearHead), (1000, MLPHead), (10_000, MLPHead)]
    )
    def test_by_data_size(self, n, kind):
        assert type(select_head(16, 4, n, rule="data-size").head) is kind

    def test_the_two_disagree_as_published(self):
        assert isinstance(select_head(16, 10, 90).head, PrototypicalHead)
        assert isinstance(select_head(16, 10, 90, rule="data-size").head, LinearHead)

    def test_the_reason_quotes_the_rule(self):
        assert select_head(16, 10, 90).reason == "9 examples a class are fewer than 10: prototypical, cosine."
        assert (
            "at least 10,000: deeper MLP, or consider fine-tuning" in select_head(4, 2, 10**5, rule="data-size").reason
        )

    def test_rules_are_complete_and_ascending(self):
        for lines in HEAD_RULES.values():
            limits = [line.below for line in lines]
            assert limits == sorted(set(limits))
            assert limits[-1] == math.inf

    def test_regression_goes_by_data_size(self):
        assert isinstance(select_head(16, 1, 5, task="regression").head, LinearHead)

    def test_bad_input_is_named(self):
        with pytest.raises(UnknownNameError, match="`rule`.*'per-class'"):
            select_head(4, 2, 10, rule="per-clas")
        with pytest.raises(UnknownNameError, match="`task`"):
            select_head(4, 2, 10, task="ranking")
        with pytest.raises(InputError, match="`n` must be a whole number"):
            select_head(4, 2, 0)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x).mean((2, 3))


class WithMix(nn.Module):
    def __init__(self):
        super().__init__()
        self.module, self.mix = Backbone(), LayerMix([4, 4])

    def forward(self, x):
        with torch.no_grad():
            pooled = self.module(x)
        return self.mix([pooled, pooled**2])


def train_a_step(model):
    model.train()
    optimiser = torch.optim.SGD(model.trainable_parameters(), lr=0.1)
    images = torch.randn(8, 3, 6, 6)
    nn.functional.cross_entropy(model(images), torch.arange(8) % 2).backward()
    optimiser.step()


class TestFrozenClassifier:
    def test_only_the_head_moves(self):
        backbone, head = Backbone(), LinearHead(4, 2)
        before = {name: t.clone() for name, t in backbone.state_dict().items()}
        start = head.linear.weight.detach().clone()
        train_a_step(FrozenClassifier(backbone, head))
        assert_close(backbone.state_dict(), before, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            assert_close(head.linear.weight, start)

    def test_a_backbone_woken_by_train_is_caught(self):
        # The broken variant: requires_grad is off, yet batch norm's running statistics move in train mode.
        backbone = Backbone().requires_grad_(False).train()
        before = {name: t.clone() for name, t in backbone.state_dict().items()}
        backbone(torch.randn(8, 3, 6, 6))
        with pytest.raises(AssertionError):
            assert_close(backbone.state_dict(), before, rtol=0, atol=0)

    def test_train_wakes_the_head_alone(self):
        model = FrozenClassifier(Backbone().train(), MLPHead(4, 2))
        assert not any(m.training for m in model.extractor.modules())
        model.eval().train()
        assert not any(m.training for m in model.extractor.modules())
        assert model.head.training

    def test_a_learned_mix_counts_as_head(self):
        model = FrozenClassifier(WithMix(), LinearHead(4, 2))
        names = {name for name, p in model.named_parameters() if p.requires_grad}
        assert names == {"extractor.mix.logits", "head.linear.weight", "head.linear.bias"}
        before = model.extractor.mix.logits.detach().clone()
        train_a_step(model)
        with pytest.raises(AssertionError):
            assert_close(model.extractor.mix.logits.detach(), before)


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


def test_a_frozen_classifier_takes_modules_and_says_how_a_probe_becomes_one():
    from frozenkit import fit_probe, load_backbone

    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    probe = fit_probe(FeatureSet(x, labels, ("a", "b"), tuple(map(str, range(20))), "layer", ""), strengths=[1.0])
    with pytest.raises(InputError, match="`head` must be a torch module, got Probe. Of a ridge or softmax probe: Lin"):
        FrozenClassifier(nn.Identity(), probe)
    with pytest.raises(InputError, match="`extractor` must be a torch module, got Backbone. Wrap it: FeatureExtr"):
        FrozenClassifier(load_backbone(image_size=32, device="cpu"), nn.Linear(4, 2))
    head = LinearHead.from_map(probe.logits_of.weights, probe.logits_of.intercept)  # the advice itself
    torch.testing.assert_close(FrozenClassifier(nn.Identity(), head)(x).argmax(1), probe.logits_of(x).argmax(1))


def test_sizes_may_be_numpys_whole_numbers():
    d, k = np.int64(8), np.int64(2)
    for head in (LinearHead(d, k), PrototypicalHead(d, k), MLPHead(d, k, hidden=(np.int64(4),)).eval()):
        assert head(torch.zeros(3, 8)).shape == (3, 2)
