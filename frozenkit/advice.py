"""Freeze, or fine-tune? The published criteria applied to what was measured, each with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from frozenkit.errors import InputError, UnknownNameError

SIMILARITIES = ("near", "middle", "far")
CHOICES = ("freeze", "fine-tune", "measure the gap", "look at the data first")


class Criterion(NamedTuple):
    """One line of the published table; a rule of thumb, not a law."""

    name: str
    favours_frozen: str
    favours_tuning: str


CRITERIA = (
    Criterion("target examples", "fewer than 1,000", "more than 5,000"),
    Criterion("domain similarity", "same domain", "domain shift"),
    Criterion("compute", "limited, CPU only", "GPU hours at hand"),
    Criterion("iteration speed", "rapid experiments", "can wait for training"),
    Criterion("probe accuracy against the target", "above 80 %", "below 60 %"),
    Criterion("task", "coarse-grained", "fine-grained distinctions"),
    Criterion("model size", "large model, little memory", "memory for backprop"),
)


class Reason(NamedTuple):
    """What one criterion says here.

    Attributes:
        criterion: Its name, one of `CRITERIA` or a check of the data.
        finding: What was found, in words.
        favours: ``"frozen"``, ``"fine-tuning"``, or ``""`` where it is undecided.
    """

    criterion: str
    finding: str
    favours: str


@dataclass(frozen=True)
class Advice:
    """A choice with its reasons, and what to do next.

    Attributes:
        choice: One of `CHOICES`.
        reasons: One for each criterion that was given.
        next_step: A sentence.
    """

    choice: str
    reasons: tuple[Reason, ...]
    next_step: str

    def count(self, favours: str) -> int:
        """How many reasons favour ``"frozen"`` or ``"fine-tuning"``."""
        return sum(reason.favours == favours for reason in self.reasons)

    def to_frame(self) -> Any:
        """A pandas table, one row a criterion."""
        import pandas as pd

        rows = [(r.criterion, r.finding, r.favours or "undecided") for r in self.reasons]
        return pd.DataFrame(rows, columns=["criterion", "found", "favours"]).set_index("criterion")

    def __repr__(self) -> str:
        lines = [f"  {r.criterion}: {r.finding}" + (f" → {r.favours}" if r.favours else "") for r in self.reasons]
        return "\n".join([f"Advice: {self.choice}. {self.next_step}", *lines])

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(border=0)  # to_html escapes
        return f"<p><b>{escape(self.choice.capitalize())}.</b> {escape(self.next_step)}</p>{table}"


def advise(
    *,
    n: int,
    probe_accuracy: float,
    similarity: str | None = None,
    target_accuracy: float | None = None,
    n_classes: int | None = None,
    chance: float | None = None,
    interval: tuple[float, float] | None = None,
    best_control: tuple[str, float] | None = None,
    gpu: bool | None = None,
    rapid: bool | None = None,
    fine_grained: bool | None = None,
    memory_for_backprop: bool | None = None,
) -> Advice:
    """The published criteria, weighed alike, on what was measured; what is not known does not count.

    Before any of them counts, the data must bear a judgement: a probe that is not above chance, or that a control
    without pretraining equals, asks for another look at pictures and labels, not for more training. Where the
    criteria are even, the gap itself is worth measuring: better layers and heads first, then fine-tuning for what is
    left of it.

    Args:
        n: Labelled target images.
        probe_accuracy: Of the best frozen probe, on images that chose nothing.
        similarity: Of the target to what the backbone saw: ``"near"``, ``"middle"``, ``"far"``. Easily overestimated.
        target_accuracy: What would be good enough, in (0, 1].
        n_classes: k.
        chance: Accuracy of the commonest class alone.
        interval: Of `probe_accuracy`.
        best_control: Name and accuracy of the best control without pretraining.
        gpu: Whether GPU hours are at hand.
        rapid: Whether experiments must be quick.
        fine_grained: Whether classes differ in small details.
        memory_for_backprop: Whether the gradients of the whole backbone fit into memory.

    Returns:
        An `Advice`.

    Raises:
        InputError: If a number is out of range.
        UnknownNameError: If `similarity` is unknown.

    Example:
        >>> advise(n=600, probe_accuracy=0.9, similarity="near", target_accuracy=0.95)
        Advice: freeze. The probe is at 95 % of the target: weigh the cost of fine-tuning against better data.
          target examples: 600, fewer than 1,000 → frozen
          domain similarity: near → frozen
          probe accuracy against the target: 95 % of it, above 80 % → frozen
    """
    check_advice(similarity=similarity, target_accuracy=target_accuracy)
    rival = None if best_control is None else best_control[1]
    _check_shares(probe_accuracy=probe_accuracy, chance=chance, best_control=rival)
    if n < 1:
        raise InputError(f"`n` must be at least 1, got {n}.")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        raise InputError(f"`interval` must be (low, high) in [0, 1], got {interval!r}.")
    reasons = [_examples(n)]
    if similarity is not None:
        favours = {"near": "frozen", "middle": "", "far": "fine-tuning"}[similarity]
        reasons.append(Reason("domain similarity", similarity, favours))
    for name, known, if_true, if_false in (
        ("compute", gpu, ("GPU hours at hand", "fine-tuning"), ("limited, CPU only", "frozen")),
        ("iteration speed", rapid, ("rapid experiments", "frozen"), ("can wait for training", "fine-tuning")),
    ):
        if known is not None:
            reasons.append(Reason(name, *(if_true if known else if_false)))
    share = None if target_accuracy is None else probe_accuracy / target_accuracy
    if share is not None:
        reasons.append(_against_target(share))
    for name, known, if_true, if_false in (
        ("task", fine_grained, ("fine-grained distinctions", "fine-tuning"), ("coarse-grained", "frozen")),
        (
            "model size",
            memory_for_backprop,
            ("memory for backprop", "fine-tuning"),
            ("large model, little memory", "frozen"),
        ),
    ):
        if known is not None:
            reasons.append(Reason(name, *(if_true if known else if_false)))
    low, high = interval or (probe_accuracy, probe_accuracy)
    doubts = _doubts(n, n_classes, probe_accuracy, low, high, chance, best_control)
    verdict = Advice("", (*reasons, *(reason for reason, _ in doubts)), "")
    if doubts:
        return Advice("look at the data first", verdict.reasons, doubts[0][1])
    lead = verdict.count("frozen") - verdict.count("fine-tuning")
    if share is not None and share >= 0.9:
        step = f"The probe is at {share:.0%} of the target: weigh the cost of fine-tuning against better data."
        step = step.replace("%", " %", 1)
        return Advice("freeze" if lead >= 0 else "measure the gap", verdict.reasons, step)
    if lead > 0:
        return Advice("freeze", verdict.reasons, "Compare layers and heads, then add labelled images where it errs.")
    if lead < 0:
        step = "Keep the frozen probe as the baseline, and measure the gap with `finetune` on the same images."
        if n < 1_000:
            step += " With fewer than 1,000 images, watch the val score: fine-tuning may overfit."
        return Advice("fine-tune", verdict.reasons, step)
    step = "Try better layers and heads on the cached features, then `finetune` for what is left of the gap."
    return Advice("measure the gap", verdict.reasons, step)


def _examples(n: int) -> Reason:
    if n < 1_000:
        return Reason("target examples", f"{n:,}, fewer than 1,000", "frozen")
    if n > 5_000:
        return Reason("target examples", f"{n:,}, more than 5,000", "fine-tuning")
    return Reason("target examples", f"{n:,}, between 1,000 and 5,000", "")


def _against_target(share: float) -> Reason:
    name, percent = "probe accuracy against the target", f"{100 * share:.0f} % of it"
    if share > 0.8:
        return Reason(name, f"{percent}, above 80 %", "frozen")
    if share < 0.6:
        return Reason(name, f"{percent}, below 60 %", "fine-tuning")
    return Reason(name, f"{percent}, between 60 % and 80 %", "")


def _doubts(
    n: int,
    n_classes: int | None,
    accuracy: float,
    low: float,
    high: float,
    chance: float | None,
    best_control: tuple[str, float] | None,
) -> Sequence[tuple[Reason, str]]:
    """What keeps the data from bearing a judgement, with what to do; the first decides.

    Too few pictures come first: they explain a probe at chance and one below its controls.
    """
    found = []
    if n_classes and n / n_classes < 10:
        found.append(
            (
                Reason("images per class", f"{n / n_classes:.1f}, fewer than 10", ""),
                "Label at least ten pictures of each class before deciding anything: so few cannot tell one choice "
                "from another.",
            )
        )
    if chance is not None and low <= chance:
        found.append(
            (
                Reason("above chance?", f"{accuracy:.3f} [{low:.3f}, {high:.3f}] against {chance:.3f}", ""),
                "The probe is not clearly above the commonest class: check that the labels belong to the pictures, "
                "look at some of each class, then add more.",
            )
        )
    if best_control is not None and accuracy <= best_control[1]:
        name, rival = best_control
        found.append(
            (
                Reason("beats its controls?", f"{accuracy:.3f} against {rival:.3f} of {name}", ""),
                f"Frozen features do not beat {name}: this backbone brings nothing here. Try another layer, size or "
                "backbone, or train a small network from scratch.",
            )
        )
    return found


def check_advice(*, similarity: str | None, target_accuracy: float | None) -> None:
    """What a caller says, as opposed to what was measured, is in range.

    Raises:
        InputError: If the target is not in (0, 1].
        UnknownNameError: If `similarity` is unknown.
    """
    _check_shares(target_accuracy=target_accuracy)
    if target_accuracy == 0:
        raise InputError("`target_accuracy` must be above 0.")
    if similarity is not None and similarity not in SIMILARITIES:
        raise UnknownNameError("similarity", similarity, SIMILARITIES)


def _check_shares(**shares: float | None) -> None:
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"`{name}` must lie in [0, 1], got {value!r}. Per cent? Divide by 100.")
