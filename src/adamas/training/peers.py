"""The optimizers of torch.optim behind the interface of ours, to be trained with and compared."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import numpy as np
import torch

from adamas import _tree
from adamas._checkpoint import Checkpoint, write_checkpoint
from adamas._history import History
from adamas._statistics import observe
from adamas._watch import Stepped
from adamas.errors import CheckpointError
from adamas.rules import RULES, Rule, Stages, named

__all__ = ["TorchOptimizer", "hyperparameters", "optimizers"]

APART = {"Optimizer", "LBFGS", "Muon", "SparseAdam"}
"""Their base, and those that need another loop, matrices only, or sparse gradients."""

TRANSLATED = {"learning_rate": "lr", "epsilon": "eps", "decoupled": "decoupled_weight_decay"}
SECOND_MOMENT = {"RMSprop": "alpha", "Adadelta": "rho"}


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return the optimizer classes of torch.optim that step dense arrays of any shape, by their names."""
    classes = {name: cls for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name not in APART}
    return {name: cls for name, cls in sorted(classes.items()) if issubclass(cls, torch.optim.Optimizer)}


def hyperparameters(cls: type[torch.optim.Optimizer]) -> dict[str, float | bool]:
    """Return the hyper-parameters of a class of torch, by the names that they have here, and their defaults."""
    names = {_translated(cls, name): name for rule in RULES.values() for name in rule.ranges}
    ours: dict[str, float | bool] = {}
    for theirs, parameter in signature(cls).parameters.items():
        if theirs == "betas":
            ours["beta1"], ours["beta2"] = parameter.default
        elif theirs in names and isinstance(parameter.default, float | int):
            is_flag = isinstance(parameter.default, bool)
            ours[names[theirs]] = parameter.default if is_flag else float(parameter.default)
    return ours


def _translated(cls: type[torch.optim.Optimizer], name: str) -> str:
    return SECOND_MOMENT.get(cls.__name__, name) if name == "beta2" else TRANSLATED.get(name, name)


class TorchOptimizer:
    """An optimizer of torch.optim that steps NumPy arrays in place, as ours do.

    cls: a class of `optimizers`.
    params: float32 or float64 arrays in lists or dicts.
    values: hyper-parameters by the names that they have here; learning_rate may be a function of the step.
    groups: as for `adamas.Adam`: pairs of a pattern and the hyper-parameters that it changes; the first match wins.

    Raises ValueError for a hyper-parameter that the class does not have or whose value it refuses.
    """

    def __init__(
        self,
        cls: type[torch.optim.Optimizer],
        params: Any,
        values: Mapping[str, Any],
        groups: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        self.learning_rate = values.get("learning_rate", hyperparameters(cls)["learning_rate"])
        self.t = 0
        self._tensors = {keys: torch.from_numpy(array) for keys, array in _tree.leaves(params)}  # the same memory
        of_group: list[list[torch.Tensor]] = [[] for _ in range(len(groups) + 1)]
        for keys, tensor in self._tensors.items():
            path = _tree.path(keys)
            found = (i for i, (pattern, _) in enumerate(groups, start=1) if fnmatchcase(path, pattern))
            of_group[next(found, 0)].append(tensor)
        each = [dict(values), *({**values, **changes} for _, changes in groups)]
        used = [(own, tensors) for own, tensors in zip(each, of_group, strict=True) if tensors]
        self._rates = [own.get("learning_rate", self.learning_rate) for own, _ in used]
        make: Callable[..., torch.optim.Optimizer] = cls
        of_each = [{"params": tensors, **_arguments(cls, own)} for own, tensors in used]
        self._optimizer = make(of_each, **_arguments(cls, values))  # it checks only what it is given by name

    def update(self, params: Any, grads: Any, *, history: History | None = None, loss: float | None = None) -> Any:
        """Take one step and return params, which must be the arrays that the constructor was given.

        history: gets the step if its turn has come, with the loss; there are no effective learning rates in it.
        """
        gradients = list(_tree.matched(params, grads))
        values = [tensor.numpy() for tensor in self._tensors.values()]
        watch = None if history is None else history.watch(self.t + 1, values, gradients)
        before = []
        if watch is not None:
            watch.begin()
            before = [value.copy() for value in values]
        for tensor, gradient in zip(self._tensors.values(), gradients, strict=True):
            tensor.grad = None if gradient is None else torch.from_numpy(gradient)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate(self.t) if callable(rate) else rate
        self._optimizer.step()
        self.t += 1
        if watch is not None:
            nothing = named({}, Stages())
            for i, (old, new, g) in enumerate(zip(before, values, gradients, strict=True)):
                if g is not None and g.size:
                    watch.seen.append(observe(Rule, np, nothing, i, (old.ravel(), new.ravel()), g.ravel(), ()))
            leaves = [Stepped(values[i], Rule, (), nothing) for i in watch.owners]
            numbers = {"learning_rate": self._optimizer.param_groups[0]["lr"]}
            watch.finish(loss, leaves, numbers, [_tree.path(keys) for keys in self._tensors])
        return params

    def prepare(self, params: Any, rows: Any) -> Any:  # noqa: ARG002 - a stepper has it
        """Return params: its gradients are dense, so no row is ever behind."""
        return params

    def flush(self, params: Any) -> Any:
        """Return params."""
        return params

    def save(self, path: Any, params: Any = None, **metadata: Any) -> None:
        """Write a checkpoint, as optimizers of the package do."""
        arrays, numbers = {}, {}
        for i, state in self._optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"state.{name}/{i}"] = value.numpy()
                else:
                    numbers[f"{name}/{i}"] = value
        about = {"rule": self._name, "t": self.t, "nonfinite_steps": 0, "numbers": numbers, "leaves": {}, "tree": None}
        write_checkpoint(path, about, arrays, params, metadata)

    def load(self, path: Any) -> Any:
        """Continue from a checkpoint that `save` wrote; CheckpointError if it is damaged, or of another class."""
        with Checkpoint(path) as saved:
            if saved.rule != self._name:
                raise CheckpointError(f"{path} holds the state of {saved.rule}, not of {self._name}")
            state: dict[int, dict[str, Any]] = {}
            for name, entry in saved.file.entries.items():
                section, _, i = name.partition("/")
                if section.startswith("state."):
                    array = np.empty(entry.shape, entry.dtype)
                    saved.file.read(name, array)
                    state.setdefault(int(i), {})[section.removeprefix("state.")] = torch.from_numpy(array)
            for name, number in saved.about["numbers"].items():
                key, _, i = name.partition("/")
                state.setdefault(int(i), {})[key] = number
            self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
            stepped = [tensor for group in self._optimizer.param_groups for tensor in group["params"]]
            for place, loaded in state.items():
                self._optimizer.state[stepped[place]].update(loaded)  # torch makes all of it the parameter's dtype
            self.t = saved.t
        return self

    @property
    def _name(self) -> str:
        return f"torch.optim.{type(self._optimizer).__name__}"


def _arguments(cls: type[torch.optim.Optimizer], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class for hyper-parameters by our names; a schedule stands for its first value."""
    known = hyperparameters(cls)
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"torch.optim.{cls.__name__} has no {unknown[0]}: it has {', '.join(known)}")
    values = {**known, **values}
    arguments = {}
    if "beta1" in known:
        arguments["betas"] = (values["beta1"], values["beta2"])
    for name, value in values.items():
        if name not in ("beta1", "beta2") or "beta1" not in known:
            arguments[_translated(cls, name)] = value(0) if callable(value) else value
    return arguments
