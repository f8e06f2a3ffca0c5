"""The training loop: steps as by hand, the best epoch kept, and carried on from any epoch as if nothing had been."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit._loop import Run, adamw, copy_state, cosine, judge, mean_loss, run_epoch, train_module
from frozenkit.errors import DataError, DivergedError

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


class Task:
    """A linear map trained on the first 30 rows; its score on val is what the test says."""

    def __init__(self, scores=()):
        torch.manual_seed(0)
        self.module = nn.Linear(6, 3)
        self.scores = dict(enumerate(scores, start=1))
        self.epoch = 0

    def losses(self, epoch):
        self.epoch = epoch
        order = torch.randperm(30, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(8):
            yield mean_loss(self.module(X[rows]), Y[rows]), len(rows)

    def evaluate(self):
        loss, score = judge([self.module(X[30:])], Y[30:])
        return loss, self.scores.get(self.epoch, score)

    def train(self, run, epochs=6, patience=None, lr=0.05, **kw):
        optimiser = adamw(self.module.parameters(), lr, 0.01)
        rate = lambda epoch, batch: cosine(lr, 4 * (epoch - 1) + batch, 4 * epochs, 2)  # noqa: E731
        train_module(
            run, self.module, optimiser, self.losses, rate, self.evaluate, epochs=epochs, patience=patience, **kw
        )
        return run


def without_seconds(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        yield


def test_an_epoch_is_a_step_per_batch():
    task = Task()
    by_hand = Task().module
    optimiser = torch.optim.AdamW([{"params": [by_hand.weight]}, {"params": [by_hand.bias], "weight_decay": 0}], 0.1)
    total = 0.0
    for rows in torch.randperm(30, generator=torch.Generator().manual_seed(1)).split(8):
        loss = nn.functional.cross_entropy(by_hand(X[rows]), Y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(rows)
    mean = run_epoch(adamw(task.module.parameters(), 0.1, 0.01), task.losses(1))
    assert mean == pytest.approx(total / 30, rel=1e-12)
    assert_close(task.module.state_dict(), by_hand.state_dict(), rtol=0, atol=0)


def test_the_best_epoch_is_kept_ties_go_to_the_lower_loss_then_the_earlier():
    task = Task([0.5, 0.8, 0.8, 0.7, 0.8, 0.1])
    states = []
    run = task.train(Run(0.05), after_epoch=lambda: states.append(copy_state(task.module)))
    losses = [row["val_loss"] for row in run.history]
    assert run.best_epoch == min((2, 3, 5), key=lambda epoch: losses[epoch - 1])
    assert_close(run.best, states[run.best_epoch - 1], rtol=0, atol=0)
    assert run.merit == (0.8, -losses[run.best_epoch - 1])
    constant = Task()
    constant.evaluate = lambda: (1.0, 0.5)
    assert constant.train(Run(0.05)).best_epoch == 1


@pytest.mark.parametrize("patience", [None, 1, 2])
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_run_that_was_stopped_after_any_epoch_ends_as_if_it_had_not_been(stop, patience):
    """Seen to fail at the epoch that ends the patience: the check came after the state was saved."""
    scores = [0.5, 0.6, 0.4, 0.3, 0.9, 0.2]
    whole = Task(scores).train(Run(0.05), patience=patience)
    task, run, saved = Task(scores), Run(0.05), {}

    def save():
        saved.update(history=list(run.history), best_epoch=run.best_epoch, best=dict(run.best))
        saved.update(weights=copy_state(task.module), optimiser=run.optimiser)
        if len(run.history) == min(stop, len(whole.history)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.train(run, patience=patience, after_epoch=save)
    resumed = Task(scores).train(Run(0.05, **saved), patience=patience)
    assert without_seconds(resumed) == without_seconds(whole)
    assert resumed.best_epoch == whole.best_epoch
    assert_close(resumed.best, whole.best, rtol=0, atol=0)


def test_patience_counts_from_the_best_epoch():
    assert len(Task([0.1, 0.9, 0.3, 0.3, 0.3]).train(Run(0.05), epochs=9, patience=2).history) == 4
    assert len(Task([0.9, 0.3]).train(Run(0.05), epochs=2, patience=1).history) == 2


def test_a_loss_that_is_not_finite_ends_it_and_what_came_before_counts():
    task = Task([0.5, 0.6])
    finite = task.evaluate
    task.evaluate = lambda: finite() if task.epoch < 3 else (math.inf, 0.9)
    run = Run(0.05)
    with pytest.raises(DivergedError, match="must stay finite, but epoch 3 gave .* on train and inf on val. Look for"):
        task.train(run)
    assert issubclass(DivergedError, DataError)
    assert (len(run.history), run.best_epoch, run.merit[0]) == (2, 2, 0.6)


def test_before_the_first_epoch_nothing_is_worse():
    assert Run(0.1).merit == (-math.inf, -math.inf)
    assert not Run(0.1).is_over(1, 1)


def test_the_cosine_by_hand():
    assert [cosine(2.0, step, 4) for step in range(4)] == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)])
    assert [cosine(1.0, step, 10, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine(1.0, 0, 1, 1) == 1.0
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser := adamw([nn.Parameter(X)], 0.3, 0.0), 7)
    for step in range(7):
        assert cosine(0.3, step, 7) == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
        optimiser.step()
        reference.step()


def test_what_has_one_dimension_does_not_decay():
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    groups = adamw(module.parameters(), 0.1, 0.5).param_groups
    decays = {tuple(p.shape): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {(3, 2): 0.5, (3,): 0.0}
    assert len(adamw(module.parameters(), 0.1, 0.0).param_groups) == 1


def test_judging_classes_and_numbers():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], requires_grad=True)
    loss, accuracy = judge(logits.split(2), torch.tensor([0, 1, 1]))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits.detach(), torch.tensor([0, 1, 1]))))
    assert accuracy == pytest.approx(2 / 3)
    assert judge([torch.tensor([[1.0], [2.0], [2.0]])], torch.tensor([1.0, 2.0, 3.0])) == pytest.approx((1 / 6, 0.5))
