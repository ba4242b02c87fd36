"""Sums over many numbers, and the global norm of gradients, with bits that the engine returns too.

They are summed in float64 in blocks of 4,096: 32 sums each, added pairwise. The blocks of the norm go on wherever an
array ends, so that its bits do not depend on how the gradients are cut into arrays.
"""

import math
from collections.abc import Sequence
from typing import Any

BLOCK, LANES = 4096, 32


def total(xp: Any, x: Any) -> float:
    """Return the sum of a flat float64 array, of at least one number, of the namespace xp."""
    zeros = xp.zeros_like(x[:1]).repeat(-len(x) % BLOCK)
    x = xp.concatenate([x, zeros]).reshape(-1, BLOCK // LANES, LANES)
    sums = xp.zeros_like(x[:, 0])
    for k in range(BLOCK // LANES):
        sums = sums + x[:, k]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    added = 0.0
    for part in sums[:, 0].tolist():
        added += part
    return added


def sum_of_squares(xp: Any, gradients: Sequence[Any], unit: float) -> float:
    """Return the sum of the squares of unit * g over flat float64 arrays of the namespace xp."""
    x = xp.concatenate(list(gradients)) * unit
    return total(xp, x * x)


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
