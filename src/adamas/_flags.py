"""Command-line options made from the rules: a rule that is added brings its own."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer

from adamas import schedules
from adamas.rules import RULES, Range

__all__ = ["RANGES", "Schedule", "UsageError", "at_least", "flag", "reject", "told", "training_command"]

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a wrong command line; it has no public name there."""

RANGES: dict[str, Range | None] = {name: r for rule in reversed(RULES.values()) for name, r in rule.ranges.items()}
"""The range of every hyper-parameter of any rule, the first's where they differ; None for a flag."""


def reject(option: str, problem: str) -> NoReturn:
    """Raise the error that an option has this problem."""
    raise UsageError(f"{option} {problem}")


@contextmanager
def told() -> Iterator[None]:
    """Turn errors about what the user gave into UsageError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def at_least(least: int, option: str, number: int) -> None:
    """Raise UsageError if the number that an option was given is less than it may be."""
    if number < least:
        reject(option, f"must be at least {least}, got {number}")


def flag(name: str) -> str:
    """Return the option of a hyper-parameter or setting."""
    return "--" + name.replace("_", "-")


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


def training_command(**defaults: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put what every training command has, and each hyper-parameter of any rule, in place of its ``**options``.

    defaults: what the help says of the defaults of epochs, batch_size and patience, which None stands for.
    """

    def complete(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        options = [*_common(defaults), *map(_hyperparameter, RANGES)]
        parameters = {option.name: option for option in (*own, *options)}

        @wraps(command)
        def resumable(*, resume: Path | None, **values: Any) -> None:
            if resume is not None:
                values = _asked(resume, command.__name__.removeprefix("train_"), parameters, values)
            given = {name: str(v) if isinstance(v, Path) else v for name, v in values.items() if name != "out"}
            command(**values, given=given, resume=resume)

        made: Any = resumable
        made.__signature__ = signature.replace(parameters=list(parameters.values()))
        made.__annotations__ = {**command.__annotations__, **{o.name: o.annotation for o in options}}
        return resumable

    return complete


def _asked(
    run: Path, task: str, parameters: Mapping[str, inspect.Parameter], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that a run was started with; raises UsageError if there are others, or it is no such run."""
    if others := [name for name, value in values.items() if value != parameters[name].default]:
        reject("--resume", f"goes on with the options that {str(run)!r} was started with: leave out {flag(others[0])}")
    try:
        config = json.loads((run / "config.json").read_text())
        asked, of = config["options"], config["task"]
    except (OSError, ValueError, LookupError, TypeError):
        reject("--resume", f"{str(run)!r} is not the folder of a run that can go on")
    if of != task:
        reject("--resume", f"{str(run)!r} is a run of adamas train {of}")
    try:
        found = {name: _of_type(parameters[name].annotation, value) for name, value in asked.items()}
    except (LookupError, ValueError) as error:
        reject("--resume", f"{str(run)!r} is not of this version of adamas: {error!r}")
    return {**values, **found}


def _of_type(annotation: Any, value: Any) -> Any:
    """Return an option as the command takes it, from what JSON made of it."""
    for kind in (get_args(annotation)[0], *get_args(get_args(annotation)[0])):
        if isinstance(kind, type) and issubclass(kind, Path | StrEnum) and value is not None:
            return kind(value)
    return value


def _common(defaults: dict[str, str]) -> list[inspect.Parameter]:
    names = f"One of {', '.join(RULES)}, in any case; torch:NAME for one of torch.optim."
    together = "Optimizers to train one after another and compare, such as sgd,rmsprop,torch:adam."
    patient = "Epochs without a lower validation loss after which training ends; 0: never."
    often = "Steps from one checkpoint to the next."
    return [
        _option("optimizer", str | None, None, names, "AdamW"),
        _option("compare", str | None, None, together, False),
        _option("epochs", int | None, None, "Passes over the training examples.", defaults["epochs"]),
        _option("batch_size", int | None, None, "Examples per step.", defaults["batch_size"]),
        _option("patience", int | None, None, patient, defaults["patience"]),
        _option("schedule", Schedule, Schedule.cosine, "The course of the learning rate."),
        _option("warmup", int, 0, "Steps of linear rise before the schedule."),
        _option("threads", int | None, None, "Of PyTorch; more than one pay for large batches only.", "1"),
        _option("seed", int, 0, "Of the split, the first weights and the order of examples."),
        _option("checkpoint_every", int | None, None, often, "an epoch, at most 1,000"),
        _option("resume", Path | None, None, "Folder of a run that was interrupted, to go on with.", False),
        _option("out", Path | None, None, "New folder for the results.", "runs/TASK-TIME"),
    ]


def _hyperparameter(name: str) -> inspect.Parameter:
    """Return the option of a hyper-parameter, whose help says which rules have it."""
    having = [rule.__name__ for rule in RULES.values() if name in rule.ranges]
    whose = "every rule" if len(having) == len(RULES) else ", ".join(having)
    if (allowed := RANGES[name]) is not None:
        return _option(name, float | None, None, f"Of {whose}; {allowed}.", False)
    return _option(name, bool | None, None, f"Of {whose}.", False, f"{flag(name)}/--no-{flag(name)[2:]}")


def _option(
    name: str, kind: Any, default: Any, words: str, shown: str | bool = True, spelling: str = ""
) -> inspect.Parameter:
    option = typer.Option(spelling or flag(name), help=words, show_default=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
