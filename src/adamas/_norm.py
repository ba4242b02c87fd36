"""The global norm of gradients, whose bits do not depend on how they are cut into arrays; the engine returns the same.

Their squares are summed in float64 in blocks of 4,096, wherever an array ends: 16 sums each, added pairwise.
"""

import math
from collections.abc import Sequence
from typing import Any

from adamas.rules import total


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
