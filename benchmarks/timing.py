"""Comparing two pieces of work fairly on a machine whose speed drifts."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Row:
    """A comparison: how many times as long the peer takes as we do, and what that should be.

    ours, peer: called with the number of the run; what a run needs anew, such as gradients, they choose by it.
    """

    work: str
    peer_name: str
    ours: Callable[[int], object]
    peer: Callable[[int], object]
    target: float
    runs: int
    repeat: int = 1  # calls per run, for work too short for the clock
    ratio: float = field(default=float("nan"), init=False)

    def measure(self) -> None:
        """Run both in turn, ours first in every other pair, after two runs that do not count."""
        times: dict[Callable[[int], object], list[float]] = {self.ours: [], self.peer: []}
        for run in range(self.runs + 2):
            for work in (self.ours, self.peer) if run % 2 else (self.peer, self.ours):
                start = time.perf_counter()
                for call in range(self.repeat):
                    work(run + call)
                if run >= 2:
                    times[work].append(time.perf_counter() - start)
        self.ratio = statistics.median(times[self.peer]) / statistics.median(times[self.ours])
