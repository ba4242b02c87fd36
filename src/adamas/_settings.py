"""What an optimizer is set to: hyper-parameters, for all parameters and for groups of them, and options."""

import fnmatch
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from adamas import _q8, _sparse, _tree
from adamas._memory import Memory
from adamas._options import Options
from adamas.rules import Rule, Stages

Groups = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(eq=False, repr=False)
class Settings(Options):
    """What can be assigned between steps, and what follows from it.

    groups: pairs of a pattern and the hyper-parameters that it changes for the parameters whose path matches; the
        first match wins. A path is the keys joined by '.', as in "layer1.bias"; a pattern is a shell's, as in "*.bias".
    sparse: what rows without a gradient do where gradients are sparse: what they do in dense steps, in closed form
        ("exact", to float32 rounding) or one by one ("replay", to the bit); or nothing ("lazy"). See `prepare`.
    """

    groups: Groups = field(default=(), kw_only=True)
    sparse: str = field(default="exact", kw_only=True)

    rule: ClassVar[type[Rule]]

    _memory: Memory = field(init=False)
    _hyperparameters: list[dict[str, Any]] = field(init=False)  # of each group, the first for all that match none
    _stages: tuple[Stages, ...] | None = field(init=False)  # None: they vary from step to step

    if TYPE_CHECKING:  # the rule brings it

        def coefficients(self, t: int) -> dict[str, float]:
            """Return the rule's numbers for step t."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "groups":
            value = self._checked_groups(value)
        elif name == "sparse":
            if value not in _sparse.MODES:
                raise ValueError(f"sparse must be {' or '.join(map(repr, _sparse.MODES))}, got {value!r}")
            if self.__dict__.get("_memory") and self._memory.tables:
                raise AttributeError("sparse cannot change once gradients were: use a new optimizer, or reset()")
        elif name in self.option_names:
            value = self.checked_option(name, value)
            if name in self.lasting and self.__dict__.get("_memory") and self._memory.leaves:
                raise AttributeError(f"{name} cannot change after the first update: use a new optimizer, or reset()")
            if value == "q8" and name == "state_format":
                _q8.check_rule(self.rule)
            self.__dict__[name] = value
        elif name not in self.rule.ranges and not name.startswith("_"):  # those are for subclasses
            names = [*self.rule.ranges, *self.option_names, "groups", "sparse"]
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise AttributeError(f"{type(self).__name__} has no hyper-parameter {name!r}: {hint}")
        if name not in self.option_names:
            super().__setattr__(name, value)
        if hasattr(self, "_memory"):  # not while the constructor assigns
            self._prepare()

    def _checked_groups(self, groups: Any) -> Groups:
        checked = []
        for i, group in enumerate(groups):
            match group:
                case (str(pattern), Mapping() as values):
                    where = f" in groups[{i}]"
                    if unknown := [name for name in values if name not in self.rule.ranges]:
                        names = ", ".join(self.rule.ranges)
                        raise ValueError(f"{self.rule.__name__} has no {unknown[0]!r}{where}: use {names}")
                    checked.append((pattern, {k: self.rule.checked(k, value, where) for k, value in values.items()}))
                case _:
                    example = "('*.bias', {'weight_decay': 0.0})"
                    raise TypeError(f"groups[{i}] must be a pattern and a dict, such as {example}, got {group!r}")
        return tuple(checked)

    def _prepare(self) -> None:
        """Compute what does not depend on the step, once per assignment."""
        own = {name: getattr(self, name) for name in self.rule.ranges}
        everyone = [own, *({**own, **values} for _, values in self.groups)]
        scheduled = self.scheduled or any(callable(value) for h in everyone for value in h.values())
        object.__setattr__(self, "_hyperparameters", everyone)
        varies = scheduled or self.groups or self.rule.first_carry
        object.__setattr__(self, "_stages", None if varies else self._numbers_at(1)[1])
        self._memory.forget_plan()  # groups or options may have changed

    def _groups_of(self, params: Any) -> dict[str, int]:
        """Return the group (1, 2, ...) of each path that matches one; warn of patterns that match nothing."""
        paths = [_tree.path(keys) for keys, _ in _tree.leaves(params)] if self.groups else []
        found: dict[str, int] = {}
        for i, (pattern, _) in reversed(list(enumerate(self.groups, start=1))):
            matches = fnmatch.filter(paths, pattern)
            if not matches:
                some = ", ".join(map(repr, paths[:5]))
                warnings.warn(f"groups: no parameter matches {pattern!r}; paths are {some}", stacklevel=3)
            found.update(dict.fromkeys(matches, i))
        return found

    @property
    def t(self) -> int:
        """The number of steps taken."""
        return self._memory.t

    @property
    def carry(self) -> tuple[dict[str, float], ...]:
        """The numbers that live across steps beside the state, by name, where a rule has such (`NAdam`).

        One dict for all parameters that match none of `groups`, then one for each of those.
        """
        known = self._memory.carry or (dict(self.rule.first_carry),)
        return tuple(dict(known[i if i < len(known) else 0]) for i in range(len(self._hyperparameters)))

    def _numbers_at(self, t: int) -> tuple[tuple[dict[str, float], ...], tuple[Stages, ...]]:
        """Return the coefficients and the stages of step t, one for each group."""
        each = zip(self._hyperparameters, self.carry, strict=True)
        coefficients, stages = zip(*(self.rule.numbers_at(h, t, carry) for h, carry in each), strict=True)
        return coefficients, tuple(self.with_options(numbers, t) for numbers in stages)

    @property
    def last_learning_rate(self) -> float:
        """The learning rate of the last step, of the parameters that are in no group."""
        rate: Any = self._hyperparameters[0]["learning_rate"]
        return float(rate(self.t - 1) if callable(rate) else rate)

    def looks_at_arrays(self, group: int) -> bool:
        """Return whether the steps of a group look at whole arrays."""
        return self.rule.reduces(self._hyperparameters[group])

    def __repr__(self) -> str:
        given = [f"{f.name}={self.option(f.name)!r}" for f in fields(Options) if self.option(f.name) != f.default]
        if self.sparse != "exact":
            given.append(f"sparse={self.sparse!r}")
        return f"{super().__repr__()[:-1]}{''.join(f', {text}' for text in given)})"
