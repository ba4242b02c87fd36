"""Optimizers on arrays: what turns a rule of the specification into a class whose `update` runs the engine."""

import fnmatch
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from os import PathLike
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from adamas import _checkpoint, _q8, _sparse, _tree
from adamas._formats import arithmetic
from adamas._history import History
from adamas._memory import Memory
from adamas._options import Options
from adamas._params import count_nonfinite
from adamas._watch import Stepped, Watch
from adamas.rules import Rule, Stages, named

T = TypeVar("T")
Groups = Sequence[tuple[str, Mapping[str, Any]]]


class Loader:
    """`load`, of an optimizer class for a new one, and of an optimizer for itself."""

    def __get__(self, optimizer: "Optimizer | None", cls: type["Optimizer"]) -> Callable[..., Any]:
        def load(path: str | PathLike[str], params: Any = None, *, strict: bool = True, **given: Any) -> Any:
            """Continue from a checkpoint, to the bit: ``opt = Adam.load(path)``, or ``opt.load(path)``.

            Hyper-parameters, options, groups, the count of steps and the state become those of the file; what is given
            by name counts instead of what is stored, and must be given if it was a function of your own, unless the
            optimizer has it already.

            params: those that will be stepped, to be compared with what is stored (they are not changed:
                `adamas.Checkpoint` reads parameters). An optimizer that has stepped compares with its own.
            strict: if False, what matches by path, shape and dtype is loaded, the rest starts anew, and a
                CheckpointWarning lists it.

            Raises CheckpointError, before anything is changed, if the file is damaged, of another rule or format, or
            does not match, and lists what differs; OSError if it cannot be read.
            """
            loaded = _checkpoint.load(cls, optimizer, path, params, strict, given)
            if optimizer is None:
                return loaded
            vars(optimizer).update(vars(loaded))
            optimizer._prepare()
            return optimizer

        return load


@dataclass(eq=False, repr=False)
class Optimizer(Options):
    """What every optimizer has besides its rule: memory, parameter trees, the engine.

    The classes of the package (``adamas.Adam``, ...) are this and a rule of `adamas.rules`. Hyper-parameters are
    numbers or functions of the step (first called with 0); they may be assigned between steps.

    groups: pairs of a pattern and the hyper-parameters that it changes for the parameters whose path matches; the
        first match wins. A path is the keys joined by '.', as in "layer1.bias"; a pattern is a shell's, as in "*.bias".
    sparse: what rows without a gradient do where gradients are sparse: what they do in dense steps, in closed form
        ("exact", to float32 rounding) or one by one ("replay", to the bit); or nothing ("lazy"). See `prepare`.
    """

    groups: Groups = field(default=(), kw_only=True)
    sparse: str = field(default="exact", kw_only=True)

    rule: ClassVar[type[Rule]]

    grad_norm: float | None = field(default=None, init=False)
    nonfinite_steps: int = field(default=0, init=False)
    _memory: Memory = field(init=False)
    _hyperparameters: list[dict[str, Any]] = field(init=False)  # of each group, the first for all that match none
    _stages: tuple[Stages, ...] | None = field(init=False)  # None: they vary from step to step
    _judge: Callable[[float, bool], float | None] | None = field(default=None, init=False)
    _factor: float | None = field(default=1.0, init=False)  # what the judge said last

    if TYPE_CHECKING:  # the rule brings it

        def coefficients(self, t: int) -> dict[str, float]:
            """Return the rule's numbers for step t."""

    def __post_init__(self) -> None:
        self.reset()
        self._prepare()

    def update(
        self, params: T, grads: Any, *, copy: bool = False, history: History | None = None, loss: Any = None
    ) -> T:
        """Take one step against the gradients and return the parameters: ``params = opt.update(params, grads)``.

        params: a float, a NumPy array of any shape and layout of float64, float32, bfloat16 (ml_dtypes), float16,
            complex128 or complex64, or any nesting of lists, tuples and dicts of those. Arrays, lists and dicts are
            overwritten; floats and tuples come back new.
        grads: the gradients, nested and shaped like params and matched by key in dicts; at the top a list may stand for
            a dict, in the dict's order. None leaves a parameter and its state alone. Real arrays may be of another
            real type. The gradient of a complex parameter is the direction of steepest ascent, as in torch (JAX and
            autograd return its conjugate); real and imaginary parts are stepped as two parameters.
        copy: leave params as they are and return new ones.
        history: a recorder that gets this step if its turn has come, with the loss, a number, if it is known.

        The arithmetic is float64 for float64 and complex128 parameters, else float32.

        Raises TypeError or ValueError, naming the parameter, and FloatingPointError for gradients that are not finite
        if nonfinite="raise", before anything is changed; RuntimeError if an update of this optimizer is running already
        in another thread. Other threads run while large arrays are stepped.
        """
        memory, stages = self._memory, self._stages
        t = memory.t + 1
        if stages is None:
            with memory.busy():  # while the schedules, which may be anything, are called
                coefficients, stages = self._numbers_at(t)
        else:
            coefficients = (self.coefficients(t),)
        if copy:
            params = _copied(params)
        judge = self._judge
        watch = None if history is None else self._watch(history, params, grads)
        rows = None
        if memory.tables:
            rows = _sparse.SparseStep(self, params, grads, (coefficients, stages, t), history)
            grads = rows.grads
        new: Any = memory.plan.step(params, grads, coefficients, stages, t, judge, watch)
        if new is None:
            if rows is None and _sparse.found(params, grads):
                rows = _sparse.SparseStep(self, params, grads, (coefficients, stages, t), history)
                grads = rows.grads
            new = memory.step(params, grads, (coefficients, stages, t), judge, watch, self._groups_of(params), self)
        elif new is not False:
            memory.t = t
        if new is False and judge is not None:
            self._skipped(params, grads)
            return params
        if rows is not None:
            rows.finish()
        if self.rule.first_carry:
            memory.carry = tuple({name: c[name] for name in self.rule.first_carry} for c in coefficients)
        if watch is not None:
            self._record(watch, new, loss, (coefficients, stages))
        stepped: T = new
        return stepped

    def prepare(self, params: T, rows: Any) -> T:
        """Bring rows up to date before they are read, and return params: needed where gradients are sparse.

        A step leaves the rows alone that have no gradient; when a row is needed it makes up for what it has missed.

        params: as of `update`; the arrays are written. rows: nested like params, with integers of shape (k,) for an
            array of which rows will be read, None for others.

        Raises TypeError or ValueError, before anything is changed, if there are no such rows.
        """
        with self._memory.busy():
            _sparse.prepare(self, params, rows)
        return params

    def flush(self, params: T) -> T:
        """Bring all rows up to date, as before an evaluation or an export, and return params, whose arrays are written.

        Without sparse gradients there is nothing to do. Raises ValueError if these are not the parameters.
        """
        with self._memory.busy():
            _sparse.flush(self, params)
        return params

    def _numbers_at(self, t: int) -> tuple[tuple[dict[str, float], ...], tuple[Stages, ...]]:
        """Return the coefficients and the stages of step t, one for each group."""
        each = zip(self._hyperparameters, self.carry, strict=True)
        coefficients, stages = zip(*(self.rule.numbers_at(h, t, carry) for h, carry in each), strict=True)
        return coefficients, tuple(self.with_options(numbers, t) for numbers in stages)

    def _judged(self, norm: float, finite: bool) -> float | None:
        """Return what the gradients are to be multiplied by, None if the step is not to be taken."""
        t = self.t + 1
        self.__dict__["grad_norm"] = norm / self.number("grad_scale", t)
        self.__dict__["nonfinite_steps"] += not finite
        self.__dict__["_factor"] = self.factor(norm, finite, t)
        return self._factor

    def _watch(self, history: History, params: Any, grads: Any) -> Watch | None:
        """Return what watches the next step, None if it is not to be recorded."""
        return history.watch(self.t + 1, (value for _, value in _tree.leaves(params)), _tree.matched(params, grads))

    def _record(self, watch: Watch, params: Any, loss: Any, numbers: tuple[Any, Any]) -> None:
        """Finish the record of the step that was just taken, by its coefficients and stages."""
        beside = {
            "learning_rate": self.last_learning_rate,
            "clip_factor": self._factor,
            "skips": self.nonfinite_steps if self.nonfinite != "propagate" else 0,
        }
        leaves = self.stepped(params, watch.owners, numbers)
        watch.finish(loss, leaves, beside, self._memory.array_paths(), self.number("grad_scale", self.t))

    def stepped(self, params: Any, places: Sequence[int], numbers: tuple[Any, Any] | None = None) -> list[Stepped]:
        """Return some of the parameters as they are after the last step, for `History`.

        numbers: its coefficients and stages, one for each group, if they are known.
        """
        memory, entries = self._memory, list(_tree.leaves(params))
        coefficients, stages = numbers or self._numbers_at(self.t)
        found = []
        for keys, value in (entries[i] for i in places):
            path = _tree.path(keys)
            group = memory.segments[memory.leaves[path].segment].group
            found.append(Stepped(value, self.rule, memory.coded(path), named(coefficients[group], stages[group])))
        return found

    @property
    def last_learning_rate(self) -> float:
        """The learning rate of the last step, of the parameters that are in no group."""
        rate: Any = self._hyperparameters[0]["learning_rate"]
        return float(rate(self.t - 1) if callable(rate) else rate)

    def _skipped(self, params: Any, grads: Any) -> None:
        """Do what a step does whose gradients are not finite, and which is not taken."""
        entries = list(zip(_tree.leaves(params), _tree.matched(params, grads), strict=True))
        if self.nonfinite == "raise":
            numbers = ((keys, g[1] if isinstance(g, tuple) else g) for (keys, _), g in entries if g is not None)
            counts = {_tree.access("grads", keys): count_nonfinite(g) for keys, g in numbers}
            bad = [f"{name} has {count} numbers that are" for name, count in counts.items() if count]
            more = f" and {len(bad) - 1} more arrays have such" if len(bad) > 1 else ""
            raise FloatingPointError(
                f"{bad[0]} not finite{more}: nothing was changed. Lower the learning rate, clip, or pass "
                "nonfinite='skip' to go on without such steps"
            )
        if self.zero_grads:
            for _, g in entries:
                if isinstance(g, np.ndarray):
                    g[...] = 0

    def reset(self) -> None:
        """Forget the state and the parameters: the next update is the first."""
        object.__setattr__(self, "_memory", Memory(self.rule))
        self.__dict__.update(grad_norm=None, nonfinite_steps=0)

    @property
    def t(self) -> int:
        """The number of steps taken."""
        return self._memory.t

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """The state by path and name, as in ``opt.state["layer1.bias"]["m"]``; empty before the first update.

        Arrays are live, read-only views of the parameter's shape; the state of a float is a float. State in q8 is
        decoded: arrays of its values at this step.
        """
        return MappingProxyType(
            {
                path: MappingProxyType({name: _read_only(value) for name, value in state.items()})
                for path, state in self._memory.shown().items()
            }
        )

    @property
    def state_bytes(self) -> int:
        """How many bytes the state takes, without averages and copies of the parameters."""
        count = len(self.rule.state_names)
        return sum(array.nbytes for segment in self._memory.segments for array in segment.state[:count])

    @property
    def carry(self) -> tuple[dict[str, float], ...]:
        """The numbers that live across steps beside the state, by name, where a rule has such (`NAdam`).

        One dict for all parameters that match none of `groups`, then one for each of those.
        """
        known = self._memory.carry or (dict(self.rule.first_carry),)
        return tuple(dict(known[i if i < len(known) else 0]) for i in range(len(self._hyperparameters)))

    def eval_params(self, params: T) -> T:
        """Return the parameters to evaluate the model at, and to keep: new ones, nested like params.

        params: as `update` returned them, with the values that they had then. They are where gradients are taken; only
        of schedule-free rules (`ScheduleFreeAdamW`) is the model better elsewhere. Raises ValueError for parameters
        that were not stepped.
        """
        memory, evaluated = self._memory, self.rule.evaluated
        if evaluated is None or not memory.leaves:
            return _copied(params)
        states = {path: tuple(state.values()) for path, state in memory.shown().items()}
        values = []
        for keys, value in _tree.leaves(params):
            path = _tree.path(keys)
            if path not in memory.leaves:
                raise ValueError(f"{_tree.access('params', keys)} is not a parameter that this optimizer has stepped")
            group = memory.segments[memory.leaves[path].segment].group
            values.append(self._evaluated(evaluated, group, value, states[path]))
        new: T = _tree.replace(params, iter(values), in_place=False)
        return new

    def _evaluated(self, evaluated: Callable[..., Any], group: int, value: Any, state: tuple[Any, ...]) -> Any:
        h = {name: x(max(self.t - 1, 0)) if callable(x) else x for name, x in self._hyperparameters[group].items()}
        if isinstance(value, int | float):
            return evaluated(SimpleNamespace(**h), float(value), *state)
        work = arithmetic(value.dtype)
        return evaluated(SimpleNamespace(**h), *(x.astype(work) for x in (value, *state))).astype(value.dtype)

    def looks_at_arrays(self, group: int) -> bool:
        """Return whether the steps of a group look at whole arrays."""
        return self.rule.reduces(self._hyperparameters[group])

    def _extra(self, name: str) -> Any:
        """Return the tree of what is remembered of each parameter by a name, None if there is none (yet)."""
        memory = self._memory
        if self.option(name) is None or memory.skeleton is None:
            return None
        place = len(self.rule.state_names) + self.extra_names.index(name)
        states = memory.states()
        values = (_read_only(states[path][place]) for _, path in _tree.leaves(memory.skeleton))
        return _tree.replace(memory.skeleton, values, in_place=False)

    # --- hyper-parameters and groups ----------------------------------------------------------------------------------

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
        object.__setattr__(self, "_judge", self._judged if self.needs_norm else None)
        self.__dict__["_factor"] = 1.0
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

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str], params: Any = None, **metadata: Any) -> None:
        """Write a checkpoint: one file, in the format safetensors, that `load` continues from to the bit.

        path: of the file, which takes the place of one that is there only when it is whole and on the disk.
        params: the parameters, to be kept in it too; `adamas.Checkpoint` reads them.
        metadata: what else to keep: texts, numbers, and lists and dicts of them.

        A schedule of `adamas.schedules` is stored by its name and arguments; of another function only that there was
        one. Raises OSError if the file cannot be written, ValueError if params are not those that are stepped, and
        TypeError for other metadata.
        """
        _checkpoint.save(self, path, params, metadata)

    load = Loader()

    # --- copies -------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        given = [f"{f.name}={self.option(f.name)!r}" for f in fields(Options) if self.option(f.name) != f.default]
        if self.sparse != "exact":
            given.append(f"sparse={self.sparse!r}")
        return f"{super().__repr__()[:-1]}{''.join(f', {text}' for text in given)})"

    def __copy__(self) -> Self:
        return deepcopy(self)  # a shallow copy would share the state, and both would be wrong after a step


def _remembered(name: str, what: str) -> property:
    """Return the attribute by which what an option asks for is read; it is set as the option."""
    return property(lambda self: self._extra(name), doc=f"{what}, nested like the parameters; None if there are none.")


# Not in the class, where the names are those of the options.
Optimizer.ema = _remembered("ema", "The averages of the parameters, as live, read-only views")
Optimizer.weight_copy = _remembered("weight_copy", "The copies of the parameters, as live, read-only views")


def _read_only(value: Any) -> Any:
    """Return a float as it is, an array as a view that cannot be written."""
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return value


def _copied(params: T) -> T:
    """Return a copy of a tree with its arrays copied; one that stands in two places stands in two again."""
    copies: dict[int, Any] = {}
    new = (
        copies.setdefault(id(value), value.copy(order="K")) if isinstance(value, np.ndarray) else value
        for _, value in _tree.leaves(params)
    )
    copied: T = _tree.replace(params, new, in_place=False)
    return copied
