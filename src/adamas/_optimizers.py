"""Every rule as an optimizer class of the package, and how one is found by its name."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import cleandoc
from typing import Any

from adamas._optimizer import Optimizer
from adamas._options import Options
from adamas._settings import Settings
from adamas.rules import RULES, Rule


def complete(rule: type[Rule]) -> type[Rule]:
    """Return a rule as an optimizer class of the package: with its name, signature and documentation."""
    bare: Any = type(rule.__name__, (Optimizer, rule), {"__module__": "adamas", "rule": rule})
    cls: type[Rule] = dataclass(eq=False, repr=False)(bare)
    annotations = cls.__init__.__annotations__
    annotations.update({name: "float | Schedule" for name, allowed in rule.ranges.items() if allowed is not None})
    cls.__doc__ = f"{cleandoc(rule.__doc__ or '')}\n\n{_documented(cls)}"
    return cls


def _documented(cls: type[Rule]) -> str:
    """Return the documentation of the arguments that all constructors share a form of."""
    lines = ["Hyper-parameters, each a number or, if not a flag, a function of the step (first called with 0):", ""]
    for f in sorted(fields(cls), key=lambda f: f.kw_only is True):
        if f.name in cls.ranges:
            lines.append(f"{f.name}: {cls.ranges[f.name] or 'True or False'}; {f.default!r} if not given.")
    shared = cleandoc(Rule.__doc__ or "").split("\n\n", 1)[1]
    options = "\n\n".join(cleandoc(Options.__doc__ or "").split("\n\n")[1:])
    groups = cleandoc(Settings.__doc__ or "").split("\n\n")[-1]
    every = ["", "What those of every rule do:", "", shared]
    return "\n".join([*lines, groups, *every, "", "Options of the step:", "", options])


OPTIMIZERS = {name: complete(rule) for name, rule in RULES.items()}
"""Every optimizer class of the package by its name."""


def find_optimizer(what: str, name: Any) -> Any:
    """Return the class of a name in any case; raises ValueError, with the nearest, if none has it. what: for errors."""
    names = {known.lower(): known for known in OPTIMIZERS}
    if not isinstance(name, str) or name.lower() not in names:
        near = get_close_matches(str(name).lower(), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"there is no {what} {name!r}: {hint}")
    return OPTIMIZERS[names[name.lower()]]
