"""The published rules for choosing a head, at each of their limits."""

import math

import pytest
from torch import nn

from frozenkit.errors import InputError, UnknownNameError
from frozenkit.heads.modules import LinearHead, MLPHead
from frozenkit.heads.prototypical import PrototypicalHead
from frozenkit.heads.rules import HEAD_RULES, select_head


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
