"""The state of an optimizer, of no library: what conversions go through."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas import _tree
from adamas._optimizer import Optimizer
from adamas._optimizers import OPTIMIZERS
from adamas.errors import CheckpointError, CheckpointWarning
from adamas.rules import RULES

Array = NDArray[Any]


@dataclass(frozen=True)
class Moments:
    """What is remembered of one parameter, by the names that the rule has for it (`Rule.state_names`)."""

    arrays: dict[str, Array]


@dataclass(frozen=True)
class State:
    """The state of an optimizer, of no library.

    rule: its name in `adamas.rules`. t: the steps taken. tree: the parameters' tree, with `Moments` for leaves.
    hyperparameters: by our names, those that are known. groups: as `adamas.Adam` takes them. carry: what lives across
    steps beside the state (`NAdam`).
    """

    rule: str
    t: int
    tree: Any
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    groups: tuple[tuple[str, dict[str, Any]], ...] = ()
    carry: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise CheckpointError(f"there is no rule {self.rule!r}: there are {', '.join(RULES)}")
        names = RULES[self.rule].state_names
        for path, moments in self.by_path():
            shapes = {array.shape for array in moments.arrays.values()}
            if tuple(moments.arrays) != names or len(shapes) > 1:
                held = (
                    ", ".join(f"{name} of shape {array.shape}" for name, array in moments.arrays.items()) or "nothing"
                )
                raise CheckpointError(f"{path!r} has {held}, but {self.rule} remembers {', '.join(names) or 'nothing'}")

    def by_path(self) -> Iterator[tuple[str, Moments]]:
        """Yield the path of each parameter, and what is remembered of it."""
        for keys, moments in _tree.leaves(self.tree):
            yield _tree.path(keys), moments

    def arrays(self, name: str) -> list[Array]:
        """Return the arrays of one name, of all parameters in order."""
        return [moments.arrays[name] for _, moments in self.by_path()]

    def named(self, names: Sequence[str]) -> "State":
        """Return the same with other names for the parameters, in order; see `nested`."""
        held = [moments for _, moments in self.by_path()]
        if len(names) != len(held):
            raise CheckpointError(f"there are {len(names)} names for {len(held)} parameters: there must be as many")
        return State(self.rule, self.t, nested(names, held), self.hyperparameters, (), self.carry)


def nested(names: Sequence[str], leaves: Sequence[Any]) -> Any:
    """Return leaves in dicts by the parts of their names, or in one dict if that would change their order.

    The order is what other libraries go by: a list of all weights and then all biases must come back as that.
    """
    tree: dict[str, Any] = {}
    for name, leaf in zip(names, leaves, strict=True):
        *parts, last = name.split(".")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise CheckpointError(f"the name {name!r} goes through another parameter: give each one of its own")
        if last in place:
            raise CheckpointError(f"the name {name!r} is there twice, or within another")
        place[last] = leaf
    kept = all(a is b for (_, a), b in zip(_tree.leaves(tree), leaves, strict=True))
    return tree if kept else dict(zip(names, leaves, strict=True))


def as_count(steps: Any) -> int:
    """Return a count of steps; raise CheckpointError if it is none."""
    number = float(steps)
    if not (0 <= number < 2**53 and number.is_integer()):
        raise CheckpointError(f"{number:g} is no count of steps")
    return int(number)


def told(what: str) -> None:
    warnings.warn(what, CheckpointWarning, stacklevel=3)


# --- optimizers of the package ----------------------------------------------------------------------------------------


def from_optimizer(optimizer: Optimizer) -> State:
    """Return the state of an optimizer of the package; CheckpointError if it has not stepped, or rows are behind."""
    memory = optimizer._memory
    if memory.skeleton is None:
        raise CheckpointError("the optimizer has no state, or of a tree that is not known: take a step, then save")
    if any(len(set(table.last.tolist())) > 1 for table in memory.tables.values()):
        raise CheckpointError("rows of sparse parameters are behind: call opt.flush(params), then save")
    shown = memory.shown()
    moments = (
        Moments({name: np.array(x) for name, x in shown[path].items()}) for _, path in _tree.leaves(memory.skeleton)
    )
    numbers = {name: getattr(optimizer, name) for name in optimizer.rule.ranges}
    return State(
        optimizer.rule.__name__,
        optimizer.t,
        _tree.replace(memory.skeleton, moments, in_place=False),
        {name: value for name, value in numbers.items() if not callable(value)},
        tuple((pattern, dict(values)) for pattern, values in optimizer.groups),
        dict(optimizer.carry[0]),
    )


def to_optimizer(state: State, **given: Any) -> Any:
    """Return an optimizer of the package in a state; hyper-parameters and options that are given count instead.

    Raises CheckpointError if one in the state is out of its range, ValueError if one that is given is.
    """
    cls: Any = OPTIMIZERS[state.rule]
    known = {name: value for name, value in state.hyperparameters.items() if name in cls.rule.ranges}
    try:
        optimizer = cls(**{**known, "groups": state.groups, **given})
    except ValueError as error:
        if given:
            raise
        raise CheckpointError(f"the state has a hyper-parameter that {state.rule} does not take: {error}") from None
    memory = optimizer._memory
    zeros = (np.zeros_like(next(iter(moments.arrays.values()))) for _, moments in state.by_path())
    params = _tree.replace(state.tree, zeros, in_place=False)
    states = {path: tuple(np.array(x) for x in moments.arrays.values()) for path, moments in state.by_path()}
    memory.adopt(params, states, state.t)
    memory.skeleton = _tree.replace(params, (path for path, _ in state.by_path()), in_place=False)
    if optimizer.rule.first_carry:
        memory.carry = (dict(state.carry or optimizer.rule.first_carry),) * (1 + len(optimizer.groups))
    return optimizer
