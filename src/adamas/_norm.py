"""The global norm of gradients, whose bits do not depend on how they are cut into arrays; the engine returns the same.

Their squares are summed in float64 in blocks of 4,096, wherever an array ends: 32 sums each, added pairwise.
"""

import math
from collections.abc import Sequence
from typing import Any

BLOCK, LANES = 4096, 32


def sum_of_squares(xp: Any, gradients: Sequence[Any], unit: float) -> float:
    """Return the sum of the squares of unit * g over flat float64 arrays of the namespace xp."""
    x = xp.concatenate(list(gradients)) * unit
    zeros = xp.zeros_like(x[:1]).repeat(-len(x) % BLOCK)
    x = xp.concatenate([x * x, zeros]).reshape(-1, BLOCK // LANES, LANES)
    sums = xp.zeros_like(x[:, 0])
    for k in range(BLOCK // LANES):
        sums = sums + x[:, k]
    return total_of(sums)


def total_of(sums: Any) -> float:
    """Return the sum of float64 partial sums, (blocks, lanes): the lanes pairwise, then the blocks in order."""
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    total = 0.0
    for part in sums[:, 0].tolist():  # not sum(), which compensates from Python 3.12 on
        total += part
    return total


def norm(xp: Any, gradients: Sequence[Any]) -> tuple[float, bool]:
    """Return the norm of flat float64 arrays together, and whether all their numbers are finite."""
    gradients = [g for g in gradients if len(g)]
    if not gradients:
        return 0.0, True
    unit, squares = 1.0, sum_of_squares(xp, gradients, 1.0)
    if not math.isfinite(squares):
        unit = 2.0**-540  # now only infinite or NaN if a gradient is
        squares = sum_of_squares(xp, gradients, unit)
    return math.sqrt(squares) / unit, math.isfinite(squares)
