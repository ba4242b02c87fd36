"""What makes a rule that torch lacks an optimizer in torch's dialect: its constructor and groups, from the rule."""

import inspect
from typing import Any, ClassVar

import torch
from torch.optim.optimizer import Optimizer

from adamas._options import Options
from adamas._torch import Stepper
from adamas._torch_state import WHOLE, Group
from adamas.rules import RULES, Rule

SPELLED = {"learning_rate": "lr", "epsilon": "eps", "decoupled": "decoupled_weight_decay"}
"""Hyper-parameters -> what torch calls them; the betas are one tuple."""

KEYWORD, EITHER = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def _is_beta(name: str) -> bool:
    return name.startswith("beta")


class Family(Stepper, Optimizer):
    """A rule that torch lacks, as torch would have it.

    A subclass names its rule; ``lr``, ``betas``, ``eps``, ``weight_decay`` and the rest are the rule's hyper-parameters
    with the rule's defaults, per parameter group; `maximize` and `differentiable` are torch's. Raises TypeError or
    ValueError for values that the rule refuses.
    """

    rule: ClassVar[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = self.__signature__.bind(*args, **kwargs)  # type: ignore[attr-defined]
        bound.apply_defaults()
        params = bound.arguments.pop("params")
        options = {name: bound.arguments.pop(name) for name in Options.option_names}
        whole = {name: bound.arguments.pop(name) for name in WHOLE}
        super().__init__(params, dict(bound.arguments), **options, **whole)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        rule = RULES[cls.rule]
        kernel = next(base.__name__ for base in rule.__mro__ if "change" in vars(base))
        cls.rules = {kernel: lambda group: True}  # noqa: ARG005
        own = [name for name in rule.ranges if name not in ("weight_decay", "decoupled", *WHOLE)]
        cls.hyperparameters = {
            name: (lambda group, t, i=int(name[4:]) - 1: group["betas"][i])  # type: ignore[misc]  # noqa: ARG005
            if _is_beta(name)
            else SPELLED.get(name, name)
            for name in own
        }
        cls.__signature__ = _signature(rule)  # type: ignore[attr-defined]

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as torch's method does; raise TypeError or ValueError for values out of range."""
        if isinstance(param_group, dict):
            self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _check_group(self, group: Group) -> None:
        ranges = RULES[self.rule].ranges
        betas = [name for name in ranges if _is_beta(name)]
        if betas and len(group["betas"]) != len(betas):
            raise ValueError(f"betas must be {len(betas)} numbers, got {group['betas']!r}")
        for i, name in enumerate(betas):
            _check(ranges[name], f"betas[{i}]", group["betas"][i])
        for name, allowed in ranges.items():
            if not _is_beta(name) and (key := SPELLED.get(name, name)) in group:
                _check(allowed, key, group[key])


def _check(allowed: Any, name: str, value: Any) -> None:
    if allowed is not None:
        allowed.check(name, value)
    elif not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def _signature(rule: type[Rule]) -> inspect.Signature:
    """Return the signature of an optimizer of torch for a rule."""
    parameters = [inspect.Parameter("params", EITHER)]
    for name in rule.ranges:
        if name in WHOLE:
            continue
        if name == "beta1" or (name == "beta2" and "beta1" not in rule.ranges):
            betas = tuple(getattr(rule, beta) for beta in rule.ranges if _is_beta(beta))
            parameters.append(inspect.Parameter("betas", EITHER, default=betas))
        elif not _is_beta(name):
            parameters.append(inspect.Parameter(SPELLED.get(name, name), EITHER, default=getattr(rule, name)))
    flags = {"maximize": False, "differentiable": False, **{name: getattr(rule, name) for name in WHOLE}}
    parameters += [inspect.Parameter(name, KEYWORD, default=default) for name, default in flags.items()]
    return inspect.Signature([*parameters, *inspect.signature(Options).parameters.values()])


class ScheduleFree(Family):
    """A schedule-free rule, whose parameters are not those to evaluate the model with."""

    rule = "ScheduleFreeAdamW"

    @torch.no_grad()
    def eval_params(self) -> dict[torch.Tensor, torch.Tensor]:
        """Return the tensor to evaluate the model with, and to keep, of each parameter that has been stepped."""
        found = {}
        for group in self.param_groups:
            for p in group["params"]:
                if state := self.state.get(p):
                    offset = state[self.names["d"]]
                    found[p] = (p - (1 / float(group["betas"][0]) - 1) * offset).to(p.dtype)
        return found
