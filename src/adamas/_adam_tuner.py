"""The tutorial's tuner: random search on a function of scalars, each trial from a start of its own."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adamas._rows import run_rows
from adamas._space import Uniform, checked
from adamas._tune import Tried, Tuned
from adamas.problems import Problem
from adamas.rules import Adam

Array = Any


class AdamTuner:
    """Random search for Adam's hyper-parameters on a function of some numbers, each trial from a start of its own.

    f: a function of scalars, ``f(x, y)``. ranges: pairs (low, high), of learning_rate, beta1, beta2, epsilon in this
    order, as many as are searched. gradient: returns the derivatives, called like f; central differences if not given.
    start: the range that each coordinate of a start is drawn from. seed: of the draws.

    ``best_params, best_score = AdamTuner(f, ranges).tune(num_trials=100, iterations=1000)``: the score is f in the end.
    `Tuner` is the fairer one: here a trial that happens to start near the minimum looks good whatever its
    hyper-parameters, so the best of many is partly the luckiest; there all trials get the same starts.
    """

    def __init__(
        self,
        f: Callable[..., float],
        ranges: Sequence[tuple[float, float]],
        gradient: Callable[..., Any] | None = None,
        start: tuple[float, float] = (-10, 10),
        *,
        seed: int = 0,
    ) -> None:
        names = list(Adam.ranges)[:4]
        if not 1 <= len(ranges) <= len(names):
            raise ValueError(f"ranges must be 1 to 4 pairs, of {', '.join(names)}, got {len(ranges)}")
        self.space = checked({name: Uniform(*pair) for name, pair in zip(names, ranges, strict=False)}, Adam)
        self.start, self.seed, self.n = Uniform(*start), seed, len(inspect.signature(f).parameters)
        self._value = _OfScalars(f)
        self._gradient = None if gradient is None else _OfScalars(gradient)

    def tune(self, num_trials: int = 100, iterations: int = 1000) -> Tuned:
        """Return what a number of trials of some steps found; unpacks as best_params, best_score."""
        rng = np.random.default_rng(self.seed)
        draws = {name: given.draw(rng, num_trials) for name, given in self.space.items()}
        rows = [{name: draw[i] for name, draw in draws.items()} for i in range(num_trials)]
        starts = np.array(self.start.draw(rng, num_trials * self.n)).reshape(num_trials, 1, self.n)
        none, nowhere = np.empty((0, self.n)), np.zeros(self.n)
        problem = Problem("f", "", "", self._at, np.zeros((self.n, 2)), none, np.nan, nowhere)
        losses = run_rows(problem, Adam, rows, starts, iterations)
        best = losses.best[:, 0].tolist()
        trials = [Tried(*trial) for trial in zip(range(num_trials), rows, losses.scores, best, strict=True)]
        return Tuned(trials, self.space)

    def _at(self, x: Array) -> tuple[Array, Array]:
        """Return values and gradients at points of shape (..., n)."""
        value = self._value(x)
        if self._gradient is not None:
            return value, np.moveaxis(self._gradient(x), 0, -1)
        h = np.cbrt(np.finfo(float).eps) * np.maximum(1, abs(x))
        gradient = np.empty_like(x)
        for i in range(self.n):
            shift = np.where(np.arange(self.n) == i, h, 0)
            ahead, behind = x + shift, x - shift
            gradient[..., i] = (self._value(ahead) - self._value(behind)) / (ahead - behind)[..., i]
        return value, gradient


class _OfScalars:
    """A function of scalars, called for all points of an array: at once, if that gave the same when tried."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.at_once: bool | None = None

    def __call__(self, x: Array) -> Array:
        if self.at_once:
            return self._of_arrays(x)
        each = self._of_each(x)
        if self.at_once is None:
            try:
                self.at_once = np.array_equal(self._of_arrays(x), each)
            except Exception:
                self.at_once = False
        return each

    def _of_arrays(self, x: Array) -> Array:
        return np.asarray(self.function(*np.moveaxis(x, -1, 0)), float)

    def _of_each(self, x: Array) -> Array:
        """Return the results at each point; what overflows is infinite."""
        results = []
        for point in x.reshape(-1, x.shape[-1]).tolist():
            try:
                results.append(np.asarray(self.function(*point), float))
            except OverflowError:
                results.append(np.full(results[-1].shape if results else (), np.inf))
        return np.moveaxis(np.array(results), 0, -1).reshape(*results[0].shape, *x.shape[:-1])
