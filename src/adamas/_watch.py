"""A step that is recorded: what is taken down before and after it, and the row that a history makes of that."""

import math
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adamas import _q8
from adamas._formats import as_real
from adamas._statistics import Statistics
from adamas.rules import Rule

if TYPE_CHECKING:
    from adamas._history import History

Array = Any

STATISTICS = ("grad_norm", "param_norm", "change_norm", "rate_min", "rate_mean", "rate_max", "nonfinite", "clipped")
"""What is recorded of every array, and of all of them together, when a step is given its history."""


class Stepped(NamedTuple):
    """A parameter after its step: array, tensor of real numbers, or number; its state; the step's coefficients.

    The state is in the order of the rule's names, and what is in q8 as `Coded`; empty before the first step.
    """

    value: Any
    rule: type[Rule]
    state: Sequence[Any]
    c: SimpleNamespace


class Pick(NamedTuple):
    """Chosen coordinates of a parameter: its place among all, theirs in it, and theirs in the rows of a history."""

    owner: int
    inside: Array
    places: Array


class Watch:
    """A step that is being recorded.

    values, gradients: of all parameters, None for a gradient that there is not; read by `begin`, not before.
    seen: an empty list, to which the step adds the `Statistics` of each array.
    """

    def __init__(self, history: "History", step: int, values: Iterable[Any], gradients: Iterable[Any]) -> None:
        self.history, self.step = history, step
        self.seen: list[Any] = []
        self._arrays: tuple[Iterable[Any], Iterable[Any]] = values, gradients

    def begin(self) -> None:
        """Take down what is about to change; raises ValueError if the history's coordinates do not exist."""
        values, gradients = map(list, self._arrays)
        del self._arrays
        self.picks = self.history.picks(tuple(map(_size, values)))
        self.before = [_pick(values[i], inside) for i, inside, _ in self.picks]
        self.g = [np.nan if gradients[i] is None else _pick(gradients[i], inside) for i, inside, _ in self.picks]

    @property
    def owners(self) -> list[int]:
        """The places of the parameters that have chosen coordinates."""
        return [pick.owner for pick in self.picks]

    @property
    def size(self) -> int:
        """How many coordinates were chosen."""
        return sum(len(pick.inside) for pick in self.picks)

    def finish(
        self,
        loss: Any,
        leaves: Sequence[Stepped],
        numbers: dict[str, Any],
        paths: Sequence[str | None] | None = None,
        scale: float = 1.0,
    ) -> None:
        """Take down what the step made of the parameters that are `owners`, and add it to the history.

        numbers: what else to record. paths: if the step was seen, those of arrays by their places in what was, None for
        packs of numbers. scale: of the gradients.
        """
        loss = loss.detach() if hasattr(loss, "detach") else loss
        self.loss = np.nan if loss is None else np.asarray(loss, float).copy()
        self.leaves = [
            leaf._replace(value=_pick(leaf.value, inside), state=[_pick(array, inside) for array in leaf.state])
            for leaf, (_, inside, _) in zip(leaves, self.picks, strict=True)
        ]
        self.numbers, self.paths, self.scale = numbers, paths, scale
        if self.history.arrays and not self.history.paths:
            self.history.paths = [path for path in paths or () if path is not None]
        self.history.add(self)

    def row(self) -> dict[str, Any]:
        """Return what was taken down, as a row of the history."""
        x = self._laid_out([leaf.value for leaf in self.leaves])
        row = {"step": self.step, "loss": self.loss, "x": x, "g": self._laid_out(self.g), **self._of_state()}
        row |= {"change": x - self._laid_out(self.before), **self.numbers}
        return row if self.paths is None else {**row, **self._summarized(self.paths)}

    def _laid_out(self, picked: Sequence[Any]) -> Array:
        """Return what was picked in the order of the coordinates, as float64."""
        row = np.full(self.size, np.nan)
        for numbers, pick in zip(picked, self.picks, strict=True):
            row[pick.places] = numbers
        return row

    def _of_state(self) -> dict[str, Array]:
        """Return the chosen coordinates of the state, and their effective learning rates."""
        rules = {leaf.rule: None for leaf in self.leaves}
        names = list(dict.fromkeys(name for rule in rules for name in rule.state_names))
        if any(rule.rate is not None for rule in rules):
            names.append("rate")
        row = {name: np.full(self.size, np.nan) for name in names}
        for (_, rule, picked, c), (_, _, places) in zip(self.leaves, self.picks, strict=True):
            state = [np.asarray(numbers, float) for numbers in picked]
            for name, numbers in zip(rule.state_names, state, strict=False):
                row[name][places] = numbers
            if rule.rate is not None and state:
                with np.errstate(all="ignore"):
                    row["rate"][places] = rule.rate(np, c, *state)
        return row

    def _summarized(self, paths: Sequence[str | None]) -> dict[str, Any]:
        """Return what was seen, of all arrays together and of each with a path."""
        history = self.history
        whole = dict(zip(STATISTICS, _summary(self.seen, self.scale), strict=True))
        if not history.arrays or not history.paths:
            return whole
        table = dict.fromkeys(history.paths, _summary((), self.scale))
        table |= {path: _summary([seen], self.scale) for seen in self.seen if (path := paths[seen[0]]) is not None}
        return {**whole, "arrays": np.array([table[path] for path in history.paths])}


def _summary(parts: Sequence[Any], scale: float) -> tuple[float, ...]:
    """Return what STATISTICS names, of some arrays together; NaN for rates that there are none of."""
    seen = [Statistics(*part) for part in parts]
    g2, p2, change2 = (sum(s[k] for s in seen) for k in (2, 3, 4))
    size, rates = sum(s.size for s in seen), sum(s.rates for s in seen)
    least, most = min((s.least_rate for s in seen), default=math.inf), max((s.most_rate for s in seen), default=0.0)
    extremes = (least, rates / size, most) if least <= most else (math.nan,) * 3
    counts = sum(s.nonfinite for s in seen), sum(s.clipped for s in seen)
    return math.sqrt(g2) / scale, math.sqrt(p2), math.sqrt(change2), *extremes, *counts


def _size(value: Any) -> int:
    """Return how many real numbers a parameter has."""
    return value.numel() if hasattr(value, "numel") else np.size(value) * (2 if np.iscomplexobj(value) else 1)


def _pick(value: Any, places: Array) -> Array:
    """Return some of the numbers of a parameter or of its state, counted as they are read."""
    if isinstance(value, _q8.Coded):
        return value.at(places)
    if hasattr(value, "numel"):
        return value.reshape(-1)[places].double().cpu().numpy()
    return as_real(np.asarray(value)).flat[places]
