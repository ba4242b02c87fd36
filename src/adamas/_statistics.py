"""What a step sees of each array: sums and extremes for `History`; the reference of engine/observe.hpp."""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

from adamas._norm import total
from adamas.rules import Rule, largest


class Statistics(NamedTuple):
    """What a step saw of an array of parameters.

    array: its place. size: real numbers. grad_squares: the sum of the squares of its gradients as they were given;
    param_squares, change_squares: of the parameters after the step, and of their changes. rates: the sum of the
    effective learning rates; least_rate, most_rate: NaN aside (infinity and -infinity if the rule has no such rate).
    nonfinite: how many gradients are not finite. clipped: how many were cut by clip_value.
    """

    array: int
    size: int
    grad_squares: float
    param_squares: float
    change_squares: float
    rates: float
    least_rate: float
    most_rate: float
    nonfinite: int
    clipped: int


def observe(
    rule: type[Rule], xp: Any, c: SimpleNamespace, array: int, p: tuple[Any, Any], g: Any, state: Any
) -> Statistics:
    """Return the statistics of one array in one step.

    p: the parameters before and after; g: as it was given; state: after the step, before it is rounded to a shorter
    format. All flat, not empty, of the namespace xp and of the type of the arithmetic.
    """
    before, after = p
    wide = xp.float64
    exact = [xp.asarray(x, dtype=wide) for x in (g, after, after - before)]
    g2, p2, change2 = (total(xp, x * x) for x in exact)
    rates, least, most = 0.0, math.inf, -math.inf
    if rule.rate is not None:
        rate = xp.asarray(rule.rate(xp, c, *state), dtype=wide)
        rates, known = total(xp, rate), rate[~xp.isnan(rate)]
        if len(known):
            least, most = float(known.min()), float(known.max())
    nonfinite, clipped = int((~(abs(g) <= largest(xp, g))).sum()), int((abs(c.scale * g) > c.clip).sum())
    return Statistics(array, len(g), g2, p2, change2, rates, least, most, nonfinite, clipped)
