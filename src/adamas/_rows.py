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

Report = Callable[[int, Array, Array], Array]
"""Called with the steps taken, the numbers of some rows, and their losses (rows, starts); returns which go on."""


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
    starts = np.broadcast_to(starts, (len(rows), *starts.shape[-2:]))
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(_kind(row), []).append(i)
    for group in groups.values():
        chosen = np.array(group)
        try:
            _try_columns(rule, rows[group[0]])
            _run(problem, rule, rows, chosen, starts, iterations, seed, every, report, losses)
        except (TypeError, ValueError):  # the rule branches on other numbers, so it cannot take a column of them
            for i in group:
                _run(problem, rule, rows, np.array([i]), starts, iterations, seed, 0, None, losses, columns=False)
    return losses


def _try_columns(rule: type[Rule], row: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError if a rule branches on a number; one number alone in a column would not show it."""
    h = _hyperparameters(rule, [row], np.zeros(2, int), columns=True)
    vars(h).update(rule.first_carry)
    rule.numbers(h, 1)


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what rows that are stepped as one array share: see `adamas.rules.alike`; switches are the same for all."""
    return tuple(value if isinstance(value, bool | str) else (value == 0, 1 - value < 0.5) for value in row.values())


def _run(
    problem: Problem,
    rule: type[Rule],
    rows: Sequence[Mapping[str, Any]],
    alive: Array,
    starts: Array,
    iterations: int,
    seed: int,
    every: int,
    report: Report | None,
    losses: Losses,
    columns: bool = True,
) -> None:
    """Fill in the losses of the rows with the numbers in `alive`, which are run as one array."""
    h = _hyperparameters(rule, rows, alive, columns)
    # The rows lie next to each other in memory, so that NumPy's inner loops run over them and not over few coordinates.
    x = np.array(starts[alive], float, order="F")
    state = [np.zeros_like(x) for _ in rule.state_names]
    best = np.full(x.shape[:-1], DIVERGED, order="F")
    vars(h).update(rule.first_carry)
    if columns and rule.reduces(vars(h)):
        raise ValueError("what counts as an array is the run of one row from one start")
    with np.errstate(all="ignore"):
        for t in range(1, iterations + 1):
            value, gradient = seen(problem, x, t, seed)
            gap = above_minimum(problem, value)
            np.minimum(best, gap, out=best)
            if report is not None and t > 1 and (t - 1) % every == 0:
                keep = report(t - 1, alive, gap)
                losses.best[alive] = best
                alive, x, gradient, best = alive[keep], np.asfortranarray(x[keep]), gradient[keep], best[keep]
                state = [np.asfortranarray(array[keep]) for array in state]
                if not len(alive):
                    return
                kept = {name: _kept(vars(h)[name], keep) for name in rule.first_carry}
                h = _hyperparameters(rule, rows, alive, columns)
                vars(h).update(kept)
            c = named(*rule.numbers(h, t))
            for name in rule.first_carry:
                setattr(h, name, getattr(c, name))
            x, *state = _stepped(rule, h, c, x, gradient, state)
            if problem.bounds is not None:
                np.clip(x, *problem.bounds.T, out=x)
        losses.final[alive] = above_minimum(problem, problem.value(x))
        losses.best[alive] = np.minimum(best, losses.final[alive])


def _kept(number: Any, keep: Array) -> Any:
    """Return what lives across steps of the rows that go on."""
    return number[keep] if np.ndim(number) else number


def _stepped(rule: type[Rule], h: SimpleNamespace, c: SimpleNamespace, x: Array, g: Array, state: list[Array]) -> Any:
    """Take a step; a rule that looks at whole arrays sees the run from each start as one."""
    if not rule.reduces(vars(h)):
        return step(rule, np, c, x, g, *state)
    each = [step(rule, np, c, x[0, i], g[0, i], *(array[0, i] for array in state)) for i in range(x.shape[1])]
    return [np.stack(parts)[None] for parts in zip(*each, strict=True)]


def _hyperparameters(
    rule: type[Rule], rows: Sequence[Mapping[str, Any]], chosen: Array, columns: bool
) -> SimpleNamespace:
    """Return all hyper-parameters as attributes: the numbers that rows give as columns, (rows, 1, 1)."""
    of = {name: getattr(rule, name) for name in rule.ranges}
    for name, first in rows[chosen[0]].items():
        plain = not columns or isinstance(first, bool | str)
        of[name] = first if plain else np.array([rows[i][name] for i in chosen.tolist()], float)[:, None, None]
    return SimpleNamespace(**of)


def above_minimum(problem: Problem, value: Array) -> Array:
    """Return how far losses are above the minimum, if that is known: DIVERGED where that is more, or not finite."""
    if math.isfinite(problem.minimum):
        value = np.maximum(value - problem.minimum, 0)
    else:
        value = np.where(np.isneginf(value), DIVERGED, value)
    return np.fmin(value, DIVERGED)  # of NaN too


def seen(problem: Problem, x: Array, t: int, seed: int) -> tuple[Array, Array]:
    """Return the exact values and the gradients that optimizers see in step t, at (rows, starts, n)."""
    if isinstance(problem, Counterexample):
        return problem.value(x), problem.gradient_at(x, t)
    if isinstance(problem, NoisyProblem):
        samples = [problem.sample(row, np.random.default_rng([seed, t]))[1] for row in x]
        return problem.value(x), np.stack(samples)
    return problem.value_and_gradient(x)
