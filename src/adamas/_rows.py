"""Many trials at once: one problem, one rule, and in each row of one array the run of other hyper-parameters."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from adamas.problems import Counterexample, NoisyProblem, Problem
from adamas.rules import Rule, named, step

Array = Any

DIVERGED = 1e30
"""The loss of a run that went beyond this, or became NaN."""

Report = Callable[[int, Array], Array]
"""Called with the steps taken and the losses (rows, starts) now and then; returns which rows go on."""


class Losses:
    """What became of rows: the losses above the minimum, (rows, starts), in the end and at best."""

    def __init__(self, rows: int, starts: int) -> None:
        self.final = np.full((rows, starts), DIVERGED)
        self.best = np.full((rows, starts), DIVERGED)

    @property
    def scores(self) -> list[float]:
        """The median over the starts of the final losses, of each row."""
        return [float(x) for x in np.median(self.final, axis=1)]


def run_rows(
    problem: Problem,
    rule: type[Rule],
    rows: Sequence[Mapping[str, Any]],
    starts: Array,
    iterations: int,
    seed: int = 0,
    *,
    every: int = 0,
    report: Report | None = None,
) -> Losses:
    """Return the losses of a run for each row of hyper-parameters, from each of the starts, ([rows,] starts, n).

    They are the specification's in float64. All rows see the same noise, which depends on seed and step alone; the
    bits of a row do not depend on the others. report: called each `every` steps.
    """
    losses = Losses(len(rows), starts.shape[-2])
    try:
        _run(problem, rule, rows, _columns(rule, rows), starts, iterations, seed, every, report, losses)
    except (TypeError, ValueError):  # the rule branches on a number, so it cannot take a column of them
        losses = Losses(len(rows), starts.shape[-2])
        starts = np.broadcast_to(starts, (len(rows), *starts.shape[-2:]))
        for i, row in enumerate(rows):
            alone, h = Losses(1, starts.shape[-2]), SimpleNamespace(**{**_defaults(rule), **row})
            _run(problem, rule, [row], h, starts[i], iterations, seed, 0, None, alone)
            losses.final[i], losses.best[i] = alone.final[0], alone.best[0]
    return losses


def _run(
    problem: Problem,
    rule: type[Rule],
    rows: Sequence[Mapping[str, Any]],
    h: Any,
    starts: Array,
    iterations: int,
    seed: int,
    every: int,
    report: Report | None,
    losses: Losses,
) -> None:
    """Fill in the losses of rows that are run as one array; h: their hyper-parameters as attributes."""
    alive = np.arange(len(rows))
    x = np.array(np.broadcast_to(starts, (len(rows), *starts.shape[-2:])), float)
    state = [np.zeros_like(x) for _ in rule.state_names]
    with np.errstate(all="ignore"):
        for t in range(1, iterations + 1):
            value, gradient = seen(problem, x, t, seed)
            gap = above_minimum(problem, value)
            losses.best[alive] = np.minimum(losses.best[alive], gap)
            if report is not None and t > 1 and (t - 1) % every == 0:
                keep = report(t - 1, gap)
                alive, x, gradient = alive[keep], x[keep], gradient[keep]
                state = [array[keep] for array in state]
                if not len(alive):
                    return
                h = _columns(rule, [rows[int(i)] for i in alive])
            x, *state = step(rule, np, named(*rule.numbers(h, t)), x, gradient, *state)
            if problem.bounds is not None:
                np.clip(x, *problem.bounds.T, out=x)
        losses.final[alive] = above_minimum(problem, problem.value(x))
        losses.best[alive] = np.minimum(losses.best[alive], losses.final[alive])


def _defaults(rule: type[Rule]) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in rule.ranges}


def _columns(rule: type[Rule], rows: Sequence[Mapping[str, Any]]) -> SimpleNamespace:
    """Return all hyper-parameters as attributes: what the rows give as columns, (rows, 1, 1), else the defaults."""
    columns = _defaults(rule)
    for name in rows[0]:
        columns[name] = np.array([row[name] for row in rows])[:, None, None]
    return SimpleNamespace(**columns)


def above_minimum(problem: Problem, value: Array) -> Array:
    """Return how far losses are above the minimum, if that is known: DIVERGED where that is more, or not finite."""
    known = math.isfinite(problem.minimum)
    gap = np.maximum(value - problem.minimum, 0) if known else np.asarray(value)
    return np.where(np.isfinite(gap) & (gap < DIVERGED), gap, DIVERGED)


def seen(problem: Problem, x: Array, t: int, seed: int) -> tuple[Array, Array]:
    """Return the exact values and the gradients that optimizers see in step t, at (rows, starts, n)."""
    if isinstance(problem, Counterexample):
        return problem.value(x), problem.gradient_at(x, t)
    if isinstance(problem, NoisyProblem):
        samples = [problem.sample(row, np.random.default_rng([seed, t]))[1] for row in x]
        return problem.value(x), np.stack(samples)
    return problem.value_and_gradient(x)
