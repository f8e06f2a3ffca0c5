"""Which head for how many labels: the published rules as a table, and a function that reads it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from frozenkit._outputs import Shown
from frozenkit.errors import UnknownNameError
from frozenkit.heads.modules import LinearHead, MLPHead
from frozenkit.heads.prototypical import PrototypicalHead, check_sizes


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
class Selection(Shown):
    """A head, and why a rule chose it.

    Attributes:
        head: Ready to train.
        reason: One sentence.
    """

    head: nn.Module
    reason: str

    def __repr__(self) -> str:
        return f"Selection({type(self.head).__name__}: {self.reason})"


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
