"""When `minimize` stops: each rule looks at an iteration and says why it is the last, or None."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adamas._bounds import FEW, Box

Array = Any


class Verdict(NamedTuple):
    """Why a run ended: as in SciPy's results, and whether a tolerance was met."""

    status: int
    message: str
    met: bool = False


SPENT = 1, "the budget of {} iterations is spent"
OUT_OF_TIME = 2, "the time budget of {:g} seconds is spent"
NOT_FINITE = Verdict(3, "the value or the gradient is not finite")
ENDED = Verdict(4, "data came to an end")
STOPPED = Verdict(99, "`callback` raised `StopIteration`.")

Rule = Callable[[Any, Array, Array, float], Verdict | None]
"""Called with value (None unless the rule needs it), gradient, x and the learning rate, before the step.

A rule that remembers something has it in a dict, `rule.seen`, from which another run can go on.
"""


def largest(x: Array) -> float:
    """Return the largest magnitude."""
    return max(map(abs, x.ravel().tolist()), default=0.0) if x.size < FEW else float(np.abs(x).max())


def gradient_below(gtol: float, box: Box | None) -> Rule:
    """Stop when no coordinate of the projected gradient exceeds gtol."""

    def rule(value: Any, g: Array, x: Array, rate: float) -> Verdict | None:
        if box is not None and not box.surely_inside(ahead := x - g):
            g = x - box.project(ahead)
        if largest(g) <= gtol:
            return Verdict(0, f"the gradient is at most gtol = {gtol:g}", True)
        return None

    return rule


def no_progress(ftol: float, patience: int, smoothing: float) -> Rule:
    """Stop when the (smoothed) value has not fallen by more than ftol for some iterations."""
    seen: dict[str, Any] = {"best": math.inf, "since": 0, "smoothed": None}

    def rule(value: Any, g: Array, x: Array, rate: float) -> Verdict | None:
        value, before = float(np.min(value)), seen["smoothed"]
        smoothed = seen["smoothed"] = value if before is None else smoothing * before + (1 - smoothing) * value
        if smoothed < seen["best"] - ftol:
            seen.update(best=smoothed, since=0)
        else:
            seen["since"] += 1
        if seen["since"] >= patience:
            return Verdict(0, f"the value has not fallen by more than ftol = {ftol:g} for {patience} iterations", True)
        return None

    return _remembering(rule, seen)


def small_steps(xtol: float) -> Rule:
    """Stop when no coordinate moved by more than xtol times the learning rate.

    Adam moves by about the learning rate, so the step itself says more about the schedule than about convergence.
    """
    seen: dict[str, Any] = {"x": None}

    def rule(value: Any, g: Array, x: Array, rate: float) -> Verdict | None:
        old, seen["x"] = seen["x"], x.copy()
        if old is not None and rate > 0 and largest(x - old) <= xtol * rate:
            return Verdict(0, f"the last step is at most xtol = {xtol:g} learning rates", True)
        return None

    return _remembering(rule, seen)


def value_reached(target: float) -> Rule:
    """Stop at a value of at most target."""

    def rule(value: Any, g: Array, x: Array, rate: float) -> Verdict | None:
        if np.all(value <= target):
            return Verdict(0, f"the value is at most target = {target:g}", True)
        return None

    return rule


def time_spent(seconds: float) -> Rule:
    """Stop when the time is up, from the first iteration on."""
    seen: dict[str, Any] = {"spent": 0.0}
    last = None

    def rule(value: Any, g: Array, x: Array, rate: float) -> Verdict | None:
        nonlocal last
        now = time.monotonic()
        seen["spent"] += 0.0 if last is None else now - last
        last = now
        return Verdict(OUT_OF_TIME[0], OUT_OF_TIME[1].format(seconds)) if seen["spent"] >= seconds else None

    return _remembering(rule, seen)


def _remembering(rule: Any, seen: dict[str, Any]) -> Rule:
    rule.seen = seen
    return rule  # type: ignore[no-any-return]
