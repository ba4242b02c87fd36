"""What a step sees of each array: sums and extremes for `History`; the reference of engine/observe.hpp."""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

from adamas.rules import BLOCK, LANES, Rule, largest, total_of

TILE = 1024
LEAST_SQUARES = 2.0**-90
"""Where the greatest partial sum of squares of a tile is less, the arithmetic's float32 is not enough: squares below
2**-126 are lost, which is nothing beside more than this."""


class Statistics(NamedTuple):
    """What a step saw of an array of parameters.

    array: its place. size: real numbers. grad_squares: the sum of the squares of its gradients as they were given;
    param_squares, change_squares: of the parameters after the step, and of their changes. rates: the sum of the
    effective learning rates, infinite if it is too large for the type of the arithmetic; least_rate, most_rate: NaN
    aside (infinity and -infinity if the rule has no such rate). nonfinite: how many gradients are not finite. clipped:
    how many were cut by clip_value.
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
    g2, p2, change2 = (_sum_of_squares(xp, x) for x in (g, after, after - before))
    rates, least, most = 0.0, math.inf, -math.inf
    if rule.rate is not None:
        rate = rule.rate(xp, c, *state)
        rates, known = _total(xp, _in_tiles(xp, rate)), rate[~xp.isnan(rate)]
        if len(known):
            least, most = float(known.min()), float(known.max())
    nonfinite, clipped = int((~(abs(g) <= largest(xp, g))).sum()), int((abs(c.scale * g) > c.clip).sum())
    return Statistics(array, len(g), g2, p2, change2, rates, least, most, nonfinite, clipped)


def _sum_of_squares(xp: Any, x: Any) -> float:
    """Return the sum of the squares of x: tiles are added in its type, or in float64 where that is not enough."""
    lanes, exact = _in_tiles(xp, x * x), xp.asarray(x, dtype=xp.float64)
    right = (abs(lanes) <= largest(xp, lanes)).all(1) & (lanes >= LEAST_SQUARES).any(1)
    return _total(xp, xp.where(right[:, None], xp.asarray(lanes, dtype=xp.float64), _in_tiles(xp, exact * exact)))


def _in_tiles(xp: Any, x: Any) -> Any:
    """Return 16 partial sums of each 1,024 numbers, in their type."""
    return _added(_cut(xp, x, (TILE // LANES, LANES)))


def _total(xp: Any, lanes: Any) -> float:
    """Return the sum of the partial sums of tiles, in float64: in blocks of 4,096 elements first, as `total` does."""
    return total_of(_added(_cut(xp, xp.asarray(lanes, dtype=xp.float64), (BLOCK // TILE, LANES))))


def _cut(xp: Any, x: Any, shape: tuple[int, int]) -> Any:
    """Return an array as many of a shape, the last filled up with zeros."""
    x = x.reshape(-1)
    zeros = xp.zeros_like(x[:1]).repeat(-len(x) % (shape[0] * shape[1]))
    return xp.concatenate([x, zeros]).reshape(-1, *shape)


def _added(x: Any) -> Any:
    """Return the sums over the second axis, in order."""
    total = x[:, 0]
    for k in range(1, x.shape[1]):
        total = total + x[:, k]
    return total
