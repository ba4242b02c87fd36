"""Optimizers on arrays: what turns a rule of the specification into a class whose `update` runs the engine."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from os import PathLike
from types import MappingProxyType, SimpleNamespace
from typing import Any, Self, TypeVar

import numpy as np

from adamas import _checkpoint, _sparse, _tree
from adamas._formats import arithmetic
from adamas._history import History
from adamas._memory import Memory
from adamas._params import count_nonfinite
from adamas._settings import Settings
from adamas._watch import Stepped, Watch
from adamas.rules import named

T = TypeVar("T")


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
class Optimizer(Settings):
    """What every optimizer has besides its rule: memory, parameter trees, the engine.

    The classes of the package (``adamas.Adam``, ...) are this and a rule of `adamas.rules`. Hyper-parameters are
    numbers or functions of the step (first called with 0); they may be assigned between steps.
    """

    grad_norm: float | None = field(default=None, init=False)
    nonfinite_steps: int = field(default=0, init=False)
    _judge: Callable[[float, bool], float | None] | None = field(default=None, init=False)
    _factor: float | None = field(default=1.0, init=False)  # what the judge said last

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

    def _prepare(self) -> None:
        super()._prepare()
        object.__setattr__(self, "_judge", self._judged if self.needs_norm else None)
        self.__dict__["_factor"] = 1.0

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

    def _extra(self, name: str) -> Any:
        """Return the tree of what is remembered of each parameter by a name, None if there is none (yet)."""
        memory = self._memory
        if self.option(name) is None or memory.skeleton is None:
            return None
        place = len(self.rule.state_names) + self.extra_names.index(name)
        states = memory.states()
        values = (_read_only(states[path][place]) for _, path in _tree.leaves(memory.skeleton))
        return _tree.replace(memory.skeleton, values, in_place=False)

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
