"""Comparing two pieces of work fairly on a machine whose speed drifts."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

Work = Callable[[int], object]
"""A piece of work, called with the number of the run: what a run needs anew, such as gradients, it chooses by that."""

LEAST = 3e-4
"""Seconds that a run takes at least: shorter work is repeated, because of the clock."""

PATIENCE = 20.0
"""Seconds for the runs of a peer, beyond which it gets fewer pairs, but 9 at least."""


class Ratio(NamedTuple):
    """How many times as long a peer takes as we do: the median of pairs and its 95% interval; seconds of both."""

    median: float
    low: float
    high: float
    ours: float
    peer: float

    def __str__(self) -> str:
        return f"{short(self.median)}x [{short(self.low)}, {short(self.high)}]"


def short(x: float) -> str:
    """Return a ratio in three digits."""
    return f"{x:.0f}" if x >= 99.5 else f"{x:.1f}" if x >= 9.95 else f"{x:.2f}"


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval between two order statistics that holds the median of what values are drawn from.

    The number of values below that median is binomial, whatever their distribution.
    """
    n, ordered, outside = len(values), sorted(values), 0.0
    for k in range(n // 2):
        outside += math.comb(n, k) / 2**n
        if outside > (1 - confidence) / 2:
            return ordered[max(k - 1, 0)], ordered[min(n - k, n - 1)]
    return ordered[0], ordered[-1]


def compare(ours: Work, peer: Work, pairs: int, least: int = 2) -> Ratio:
    """Run both in turn, ours first in every other pair, after two pairs that do not count.

    least: how often each is repeated in a run at least; more leave each the caches to itself.
    """
    sides = [(ours, max(least, _repeats(ours)[0])), (peer, max(least, _repeats(peer)[0]))]
    pairs = min(pairs, max(9, int(PATIENCE / (_repeats(peer)[1] * sides[1][1]))))
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(pairs + 2):
        for side in (0, 1) if run % 2 else (1, 0):
            work, repeats = sides[side]
            start = time.perf_counter()
            for call in range(repeats):
                work(run + call)
            if run >= 2:
                times[side].append((time.perf_counter() - start) / repeats)
    ratios = [theirs / own for own, theirs in zip(*times, strict=True)]
    return Ratio(statistics.median(ratios), *interval(ratios), statistics.median(times[0]), statistics.median(times[1]))


def _repeats(work: Work) -> tuple[int, float]:
    """Return how often to repeat work, and the seconds that it takes."""
    work(0)
    start = time.perf_counter()
    work(1)
    seconds = time.perf_counter() - start
    return math.ceil(LEAST / seconds), seconds
