"""The optimizers that the command can train with: every rule, and those of torch.optim, behind one interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import adamas
from adamas._flags import RANGES, UsageError, flag, reject
from adamas.rules import RULES
from adamas.training import Stepper
from adamas.training.extras import require

__all__ = ["Choice", "find_choice", "find_choices", "find_rule"]

TORCH = "torch:"

Groups = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Choice:
    """An optimizer that was chosen by name.

    name: as in "Adam" or "torch:Adam". defaults: its hyper-parameters. cls: the class, ours or torch's.
    """

    name: str
    defaults: Mapping[str, Any]
    cls: type[Any]

    def values(self, given: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyper-parameters: as given (not None), else as tuned for the task, else the defaults.

        What is tuned for a rule serves torch's optimizer of that name too, as far as it has it. Raises UsageError for
        a value that is out of range or that the optimizer does not have.
        """
        values = dict(self.defaults) | {name: value for name, value in tuned.items() if name in self.defaults}
        for name, value in given.items():
            if value is None:
                continue
            if name not in self.defaults:
                reject(flag(name), f"is not for {self.name}: it has {', '.join(map(flag, self.defaults))}")
            if (allowed := RANGES[name]) is not None:
                try:
                    allowed.check(flag(name), value)
                except ValueError as error:
                    raise UsageError(str(error)) from None
            values[name] = value
        return values

    def make(self, params: Any, values: Mapping[str, Any], groups: Groups) -> Stepper:
        """Return the optimizer for these parameters; raises UsageError if it refuses the values."""
        try:
            if self.name.startswith(TORCH):
                from adamas.training.peers import TorchOptimizer  # noqa: PLC0415 - optional

                return TorchOptimizer(self.cls, params, values, groups)
            stepper: Stepper = self.cls(**values, groups=groups)
        except ValueError as error:
            reject("--optimizer", f"{self.name}: {error}")
        return stepper


def find_choices(names: str) -> list[Choice]:
    """Return the optimizers of a list such as "sgd,torch:adam", to be compared; raise UsageError if it is no such."""
    choices = [find_choice(name.strip(), "--compare") for name in names.split(",")]
    for choice in choices:
        if choices.count(choice) > 1:
            reject("--compare", f"names {choice.name} twice: name each once")
    if len(choices) < 2:
        reject("--compare", f"needs two or more optimizers, such as sgd,rmsprop,adam, got {names!r}")
    return choices


def find_choice(name: str, option: str = "--optimizer") -> Choice:
    """Return the optimizer of this name, in upper or lower case; raise UsageError, with the nearest, if none has it."""
    if name.lower().startswith(TORCH):
        require("torch", f"{option} {name}")
        from adamas.training import peers  # noqa: PLC0415 - optional

        classes = {f"{TORCH}{known}": cls for known, cls in peers.optimizers().items()}
        found = _find(name, classes, option)
        return Choice(found, peers.hyperparameters(classes[found]), classes[found])
    found = find_rule(name, option)
    rule = RULES[found]
    return Choice(found, {name: getattr(rule, name) for name in rule.ranges}, getattr(adamas, found))


def find_rule(name: str, option: str) -> str:
    """Return the name of a rule, given in upper or lower case; raise UsageError, with the nearest, if none has it."""
    return _find(name, RULES, option)


def _find(name: str, known: Mapping[str, object], option: str) -> str:
    names = {one.lower(): one for one in known}
    if name.lower() not in names:
        near = get_close_matches(name.lower(), names, n=1)
        hint = f"did you mean {names[near[0]]}? There are" if near else "use one of"
        reject(option, f"{name!r} is not known: {hint} {', '.join(known)}")
    return names[name.lower()]
