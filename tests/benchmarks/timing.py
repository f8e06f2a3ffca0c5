"""What all benchmarks share: the median of a few runs, and the figure it becomes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured ratio.

    Attributes:
        work: What was timed.
        ours: Our median.
        reference: The reference's median.
        ratio: reference / ours.
        floor: What counts as done.
        goal: What is wanted next.
        note: How the two were made to do equal work.
        unit: Of both.
    """

    work: str
    ours: float
    reference: float
    ratio: float
    floor: float
    goal: float
    note: str = ""
    unit: str = "s"

    def __str__(self) -> str:
        verdict = "reaches the goal" if self.ratio >= self.goal else "ok" if self.ratio >= self.floor else "BELOW FLOOR"
        return (
            f"{self.work}: {self.ratio:.3g}× (floor {self.floor:.2g}, goal {self.goal:.2g}; "
            f"{self.ours:.4g} {self.unit} against {self.reference:.4g} {self.unit}) {verdict}. {self.note}"
        )


def figure(work: str, ours: float, reference: float, *, floor: float, goal: float, note: str = "") -> Figure:
    return Figure(work, ours, reference, reference / ours, floor, goal, note)


def median_seconds(function: Callable[[], object], *, repeats: int = 5) -> float:
    """Median wall-clock time of `function`, after one run that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
