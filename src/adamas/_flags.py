"""Command-line options made from the rules: a rule that is added brings its own."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

from adamas import schedules
from adamas.rules import RULES, Rule

__all__ = ["Schedule", "UsageError", "at_least", "find_rule", "hyperparameters_of", "reject", "with_hyperparameters"]

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a wrong command line; it has no public name there."""


def reject(flag: str, problem: str) -> NoReturn:
    """Raise the error that an option has this problem."""
    raise UsageError(f"{flag} {problem}")


def at_least(least: int, flag: str, number: int) -> None:
    """Raise UsageError if the number that an option was given is less than it may be."""
    if number < least:
        reject(flag, f"must be at least {least}, got {number}")


def find_rule(name: str) -> type[Rule]:
    """Return the rule of this name, in upper or lower case; raise UsageError, with the nearest name, if none has it."""
    names = {known.lower(): known for known in RULES}
    if name.lower() in names:
        return RULES[names[name.lower()]]
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {names[near[0]]}? There are" if near else "use one of"
    reject("--optimizer", f"{name!r} is not known: {hint} {', '.join(RULES)}")


def with_hyperparameters(command: Callable[..., None]) -> Callable[..., None]:
    """Put an option for each hyper-parameter of any rule in place of the command's ``**hyperparameters``."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    options = [_option(name) for name in dict.fromkeys(name for rule in RULES.values() for name in rule.ranges)]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    command.__annotations__.update({option.name: option.annotation for option in options})
    return command


def hyperparameters_of(rule: type[Rule], given: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Return all hyper-parameters of a rule: as given (not None), else as tuned for the task, else the rule's defaults.

    Raises UsageError for one that is out of range or that the rule does not have.
    """
    values = {name: getattr(rule, name) for name in rule.ranges} | dict(tuned)
    for name, value in given.items():
        if value is None:
            continue
        if name not in rule.ranges:
            reject(_flag(name), f"is not for {rule.__name__}: it has {', '.join(map(_flag, rule.ranges))}")
        if (allowed := rule.ranges[name]) is not None:
            try:
                allowed.check(_flag(name), value)
            except ValueError as error:
                raise UsageError(str(error)) from None
        values[name] = value
    return values


class Schedule(StrEnum):
    """The course of the learning rate over a run."""

    constant = "constant"
    linear = "linear"
    exponential = "exponential"
    cosine = "cosine"

    def of(self, rate: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
        """Return the schedule of a run: up to rate in `warmup` steps, then, but for constant, down in what is left.

        It falls to 0, the exponential one to a hundredth of rate. warmup must be less than steps.
        """
        left = steps - warmup
        courses: dict[Schedule, Callable[[int], float]] = {
            Schedule.constant: schedules.Constant(rate),
            Schedule.linear: schedules.Linear(rate, 0.0, left),
            Schedule.exponential: schedules.Exponential(rate, 0.01, left),
            Schedule.cosine: schedules.Cosine(rate, left),
        }
        return schedules.Warmup(warmup, courses[self]) if warmup else courses[self]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _option(name: str) -> inspect.Parameter:
    """Return the option of a hyper-parameter, whose help says which rules have it."""
    ranges = {rule.__name__: rule.ranges[name] for rule in RULES.values() if name in rule.ranges}
    allowed = next(iter(ranges.values()))
    whose = "every optimizer" if len(ranges) == len(RULES) else ", ".join(ranges)
    if allowed is None:
        option = typer.Option(f"{_flag(name)}/--no-{_flag(name)[2:]}", help=f"Of {whose}.", show_default=False)
        annotation: Any = Annotated[bool | None, option]
    else:
        option = typer.Option(_flag(name), help=f"Of {whose}; {allowed}.", show_default=False)
        annotation = Annotated[float | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
