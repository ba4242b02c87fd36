r"""Steps that rows of a table have missed because they had no gradient, in NumPy: for machines without a compiler.

The reference of engine/lapses.cpp. A row that was stepped last in step s, with moments m and v then, has after k steps
without a gradient

.. math::
    m_{s+k} &= \beta_1^k m, \qquad v_{s+k} = \beta_2^k v \\
    \theta_{s+k} &= Q_k \theta_s - m\, Q_k \sum_{j=1}^{k} \frac{\alpha_{s+j}\, \beta_1^j / Q_j}
    {B_{s+j}\, \beta_2^{j/2} \sqrt v + \epsilon}, \qquad Q_j = \prod_{i=1}^{j} (1 - \eta_{s+i} \lambda_{s+i})

where alpha and B are the coefficients ``step`` and ``root_scale`` of a rule. Here the sum is taken term by term, in
float64, until what is left is nothing beside it; the engine evaluates polynomials that agree with it to the rounding of
float32.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from adamas._native import flush_denormals
from adamas.rules import RULES, Stages, named, step


class Form(NamedTuple):
    """What happens to a row without a gradient, beside its decay: places of state, names of coefficients; None: no."""

    m: int | None = None
    v: int | None = None
    largest: int | None = None
    step: str | None = None
    beta1: str | None = None
    beta2: str | None = None
    adaptive: bool = False


FORMS = {
    "SGD": Form(),
    "Momentum": Form(0, step="learning_rate", beta1="momentum"),
    "AdaGrad": Form(),
    "RMSProp": Form(v=0, beta2="beta2"),
    "Adam": Form(0, 1, step="step", beta1="beta1", beta2="beta2", adaptive=True),
    "AMSGrad": Form(0, 1, 2, step="step", beta1="beta1", beta2="beta2", adaptive=True),
}
"""The rules whose steps without a gradient have a closed form."""

NOTHING = 2.0**-60
"""How far a mean falls until nothing is left of it."""


class Lapses:
    """The same as the engine's Lapses (see _engine.pyi)."""

    def __init__(self, rule: str, capacity: int) -> None:
        self.rule, self.capacity, self.count = RULES[rule], capacity, 0
        self.form = FORMS.get(rule)
        self.steps: dict[int, tuple[dict[str, float], Stages]] = {}
        self.sums = {0: (0.0, 0.0)}  # of the logarithms of 1 - decay, and the largest learning rate, up to each step

    @property
    def closed(self) -> bool:
        """Whether there is a closed form."""
        return self.form is not None

    def record(self, coefficients: Mapping[str, float], stages: Stages, t: int) -> None:  # noqa: ARG002 - the engine's
        """Add a step."""
        decayed, largest = self.sums[self.count]
        self.count += 1
        self.steps[self.count] = dict(coefficients), stages._replace(scale=1.0, clip=math.inf, ema=0.0)
        rate = coefficients.get("learning_rate", 0.0)
        self.sums[self.count] = decayed + math.log1p(-stages.decay), max(largest, rate)
        for kept in (self.steps, self.sums):
            kept.pop(self.count - self.capacity, None)

    def catch_up(self, p: Any, state: tuple[Any, ...], last: Any, rows: Any, exact: bool) -> None:
        """Make up for what rows have missed."""
        if exact and (self.form is None or p.dtype != np.float32):
            raise ValueError("float32, and a rule with a closed form")
        rows = np.arange(len(p)) if rows is None else np.unique(rows)
        lapse: Callable[..., None] = self._closed if exact else self._replay
        with flush_denormals(), np.errstate(all="ignore"):
            for s in np.unique(last[rows]):
                if s < self.count:
                    lapse(int(s), rows[last[rows] == s], p, state)
        last[rows] = self.count

    def _closed(self, s: int, rows: Any, p: Any, state: tuple[Any, ...]) -> None:
        form = self.form
        assert form is not None
        kept, terms, powers = 1.0, [], [1.0, 1.0]  # of the decay, and of beta1 and beta2
        for n in range(s + 1, self.count + 1):
            c = named(*self.steps[n])
            kept *= 1 - c.decay
            powers[0] *= getattr(c, form.beta1) if form.beta1 else 0.0
            powers[1] *= getattr(c, form.beta2) if form.beta2 else 0.0
            if form.m is not None and powers[0] > NOTHING and not c.frozen:
                size = getattr(c, form.step or "") * powers[0] / kept
                nesterov = c.momentum if getattr(c, "nesterov", False) else 1.0
                root = math.sqrt(powers[1]) if form.largest is None else 1.0
                terms.append((size * nesterov, c.root_scale * root if form.adaptive else 0.0))
        new = kept * p[rows].astype(np.float64)
        if form.m is not None and s > 0:
            m = state[form.m][rows].astype(np.float64)
            squares = form.v if form.largest is None else form.largest
            v = m * 0 if squares is None else state[squares][rows].astype(np.float64)
            epsilon = c.epsilon if form.adaptive else 1.0
            roots, total = np.sqrt(v), np.zeros_like(m)
            for size, scale in terms:
                below = scale * roots + epsilon
                total += np.where(below > 0, size / np.where(below > 0, below, 1.0), 0.0)
            new -= kept * m * total
        p[rows] = new
        for place, power in ((form.m, powers[0]), (form.v, powers[1])):
            if place is not None:
                state[place][rows] = (state[place][rows].astype(np.float64) * power).astype(state[place].dtype)

    def _replay(self, s: int, rows: Any, p: Any, state: tuple[Any, ...]) -> None:
        work = np.promote_types(p.dtype, np.float32)
        now, *kept = p[rows].astype(work), *(x[rows].astype(work) for x in state)
        zero = np.zeros_like(now)
        for n in range(s + 1, self.count + 1):
            now, *kept = step(self.rule, np, named(*self.steps[n]), now, zero, *kept)
            now = now.astype(p.dtype).astype(work)
            kept = [x.astype(to.dtype).astype(work) for x, to in zip(kept, state, strict=True)]
        for to, x in zip((p, *state), (now, *kept), strict=True):
            to[rows] = x

    def history(self, first: int) -> Any:
        """Return the steps from `first` on, a row for each."""
        return np.array(
            [
                [*map(float, coefficients.values()), stages.l2, stages.decay, float(stages.frozen), *self.sums[n]]
                for n in range(first, self.count + 1)
                for coefficients, stages in [self.steps[n]]
            ],
            np.float64,
        ).reshape(self.count - first + 1, -1)

    def restore(self, first: int, history: Any) -> None:
        """Remember the steps that `history` returned."""
        names = list(self.rule().coefficients(1))
        if history.ndim != 2 or history.shape[1] != len(names) + 5 or len(history) > self.capacity:
            raise ValueError("a history of steps: float64, one in a row")
        self.steps, self.sums = {}, {}
        for n, row in enumerate(history.tolist(), start=first):
            l2, decay, frozen, *self.sums[n] = row[len(names) :]
            stages = Stages(l2=l2, decay=decay, frozen=bool(frozen))
            self.steps[n] = dict(zip(names, row, strict=False)), stages
        self.count = first + len(history) - 1


def find_same_rows(rows: Any, last: Any, present: int, places: Any) -> int:
    """Find the place of each row among those that differ; see _engine.pyi."""
    behind = last[rows] != present
    if behind.any():
        return -1 - int(np.argmax(behind))
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    places[:] = order[inverse]
    return len(first)


def add_same_rows(places: Any, values: Any, sums: Any) -> None:
    """Add each row of values to that of its place in sums, in order."""
    np.add.at(sums, places, values)
