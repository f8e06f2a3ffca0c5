"""Training a head: it learns, keeps the best epoch, and leaves alone what it was given."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError
from frozenkit.extraction.saved import save_features
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import LinearHead, MLPHead
from frozenkit.heads.softmax import softmax_path
from frozenkit.heads.training import train_head
from tests.heads.reference import scaled, uneven


def interrupt(row):
    raise KeyboardInterrupt


class TestTraining:
    def sets(self, n=120, d=6, k=3):
        x, labels = uneven(n, d, k, spread=2)
        x = scaled(x).float()
        return [FeatureSet.from_arrays(x[i::2], labels[i::2]) for i in range(2)]

    def test_it_learns_and_keeps_the_best_epoch(self):
        train, val = self.sets()
        rows = []
        log = train_head(LinearHead(6, 3), train, val, epochs=30, lr=0.1, patience=None, progress=rows.append)
        assert log.best_score > 0.85
        assert len(rows) == len(log.history) == 30
        assert_close(max(row["val_score"] for row in log.history), log.best_score)
        own = (log.head(val.features).argmax(1) == val.labels).double().mean().item()
        assert_close(own, log.best_score)
        assert log.to_frame().index.name == "epoch"

    def test_the_loss_goes_to_the_softmax_minimum(self):
        train, val = self.sets()
        log = train_head(LinearHead(6, 3), train, val, epochs=400, lr=0.05, weight_decay=0, patience=None)
        strong = softmax_path(train.features, train.labels, [1e-2])
        reference = torch.nn.functional.cross_entropy(strong.at(1e-2)(train.features), train.labels)
        assert log.history[-1]["train_loss"] <= float(reference)

    def test_one_seed_one_head_and_the_random_state_is_given_back(self):
        train, val = self.sets()
        start = MLPHead(6, 3, hidden=(8,))
        before = torch.random.get_rng_state()
        heads = [train_head(start, train, val, epochs=3, batch_size=16, seed=1).head for _ in range(2)]
        assert_close(torch.random.get_rng_state(), before, rtol=0, atol=0)
        assert_close(heads[0].state_dict(), heads[1].state_dict(), rtol=0, atol=0)

    def test_the_given_head_is_left_as_it_is(self):
        train, val = self.sets()
        head = MLPHead(6, 3, hidden=(8,))
        before = copy.deepcopy(head.state_dict())
        log = train_head(head, train, val, epochs=3)
        with pytest.raises(KeyboardInterrupt):
            train_head(head, train, val, progress=interrupt)
        assert_close(head.state_dict(), before, rtol=0, atol=0)
        assert head.training
        assert not log.head.training
        assert (log.head.layers[0].weight != head.layers[0].weight).any()

    def test_it_stops_early(self):
        train, val = self.sets()
        noise = FeatureSet.from_arrays(torch.randn(60, 6), val.labels)
        log = train_head(LinearHead(6, 3), train, noise, epochs=200, patience=3)
        assert log.stopped_early
        assert len(log.history) == log.best_epoch + 3

    def test_from_disk_equals_from_memory(self, tmp_path):
        from frozenkit.extraction.cache import CachedFeatures

        train, val = self.sets()
        save_features(train, tmp_path / "t.safetensors")
        start = LinearHead(6, 3)
        heads = [
            train_head(start, data, val, epochs=3, batch_size=16).head
            for data in (train, CachedFeatures(tmp_path / "t.safetensors"))
        ]
        assert_close(heads[0].linear.weight, heads[1].linear.weight)

    def test_regression(self):
        x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 1
        log = train_head(
            LinearHead(4, 1), FeatureSet.from_arrays(x[:100], y[:100]), FeatureSet.from_arrays(x[100:], y[100:]), lr=0.1
        )
        assert log.best_score > 0.99

    def test_a_last_row_alone_is_no_harm_to_batch_norm(self):
        train, val = self.sets()
        data = train.subset(range(33))
        assert len(train_head(MLPHead(6, 3, hidden=(8,)), data, val, epochs=2, batch_size=32).history) == 2

    def test_bad_input_is_named(self):
        train, val = self.sets()
        head = LinearHead(6, 3)
        with pytest.raises(InputError, match="`val` must hold other images"):
            train_head(head, train, train)
        with pytest.raises(InputError, match="`epochs` must be a whole number of at least 1"):
            train_head(head, train, val, epochs=0)
        with pytest.raises(InputError, match="`lr` must be a positive"):
            train_head(head, train, val, lr=0)
        with pytest.raises(InputError, match="`lr` must be a number, got str"):
            train_head(head, train, val, lr="fast")
        with pytest.raises(InputError, match="`weight_decay` must be 0 or more"):
            train_head(head, train, val, weight_decay=-1)
        with pytest.raises(InputError, match="must be a FeatureSet"):
            train_head(head, train.features, val)
        with pytest.raises(DataError, match="at least one image"):
            train_head(head, train.subset([]), val)
        with pytest.raises(InputError, match="`val` must have the classes, layer and width of train"):
            train_head(head, train, FeatureSet.from_arrays(val.features[:, :4], val.labels))
        with pytest.raises(InputError, match="must have parameters to train"):
            train_head(torch.nn.Identity(), train, val)
        spoilt = val.features.clone()
        spoilt[4, 2] = float("nan")
        with pytest.raises(DataError, match="row 4 \\(.*/4'\\)"):
            train_head(head, train, FeatureSet.from_arrays(spoilt, val.labels))
        with pytest.raises(DataError, match="loss must stay finite"):
            train_head(head, replace(train, features=train.features * 1e38), val, lr=1e30)
