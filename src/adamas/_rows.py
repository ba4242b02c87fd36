"""Many trials at once: one problem, one rule, and in each row of one array the run of other hyper-parameters."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from adamas import _backend
from adamas._memory import kernel_name
from adamas.problems import Counterexample, NoisyProblem, Problem
from adamas.rules import Rule, Stages, named, step

Array = Any

DIVERGED = 1e30
"""The loss of a run that went beyond this, or became NaN."""

AT_ONCE = 64
"""Steps whose coefficients are computed together."""

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

    They are those of the specification in float64. All rows see the same noise, which depends on seed and step alone;
    the bits of a row do not depend on the others. report: called each `every` steps.
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
    vars(h).update(rule.first_carry)
    if columns and rule.reduces(vars(h)):
        raise ValueError("what counts as an array is the run of one row from one start")
    # The rows lie next to each other in memory, so that inner loops run over them and not over few coordinates.
    points = np.array(starts[alive].T, float, order="C")
    state = [np.zeros_like(points) for _ in rule.state_names]
    lowest = np.full(points.shape[1:], np.inf)
    t = 1
    with np.errstate(all="ignore"):
        while t <= iterations:
            if report is not None and t > 1 and (t - 1) % every == 0:
                gap = above_minimum(problem, problem.value(points.T))
                losses.best[alive] = np.minimum(above_minimum(problem, lowest.T), gap)
                keep = report(t - 1, alive, gap)
                if not keep.any():
                    return
                alive, lowest = alive[keep], lowest[:, keep]
                points, *state = (np.ascontiguousarray(array[..., keep]) for array in (points, *state))
                kept = {name: _kept(vars(h)[name], keep) for name in rule.first_carry}
                h = _hyperparameters(rule, rows, alive, columns)
                vars(h).update(kept)
            count = min(AT_ONCE, iterations + 1 - t, every - (t - 1) % every if report is not None else AT_ONCE)
            for numbers in _numbers(rule, h, t, count, len(alive)):
                value, gradient = seen(problem, points.T, t, seed)
                np.minimum(lowest, value.T, out=lowest, where=np.greater(value.T, -np.inf))
                _step(rule, numbers, points, gradient.T, state)
                if problem.bounds is not None:
                    np.clip(points.T, *problem.bounds.T, out=points.T)
                t += 1
        losses.final[alive] = above_minimum(problem, problem.value(points.T))
        losses.best[alive] = np.minimum(above_minimum(problem, lowest.T), losses.final[alive])


def _kept(number: Any, keep: Array) -> Any:
    """Return what lives across steps of the rows that go on."""
    return number[keep] if np.ndim(number) else number


def _numbers(rule: type[Rule], h: SimpleNamespace, t: int, count: int, rows: int) -> Any:
    """Return the numbers of some steps from t on, as `_step` takes them; what lives across steps stays in h.

    They are float64 of shape (steps, numbers, rows); see `_backend.step_columns`.
    """
    if rule.reduces(vars(h)):
        return [named(*_next(rule, h, t + i)) for i in range(count)]
    each: list[tuple[Any, Any]]
    try:
        if rule.first_carry:
            raise ValueError("a step needs the one before")
        each = [(slice(None), rule.numbers(h, np.arange(t, t + count)[:, None]))]
    except ValueError:  # or the rule branches on the step
        each = [(i, _next(rule, h, t + i)) for i in range(count)]
    numbers = np.empty((count, len(each[0][1][0]) + 3, rows))
    for which, (coefficients, stages) in each:
        for i, number in enumerate((*coefficients.values(), stages.l2, stages.decay, stages.frozen)):
            numbers[which, i] = number
    return numbers


def _next(rule: type[Rule], h: SimpleNamespace, t: int) -> tuple[dict[str, float], Stages]:
    """Return the numbers of a step; what lives across steps goes to h."""
    coefficients, stages = rule.numbers(h, t)
    for name in rule.first_carry:
        setattr(h, name, coefficients[name])
    return coefficients, stages


def _step(rule: type[Rule], numbers: Any, points: Array, g: Array, state: list[Array]) -> None:
    """Take a step; a rule that looks at whole arrays sees the run from each start as one."""
    if not isinstance(numbers, SimpleNamespace):
        _backend.step_columns(kernel_name(rule), numbers, points, np.ascontiguousarray(g), tuple(state))
        return
    for i in range(points.shape[1]):
        arrays = [array[:, i, 0] for array in (points, *state)]
        new = step(rule, np, numbers, arrays[0], g[:, i, 0], *arrays[1:])
        for array, values in zip(arrays, new, strict=True):
            array[...] = values


def _hyperparameters(
    rule: type[Rule], rows: Sequence[Mapping[str, Any]], chosen: Array, columns: bool
) -> SimpleNamespace:
    """Return all hyper-parameters as attributes: the numbers that rows give as columns, (rows,)."""
    of = {name: getattr(rule, name) for name in rule.ranges}
    for name, first in rows[chosen[0]].items():
        plain = not columns or isinstance(first, bool | str)
        of[name] = first if plain else np.array([rows[i][name] for i in chosen.tolist()], float)
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
