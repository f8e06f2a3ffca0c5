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
        seconds: Ours, median.
        reference_seconds: The reference's, median.
        ratio: reference_seconds / seconds.
        floor: What counts as done.
        goal: What is wanted next.
        note: How the two were made to do equal work.
    """

    work: str
    seconds: float
    reference_seconds: float
    ratio: float
    floor: float
    goal: float
    note: str = ""

    def __str__(self) -> str:
        verdict = "reaches the goal" if self.ratio >= self.goal else "ok" if self.ratio >= self.floor else "BELOW FLOOR"
        return (
            f"{self.work}: {self.ratio:.1f}× (floor {self.floor:g}, goal {self.goal:g}; {self.seconds:.4g} s against "
            f"{self.reference_seconds:.4g} s) {verdict}. {self.note}"
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
