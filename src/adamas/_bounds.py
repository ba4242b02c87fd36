"""The box that `minimize` keeps its point in."""

from typing import Any

import numpy as np

Array = Any

FEW = 64
"""Numbers below which Python's own arithmetic is faster than NumPy's."""


class Box:
    """Bounds low <= x <= high, arrays of x's last axis."""

    def __init__(self, low: Array, high: Array) -> None:
        self.low, self.high = low, high
        self.sides = list(zip(low.tolist(), high.tolist(), strict=True)) if low.size < FEW else []

    def surely_inside(self, x: Array) -> bool:
        """Whether no coordinate is outside or on a bound; False where it takes NumPy to tell."""
        if x.ndim != 1 or not self.sides:
            return False
        return all(low < number < high for number, (low, high) in zip(x.tolist(), self.sides, strict=True))

    def project(self, x: Array, out: Array | None = None) -> Array:
        """Return the nearest point of the box."""
        return np.minimum(np.maximum(x, self.low, out=out), self.high, out=out)
