"""Freeze, or fine-tune? A short decision tree on what was measured, beside the published rules of thumb."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from frozenkit._arrays import described, real_number, whole_number
from frozenkit._outputs import frame_html, text_html
from frozenkit.errors import InputError, UnknownNameError, require

if TYPE_CHECKING:
    import pandas as pd

    from frozenkit.probes.scores import Gap

SIMILARITIES = ("near", "middle", "far")
CHOICES = ("freeze", "fine-tune", "measure the gap", "improve the probe", "look at the data first")


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
    """What one question of the tree, or one criterion, says here.

    Attributes:
        criterion: The question, a check of the data, or the name of one of `CRITERIA`.
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
        reasons: The questions of the tree that were asked, with their answers; then what each published criterion says
            of what is known, and how they lean together. Only the questions decide.
        next_step: A sentence or two.
    """

    choice: str
    reasons: tuple[Reason, ...]
    next_step: str

    def count(self, favours: str) -> int:
        """How many published criteria favour ``"frozen"`` or ``"fine-tuning"``."""
        return _count(self.reasons, favours)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row per question or criterion."""
        pd = require("pandas", "course")

        rows = [(r.criterion, r.finding, r.favours or "undecided") for r in self.reasons]
        return pd.DataFrame(rows, columns=["criterion", "found", "favours"]).set_index("criterion")

    def __repr__(self) -> str:
        lines = [f"  {r.criterion}: {r.finding}" + (f" → {r.favours}" if r.favours else "") for r in self.reasons]
        return "\n".join([f"Advice: {self.choice}. {self.next_step}", *lines])

    def _repr_html_(self) -> str:
        table = frame_html(self.to_frame)  # which escapes
        if not table:
            return text_html(self)
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
    gap: "Gap | None" = None,
    gpu: bool | None = None,
    rapid: bool | None = None,
    fine_grained: bool | None = None,
    memory_for_backprop: bool | None = None,
) -> Advice:
    """Outcome before circumstances: three questions in turn, the first answer that settles it decides.

    1. *Good enough already?* If the probe reaches the target, nothing is left to do.
    2. *Can these data tell?* Where there are too few images of a class, where the probe is not above chance or a
       control without pretraining equals it, or where its interval holds the target, look at the data first.
    3. *Is the gap worth it?* Measured, and shown to be above zero, it is; not shown to be, another way is better. Not
       measured, it is to be measured if the target is missed: with a GPU at hand by fine-tuning at once.

    Circumstances are constraints: without memory for backprop nothing is fine-tuned, and the probe must improve. They
    never make a missed target good enough. The published criteria, which mix outcome and circumstances, are shown for
    what is known, and where they lean the other way it is said. They decide only where there is no target and no gap.

    Args:
        n: Labelled target images.
        probe_accuracy: Of the best frozen probe, on images that chose nothing.
        similarity: Of the target to what the backbone saw: ``"near"``, ``"middle"``, ``"far"``. Easily overestimated.
        target_accuracy: What would be good enough, in (0, 1].
        n_classes: k.
        chance: Accuracy of the commonest class alone.
        interval: Of `probe_accuracy`.
        best_control: Name and accuracy of the best control without pretraining.
        gap: What fine-tuning brought on these images, measured or recorded: see `representation_gap`.
        gpu: Whether GPU hours are at hand.
        rapid: Whether experiments must be quick.
        fine_grained: Whether classes differ in small details.
        memory_for_backprop: Whether the gradients of the whole backbone fit into memory.

    Returns:
        An `Advice`.

    Raises:
        InputError: If something is no number or out of range, or `interval` does not hold `probe_accuracy`.
        UnknownNameError: If `similarity` is unknown.

    Example:
        >>> advise(n=600, probe_accuracy=0.9, similarity="near", target_accuracy=0.95)
        Advice: measure the gap. The probe is at 95 % of the target: weigh the cost of fine-tuning against better data.
          good enough already?: no, 0.900 where 0.950 is needed
          can these data tell?: nothing speaks against it
          is the gap worth it?: not measured
          target examples: 600, fewer than 1,000 → frozen
          domain similarity: near → frozen
          probe accuracy against the target: 95 % of it, above 80 % → frozen
          published criteria together: 3 to 0 for frozen, against this advice → frozen
    """
    check_advice(similarity=similarity, target_accuracy=target_accuracy)
    shares = {"probe_accuracy": probe_accuracy, "chance": chance}
    if best_control is not None and not (isinstance(best_control, tuple | list) and len(best_control) == 2):
        raise InputError(f"`best_control` must be (name, accuracy), got {described(best_control)}.")
    real_number("probe_accuracy", probe_accuracy)
    _check_shares(**shares, best_control=None if best_control is None else real_number("best_control", best_control[1]))
    n, n_classes = whole_number("n", n), None if n_classes is None else whole_number("n_classes", n_classes)
    if gap is not None and not (hasattr(gap, "value") and hasattr(gap, "low") and hasattr(gap, "high")):
        raise InputError(f"`gap` must be a Gap, got {described(gap)}. Measure one with representation_gap.")
    low, high = (probe_accuracy, probe_accuracy) if interval is None else _check_interval(interval, probe_accuracy)
    doubts = _find_doubts(n, n_classes, probe_accuracy, low, high, chance, best_control, target_accuracy)
    published = _apply_criteria(
        n, similarity, probe_accuracy, target_accuracy, gpu, rapid, fine_grained, memory_for_backprop
    )
    lead = _count(published, "frozen") - _count(published, "fine-tuning")
    can_tune = memory_for_backprop is not False
    asked: list[Reason] = []

    def decide(choice: str, step: str) -> Advice:
        return Advice(choice, (*asked, *published, *_sum_up(published, choice)), step)

    # Good enough already? A probe that is not above chance is good enough for nothing.
    at_chance = chance is not None and low <= chance
    missed = target_accuracy is not None and (probe_accuracy < target_accuracy or at_chance)
    if target_accuracy is None:
        asked.append(Reason("good enough already?", "no target was given", ""))
    elif missed:
        word = "not above chance" if probe_accuracy >= target_accuracy else "no"
        answer = f"{word}, {probe_accuracy:.3f} where {target_accuracy:.3f} is needed"
        asked.append(Reason("good enough already?", answer, ""))
    else:
        answer = f"yes, {probe_accuracy:.3f} where {target_accuracy:.3f} is needed"
        asked.append(Reason("good enough already?", answer, "frozen"))
        step = "The probe reaches the target: nothing is left to do."
        if low < target_accuracy:
            step += f" Its interval reaches down to {low:.3f}: score more test images before you rely on it."
        if best_control is not None and probe_accuracy <= best_control[1]:
            step += f" But {best_control[0]} does as well without pretraining, and is simpler."
        return decide("freeze", step)
    # Can these data tell?
    asked.append(Reason("can these data tell?", "no" if doubts else "nothing speaks against it", ""))
    if doubts:
        asked.extend(doubt.reason for doubt in doubts)
        return decide("look at the data first", doubts[0].step)
    # Is the gap worth it?
    improve = "Try other layers, heads and backbones, and label more images where it errs"
    if gap is not None:
        shown = "above" if gap.low > 0 else "below" if gap.high < 0 else "not shown to differ from"
        points = f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], {shown} zero"
        is_worth = gap.low > 0
        asked.append(Reason("is the gap worth it?", points, "fine-tuning" if is_worth else "frozen"))
        if is_worth and can_tune:
            step = f"Fine-tuning brings {100 * gap.value:.1f} points: weigh them against its seconds and its labels."
            if target_accuracy is not None and probe_accuracy + gap.value < target_accuracy:
                step += f" It does not reach the target either. {improve}, too."
            return decide("fine-tune", step)
        if is_worth:
            return decide("improve the probe", f"Fine-tuning would bring more, but needs memory elsewhere. {improve}.")
        return decide("improve the probe" if missed else "freeze", f"Fine-tuning is not shown to help here. {improve}.")
    asked.append(Reason("is the gap worth it?", "not measured", ""))
    overfit = " With fewer than 1,000 images, watch the val score: fine-tuning may overfit." if n < 1_000 else ""
    if not missed or target_accuracy is None:
        if lead > 0 or not can_tune:
            return decide("freeze", f"Say what would be good enough. {improve}.")
        return decide(
            "measure the gap", f"Say what would be good enough. {improve}, then `finetune` on the same images."
        )
    if not can_tune:
        step = f"The probe misses the target, and nothing here can fine-tune. {improve}; or fine-tune elsewhere."
        return decide("improve the probe", step)
    share = probe_accuracy / target_accuracy
    if share >= 0.9:
        percent = f"{100 * share:.0f} %"
        step = f"The probe is at {percent} of the target: weigh the cost of fine-tuning against better data."
        return decide("measure the gap", step)
    if gpu:
        step = (
            f"Keep the frozen probe as the baseline, and measure the gap with `finetune` on the same images.{overfit}"
        )
        return decide("fine-tune", step)
    slow = " Without a GPU, time one epoch first." if gpu is False else ""
    return decide("measure the gap", f"{improve}; then `finetune` for what is left of the gap.{slow}{overfit}")


def _check_interval(interval: Any, accuracy: float) -> tuple[float, float]:
    """(low, high) of the accuracy, checked."""
    if not hasattr(interval, "__len__") or isinstance(interval, str) or len(interval) != 2:
        raise InputError(f"`interval` must be (low, high) in [0, 1], got {described(interval)}.")
    low, high = (real_number("interval", end) for end in interval)
    if not 0 <= low <= high <= 1:
        raise InputError(f"`interval` must be (low, high) in [0, 1], got {interval!r}.")
    if not low - 1e-9 <= accuracy <= high + 1e-9:  # the ends are rounded
        raise InputError(
            f"`interval` must hold `probe_accuracy`, got {accuracy:.4g} outside [{low:.4g}, {high:.4g}]. Give both of "
            "the same images and metric."
        )
    return low, high


def _apply_criteria(
    n: int,
    similarity: str | None,
    accuracy: float,
    target: float | None,
    gpu: bool | None,
    rapid: bool | None,
    fine_grained: bool | None,
    memory: bool | None,
) -> list[Reason]:
    """What each of `CRITERIA` says of what is known, in their order."""
    reasons = [_judge_examples(n)]
    if similarity is not None:
        favours = {"near": "frozen", "middle": "", "far": "fine-tuning"}[similarity]
        reasons.append(Reason("domain similarity", similarity, favours))
    by_name = {
        "compute": (gpu, ("GPU hours at hand", "fine-tuning"), ("limited, CPU only", "frozen")),
        "iteration speed": (rapid, ("rapid experiments", "frozen"), ("can wait for training", "fine-tuning")),
        "task": (fine_grained, ("fine-grained distinctions", "fine-tuning"), ("coarse-grained", "frozen")),
        "model size": (memory, ("memory for backprop", "fine-tuning"), ("large model, little memory", "frozen")),
    }
    reasons += [
        Reason(name, *(yes if known else no)) for name, (known, yes, no) in by_name.items() if known is not None
    ]
    if target is not None:
        reasons.append(_judge_accuracy(accuracy / target))
    order = [criterion.name for criterion in CRITERIA]
    return sorted(reasons, key=lambda reason: order.index(reason.criterion))


def _count(reasons: Iterable[Reason], favours: str) -> int:
    names = {criterion.name for criterion in CRITERIA}
    return sum(reason.favours == favours for reason in reasons if reason.criterion in names)


def _sum_up(published: Sequence[Reason], choice: str) -> list[Reason]:
    """How the published criteria lean, and whether that is against the choice; nothing where none of them leans."""
    frozen, tuning = _count(published, "frozen"), _count(published, "fine-tuning")
    if not frozen and not tuning:
        return []
    if frozen == tuning:
        return [Reason("published criteria together", f"even, {frozen} to {tuning}", "")]
    side = "frozen" if frozen > tuning else "fine-tuning"
    against = {"frozen": ("fine-tune", "measure the gap"), "fine-tuning": ("freeze", "improve the probe")}[side]
    text = f"{max(frozen, tuning)} to {min(frozen, tuning)} for {side}"
    return [Reason("published criteria together", text + ", against this advice" * (choice in against), side)]


def _judge_examples(n: int) -> Reason:
    if n < 1_000:
        return Reason("target examples", f"{n:,}, fewer than 1,000", "frozen")
    if n > 5_000:
        return Reason("target examples", f"{n:,}, more than 5,000", "fine-tuning")
    return Reason("target examples", f"{n:,}, between 1,000 and 5,000", "")


def _judge_accuracy(share: float) -> Reason:
    name, percent = "probe accuracy against the target", f"{100 * share:.0f} % of it"
    if share > 0.8:
        return Reason(name, f"{percent}, above 80 %", "frozen")
    if share < 0.6:
        return Reason(name, f"{percent}, below 60 %", "fine-tuning")
    return Reason(name, f"{percent}, between 60 % and 80 %", "")


class _Doubt(NamedTuple):
    reason: Reason
    step: str  # what to do about it


def _find_doubts(
    n: int,
    n_classes: int | None,
    accuracy: float,
    low: float,
    high: float,
    chance: float | None,
    best_control: tuple[str, float] | None,
    target: float | None,
) -> list[_Doubt]:
    """What keeps the data from bearing a judgement, with what to do; the first decides.

    Too few images come first: they explain a probe at chance and one below its controls.
    """
    doubts = []

    def doubt(question: str, finding: str, step: str) -> None:
        doubts.append(_Doubt(Reason(question, finding, ""), step))

    if n_classes and n / n_classes < 10:
        doubt(
            "images per class",
            f"{n / n_classes:.1f}, fewer than 10",
            "Label at least ten images of each class before deciding anything: so few cannot tell one choice from "
            "another.",
        )
    if chance is not None and low <= chance:
        doubt(
            "above chance?",
            f"{accuracy:.3f} [{low:.3f}, {high:.3f}] against {chance:.3f}",
            "The probe is not clearly above the commonest class: check that the labels belong to the images, look at "
            "some of each class, then add more.",
        )
    if best_control is not None and accuracy <= best_control[1]:
        name, rival = best_control
        doubt(
            "beats its controls?",
            f"{accuracy:.3f} against {rival:.3f} of {name}",
            f"Frozen features do not beat {name}: this backbone brings nothing here. Try another layer, size or "
            "backbone, or train a small network from scratch.",
        )
    if target is not None and accuracy < target <= high:
        doubt(
            "misses the target?",
            f"{target:.3f} lies in [{low:.3f}, {high:.3f}]",
            "Score more test images first: so few cannot tell whether the probe already reaches the target.",
        )
    return doubts


def check_advice(*, similarity: str | None, target_accuracy: float | None) -> None:
    """What a caller says, as opposed to what was measured, is in range.

    Raises:
        InputError: If the target is not in (0, 1].
        UnknownNameError: If `similarity` is unknown.
    """
    _check_shares(target_accuracy=target_accuracy)
    if target_accuracy == 0:
        raise InputError("`target_accuracy` must be above 0, got 0. Say what would be good enough, such as 0.9.")
    if similarity is not None and similarity not in SIMILARITIES:
        raise UnknownNameError("similarity", similarity, SIMILARITIES)


def _check_shares(**shares: float | None) -> None:
    for name, value in shares.items():
        if value is not None and not 0 <= real_number(name, value) <= 1:
            raise InputError(f"`{name}` must lie in [0, 1], got {value!r}. Per cent? Divide by 100.")
