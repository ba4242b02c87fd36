"""Fair comparisons: the same starts and noise for every rule, and the same budget to tune each learning rate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas._optimizers import OPTIMIZERS
from adamas._rows import DIVERGED, above_minimum, seen
from adamas.problems import Problem

Array = Any

RATES = (1e-5, 10.0)
"""The range that learning rates are tuned in, on a log grid."""


@dataclass(frozen=True)
class Outcome:
    """What a rule reached: learning rates tried and the median final loss of each; then, at the best, over all seeds.

    losses: (seeds, steps), the loss above the minimum before each step. final: (seeds,), after the last. steps: the
    median number of steps to reach the target, infinite if fewer than half of the seeds did. failures: seeds that
    diverged.
    """

    name: str
    rates: Array
    tried: Array
    rate: float
    losses: Array
    final: Array
    steps: float
    failures: int

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The quartiles of the final loss above the minimum."""
        low, middle, high = np.quantile(self.final, [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)

    @property
    def sensitivity(self) -> float:
        """The share of the learning rates that end at most ten times as high as the best."""
        return float((self.tried <= 10 * self.tried.min() + 1e-12).mean())


def starts_of(problem: Problem, seeds: int, seed: int) -> Array:
    """Return a start for each seed: the suggested one, moved by a tenth of the domain at random, inside it."""
    low, high = problem.domain.T
    noise = np.random.default_rng(seed).normal(size=(seeds, problem.n)) * (high - low) / 10
    noise[0] = 0
    return np.clip(problem.start + noise, low, high)


def run_all(problem: Problem, name: str, rate: float, starts: Array, steps: int, seed: int) -> tuple[Array, Array]:
    """Return the losses above the minimum before each step, (starts, steps), and those at the end.

    All starts are one array, so they are stepped at once, unless the rule looks at whole arrays. Noise depends on seed
    and step alone.
    """
    made: Any = OPTIMIZERS[name]
    opt, x, losses = made(learning_rate=rate), starts.copy(), np.empty((len(starts), steps))
    with np.errstate(all="ignore"):
        for t in range(1, steps + 1):
            (value,), (gradient,) = seen(problem, x[None], t, seed)
            losses[:, t - 1] = above_minimum(problem, value)
            opt.update(*((list(x), list(gradient)) if opt.looks_at_arrays(0) else (x, gradient)))  # views of x
            if problem.bounds is not None:
                np.clip(x, *problem.bounds.T, out=x)
        return losses, above_minimum(problem, problem.value(x))


def compare(
    problem: Problem,
    names: Sequence[str],
    *,
    steps: int = 1000,
    seeds: int = 10,
    tune_budget: int = 20,
    target: float = 1e-6,
    seed: int = 0,
    progress: Callable[[str], object] = lambda text: None,  # noqa: ARG005
) -> Mapping[str, Outcome]:
    """Return what each rule reaches: tuned by other starts than those that it is judged by.

    tune_budget: how many learning rates each rule may try, on a log grid. target: the loss above the minimum that
    counts as reached.
    """
    rates = np.geomspace(*RATES, tune_budget)
    tuning, judged = starts_of(problem, seeds, seed + 1), starts_of(problem, seeds, seed)
    found = {}
    for name in names:
        progress(name)
        tried = np.array([np.median(run_all(problem, name, rate, tuning, steps, seed + 1)[1]) for rate in rates])
        rate = float(rates[int(np.argmin(tried))])
        losses, final = run_all(problem, name, rate, judged, steps, seed)
        reached = losses <= target
        first = np.where(reached.any(axis=1), np.argmax(reached, axis=1), np.inf)
        failures = int((final >= DIVERGED).sum())
        found[name] = Outcome(name, rates, tried, rate, losses, final, float(np.median(first)), failures)
    return found
