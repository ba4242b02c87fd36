"""Learning rates, and other hyper-parameters, as functions of the step.

Each is called with the step, counted from 0, and returns a float. They are values: comparable, printable, picklable.
``Adam(learning_rate=Warmup(100, Cosine(1e-3, steps=10_000)))`` starts low, rises for 100 steps and falls for 10,000.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["AverageWarmup", "Constant", "Cosine", "Exponential", "Linear", "Warmup"]


def _progress(step: int, steps: int) -> float:
    """Return how much of a schedule has passed, from 0 to 1."""
    return min(max(step / steps, 0.0), 1.0)


def _check_steps(steps: object) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:  # noqa: ARG002 - the same at each
        return self.value


@dataclass(frozen=True)
class AverageWarmup:
    """The decay of an average that starts young: min(decay, (1 + step) / (10 + step)), for ``ema=``.

    Early parameters, which are poor, are forgotten soon. The formula is that of TensorFlow's ExponentialMovingAverage.
    """

    decay: float

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay!r}")

    def __call__(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Linear:
    """From start to end along a line, in `steps` steps; then end."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        progress = _progress(step, self.steps)
        return self.start * (1 - progress) + self.end * progress


@dataclass(frozen=True)
class Exponential:
    """start * factor ** (step / steps): multiplied by factor every `steps` steps, without end."""

    start: float
    factor: float
    steps: int = 1

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor must be positive and finite, got {self.factor!r}")

    def __call__(self, step: int) -> float:
        return self.start * math.pow(self.factor, step / self.steps)


@dataclass(frozen=True)
class Cosine:
    """From start to end along half a cosine, in `steps` steps; then end.

    Loshchilov and Hutter 2017, arXiv:1608.03983, eq. (5), without restarts.
    """

    start: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * _progress(step, self.steps))) / 2


@dataclass(frozen=True)
class Warmup:
    """A line up to the first value of another schedule in `steps` steps, then that schedule from its start.

    The first step has 1/steps of that value, not 0: a step that changes nothing would be wasted.
    """

    steps: int
    then: Callable[[int], float]

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return self.then(0) * (step + 1) / self.steps
        return self.then(step - self.steps)
