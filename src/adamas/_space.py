"""What a hyper-parameter is searched in: ranges and choices, their checks, draws from them, their text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.rules import Rule

__all__ = ["Choice", "Int", "LogUniform", "Uniform", "parse"]


@dataclass(frozen=True)
class Uniform:
    """Numbers from low to high, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The extremes, between which everything must be allowed."""
        return self.low, self.high

    def draw(self, rng: np.random.Generator, n: int) -> list[Any]:
        """Return n independent draws."""
        return [float(x) for x in rng.uniform(self.low, self.high, n)]

    def suggest(self, trial: Any, name: str) -> Any:
        """Return what an Optuna trial suggests."""
        return trial.suggest_float(name, self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Numbers from low, above 0, to high, whose logarithms are equally likely: for learning rates."""

    def draw(self, rng: np.random.Generator, n: int) -> list[Any]:
        """Return n independent draws."""
        numbers = np.exp(rng.uniform(math.log(self.low), math.log(self.high), n))
        return [float(x) for x in np.clip(numbers, self.low, self.high)]

    def suggest(self, trial: Any, name: str) -> Any:
        """Return what an Optuna trial suggests."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Int:
    """Integers from low to high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_range(self)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The extremes, between which everything must be allowed."""
        return self.low, self.high

    def draw(self, rng: np.random.Generator, n: int) -> list[Any]:
        """Return n independent draws."""
        return [int(x) for x in rng.integers(self.low, self.high, n, endpoint=True)]

    def suggest(self, trial: Any, name: str) -> Any:
        """Return what an Optuna trial suggests."""
        return trial.suggest_int(name, self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    options: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise ValueError("Choice needs at least one option, got none")

    @property
    def ends(self) -> tuple[Any, ...]:
        """The extremes, between which everything must be allowed: here all."""
        return tuple(self.options)

    def draw(self, rng: np.random.Generator, n: int) -> list[Any]:
        """Return n independent draws."""
        return [self.options[i] for i in rng.integers(len(self.options), size=n)]

    def suggest(self, trial: Any, name: str) -> Any:
        """Return what an Optuna trial suggests."""
        return trial.suggest_categorical(name, self.options)


Range = Uniform | Int | Choice
Space = Mapping[str, Range]


def _check_range(given: Any) -> None:
    name, whole = type(given).__name__, isinstance(given, Int)
    for end in (given.low, given.high):
        if isinstance(end, bool) or not isinstance(end, int | np.integer if whole else int | float | np.number):
            raise TypeError(f"{name} needs {'integers' if whole else 'numbers'}, got {given!r}")
    if not (math.isfinite(given.low) and math.isfinite(given.high) and given.low < given.high):
        raise ValueError(f"{given!r} is empty: low must be less than high, both finite")
    if isinstance(given, LogUniform) and given.low <= 0:
        raise ValueError(f"{given!r} goes through 0, which has no logarithm: begin above 0, or use Uniform")


def checked(space: Any, rule: type[Rule] | None) -> dict[str, Range]:
    """Return a space; raise if it is no such, or if a rule does not allow all of it.

    rule: whose hyper-parameters are searched; None for anything.
    """
    if not isinstance(space, Mapping) or not space:
        raise TypeError(f"space must be a dict such as {{'learning_rate': LogUniform(1e-4, 1e-1)}}, got {space!r}")
    for name, given in space.items():
        if not isinstance(given, Uniform | Int | Choice):
            raise TypeError(f"space[{name!r}] must be a LogUniform, Uniform, Int or Choice, got {given!r}")
        if rule is None:
            continue
        if name not in rule.ranges:
            raise ValueError(f"space: {rule.__name__} has no {name!r}: it has {', '.join(rule.ranges)}")
        for end in given.ends:
            rule.checked(name, end, f" in space[{name!r}]")
    return dict(space)


def parse(text: str) -> tuple[str, Range]:
    """Return name and range of "learning_rate=log:1e-4:1", "beta1=0.8:0.99", "n=int:1:5" or "nesterov=true,false".

    Raises ValueError for anything else.
    """
    name, equals, words = text.partition("=")
    kind, *ends = words.split(":") if words.startswith(("log:", "int:")) else ("", *words.split(":"))
    try:
        if equals and name and len(ends) == 2:
            if kind == "int":
                return name, Int(int(ends[0]), int(ends[1]))
            return name, (LogUniform if kind == "log" else Uniform)(float(ends[0]), float(ends[1]))
        if equals and name and len(ends) == 1 and not kind and words:
            return name, Choice([_value(word) for word in words.split(",")])
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    example = "learning_rate=log:1e-4:1, beta1=0.8:0.99, n=int:1:5 or nesterov=true,false"
    raise ValueError(f"{text!r} is no range: write it as {example}")


def _value(word: str) -> Any:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        return float(word)
    except ValueError:
        return word
