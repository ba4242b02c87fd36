"""What an optimizer remembers of its parameters: where each is stepped, its state, and the plan that steps them all."""

import math
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from adamas import _q8, _tree
from adamas._backend import Plan
from adamas._formats import arithmetic, state_dtype
from adamas._options import Options
from adamas._params import check_grad, check_overlaps, check_param, check_q8
from adamas._watch import Watch
from adamas.rules import Rule

FLOAT = ("a float",)
"""The kind of a parameter that is a Python float (or int, or NumPy float64 scalar)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a parameter is stepped: alone in its segment or, if a float, at an index of a packed one."""

    segment: int
    index: int
    kind: tuple[Any, ...]  # what must stay the same from step to step
    convert: type | None = None  # what a float comes back as, if not as a Python float


@dataclass(slots=True)
class Segment:
    """What the engine steps as one: an array, or all floats of a group that have gradients, or have none, packed.

    If steps look at whole arrays, each float is one.
    """

    group: int
    state: tuple[Any, ...]  # the rule's, then the average and the copy, if the options ask for them
    packed: Any = None  # the values of the floats; None for an array


class Unseen:
    """The plan before the first step: it recognises nothing."""

    def step(self, *args: object) -> None:
        """Decline."""


class Busy:
    """The plan while a new one is made: another thread must not come in."""

    def step(self, *args: object) -> None:
        """Refuse."""
        raise RuntimeError("the optimizer is in an update already: use one per thread")


class Memory:
    """The state of one tree of parameters.

    A step goes to the plan first (``memory.plan.step``), which only recognises the tree that it was made for. What it
    declines comes to `step`, which checks everything, says what is wrong, and makes the plan anew.
    """

    def __init__(self, rule: type[Rule]) -> None:
        self.rule = rule
        self.t = 0
        self.carry: tuple[dict[str, float], ...] = ()  # of each group, after the first step
        self.leaves: dict[str, Leaf] = {}
        self.segments: list[Segment] = []
        self.skeleton: Any = None  # the tree with paths for leaves
        self.tables: dict[str, Any] = {}  # by path, what has had sparse gradients
        self.lock = Lock()
        self.forget_plan()

    def forget_plan(self) -> None:
        """Let the next step check everything and make the plan anew."""
        self.plan: Any = Unseen()
        self.known: Any = self.plan  # the plan that is put back after what keeps others out

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("plan", "known", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.lock = Lock()
        self.forget_plan()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep other threads out of this optimizer inside the with block; RuntimeError if one keeps us out."""
        if not self.lock.acquire(blocking=False):
            Busy().step()
        self.known, self.plan = self.plan, Busy()
        try:
            yield
        finally:
            self.plan = self.known
            self.lock.release()

    def step(
        self,
        params: Any,
        grads: Any,
        numbers: tuple[Any, Any, int],
        judge: Callable[[float, bool], float | None] | None,
        watch: Watch | None,
        groups: Mapping[str, int],
        options: Options,
    ) -> Any:
        """Check and step a tree, and count the step; return it, or False if the judge did not let the step be taken.

        numbers: coefficients, stages and t, as the plan takes them, and judge and watch too. groups: the place in those
        of each path, else 0.
        """
        with self.busy():
            if numbers[2] != self.t + 1:
                Busy().step()  # another thread has been in this step since its number was read
            paths, values, gradients = self.checked(params, grads, options.option("zero_grads"))
            if options.option("state_format") == "q8":
                for keys, value in _tree.leaves(params):
                    check_q8(_tree.access("params", keys), value)
            if self.leaves:
                self._check_same({path: _kind(value) for path, value in zip(paths, values, strict=True)})
            still = {path for path, gradient in zip(paths, gradients, strict=True) if gradient is None}
            named_values = dict(zip(paths, values, strict=True))
            leaves, segments = self._learned(named_values, groups, still, self.states(), options)
            in_order = [leaves[path] for path in paths]
            p, g = _inputs(in_order, segments, values, gradients)
            plan = Plan(
                kernel_name(self.rule),
                [(s.group, like, s.state, s.packed is not None) for s, like in zip(segments, p, strict=True)],
                _tree.replace(params, iter(in_order), in_place=False) if _tree.is_plain(params) else None,
                numbers[2] - 1,
                options.plan_options,
            )
            if not plan.run(p, g, *numbers, judge, watch):
                return False
            self.leaves, self.segments = leaves, segments
            self.skeleton = _tree.replace(params, iter(paths), in_place=False)
            new = _tree.replace(params, _outputs(in_order, p, values), in_place=True)
            self.t, self.known = numbers[2], plan
        return new

    def checked(self, params: Any, grads: Any, zero_grads: bool = False) -> tuple[list[str], list[Any], list[Any]]:
        """Return the paths, values and gradients of the leaves.

        Raises TypeError or ValueError, naming the leaf, unless the engine can step them.
        """
        entries = list(_tree.leaves(params))
        gradients = list(_tree.matched(params, grads))
        arrays: tuple[list[tuple[str, Any]], ...] = ([], [])
        for (keys, value), gradient in zip(entries, gradients, strict=True):
            name, grad_name = _tree.access("params", keys), _tree.access("grads", keys)
            check_param(name, value, self.rule.__name__)
            check_grad(grad_name, gradient, name, value, zero_grads)
            for side, named in zip(arrays, ((name, value), (grad_name, gradient)), strict=True):
                if isinstance(named[1], np.ndarray):
                    side.append(named)
        check_overlaps(arrays[0], arrays[1], zero_grads)
        return [_tree.path(keys) for keys, _ in entries], [value for _, value in entries], gradients

    def adopt(self, params: Any, states: Mapping[str, tuple[Any, ...]], t: int) -> None:
        """Take over the state of a checked tree after t steps: for each path its arrays, or floats, by name's order."""
        values = {_tree.path(keys): value for keys, value in _tree.leaves(params)}
        self.leaves, self.segments = self._learned(values, {}, set(), states, Options())
        self.t = t

    def _learned(
        self,
        values: dict[str, Any],
        groups: Mapping[str, int],
        still: Container[str],
        states: Mapping[str, tuple[Any, ...]],
        options: Options,
    ) -> tuple[dict[str, Leaf], list[Segment]]:
        """Return where each parameter is stepped and the segments, with the given states, or new ones.

        still: the paths of those that have no gradient.
        """
        leaves: dict[str, Leaf] = {}
        segments: list[Segment] = []
        floats: dict[tuple[int, bool, str], list[str]] = {}  # group, whether they have no gradient, which if alone
        for path, value in values.items():
            group = groups.get(path, 0)
            if (kind := _kind(value)) == FLOAT:
                convert = np.float64 if isinstance(value, np.float64) else None
                pack = floats.setdefault((group, path in still, path if options.looks_at_arrays(group) else ""), [])
                leaves[path] = Leaf(-1, len(pack), FLOAT, convert)
                pack.append(path)
            else:
                leaves[path] = Leaf(len(segments), 0, kind)
                segments.append(Segment(group, states.get(path) or self._first_state(value, options)))
        for (group, *_), paths in floats.items():
            for path in paths:
                leaves[path] = replace(leaves[path], segment=len(segments))
            first = self._first_state(np.array([values[path] for path in paths], np.float64), options)
            for i, path in enumerate(paths):
                for array, known in zip(first, states.get(path, ()), strict=False):
                    array[i] = known
            segments.append(Segment(group, first, np.zeros(len(paths))))
        return leaves, segments

    def _first_state(self, value: Any, options: Options) -> tuple[Any, ...]:
        """Return the state of an array before the first step."""
        dtype = state_dtype(value.dtype, options.option("state_format"))
        order: Any = "K"  # the parameter's
        state = [np.zeros_like(value, dtype, subok=False) for _ in self.rule.state_names]
        if options.option("state_format") == "q8" and dtype == np.float32 and value.size >= _q8.LEAST:
            order = "C"
            state = [np.zeros(_q8.size(value.size), np.uint8) for _ in state]
        if options.option("ema") is not None:
            state.append(np.zeros_like(value, arithmetic(value.dtype), order, subok=False))
            state[-1][...] = value
        if (copy := options.option("weight_copy")) is not None:
            dtype = arithmetic(value.dtype) if value.dtype.kind == "c" else np.dtype(copy)
            state.append(np.zeros_like(value, dtype, order, subok=False))
            with np.errstate(all="ignore"):
                state[-1][...] = value
        return tuple(state)

    def shown(self) -> dict[str, dict[str, Any]]:
        """Return the rule's state of each parameter by name: floats, or arrays, those in q8 decoded."""
        names = self.rule.state_names
        return {
            path: {
                name: _q8.decode(*x).reshape(leaf.kind[2]) if isinstance(x, _q8.Coded) else x
                for name, x in zip(names, self.coded(path), strict=True)
            }
            for path, leaf in self.leaves.items()
        }

    def coded(self, path: str) -> list[Any]:
        """Return the rule's state of a parameter, in the order of its names: floats, arrays, or what is in q8."""
        named = zip(self.rule.state_names, self.state(path), strict=False)
        return [
            _q8.Coded(x, math.prod(self.leaves[path].kind[2]), name in self.rule.nonnegative)
            if isinstance(x, np.ndarray) and x.dtype == np.uint8
            else x
            for name, x in named
        ]

    def states(self) -> dict[str, tuple[Any, ...]]:
        """Return what is remembered of each parameter, the rule's state first: arrays, or floats."""
        return {path: self.state(path) for path in self.leaves}

    def state(self, path: str) -> tuple[Any, ...]:
        """Return the same of one parameter."""
        leaf = self.leaves[path]
        arrays = self.segments[leaf.segment].state
        return tuple(float(array[leaf.index]) for array in arrays) if leaf.kind == FLOAT else arrays

    def array_paths(self) -> list[str | None]:
        """Return the path of each segment that is an array, None for packs of floats."""
        paths: list[str | None] = [None] * len(self.segments)
        for path, leaf in self.leaves.items():
            if leaf.kind != FLOAT:
                paths[leaf.segment] = path
        return paths

    def _check_same(self, kinds: dict[str, tuple[Any, ...]]) -> None:
        was = {path: leaf.kind for path, leaf in self.leaves.items()}
        if kinds == was:
            return
        changes = [f"{path!r} is gone" for path in was if path not in kinds]
        changes += [f"{path!r} is new" for path in kinds if path not in was]
        changes += [f"{path!r} was {_words(was[path])} and is {_words(kind)}" for path, kind in kinds.items()
                    if was.get(path, kind) != kind]  # fmt: skip
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ValueError(
            f"params differs from the first update: {'; '.join(changes[:3])}{more}. "
            "Use a new optimizer, or reset() this one, for other parameters"
        )


def kernel_name(rule: type[Rule]) -> str:
    """Return the name by which the engine knows the arithmetic of a rule."""
    return next(cls.__name__ for cls in rule.__mro__ if "change" in vars(cls))


def _kind(value: Any) -> tuple[Any, ...]:
    """Return what about a parameter must stay the same from step to step."""
    if isinstance(value, int | float):  # NumPy's float64 scalars are Python floats too
        return FLOAT
    return ("an array" if isinstance(value, np.ndarray) else "a NumPy scalar", value.dtype.name, value.shape)


def _words(kind: tuple[Any, ...]) -> str:
    return kind[0] if kind == FLOAT else f"{kind[0]} of {kind[1]}, shape {kind[2]}"


def _inputs(
    leaves: list[Leaf], segments: list[Segment], values: list[Any], gradients: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Return an array and a gradient, or None, per segment."""
    p = [segment.packed for segment in segments]
    g: list[Any] = [None] * len(p)
    for leaf, value, gradient in zip(leaves, values, gradients, strict=True):
        if leaf.kind != FLOAT:
            p[leaf.segment] = np.asanyarray(value) if isinstance(value, np.ndarray) else np.array(value)
            g[leaf.segment] = (
                gradient if gradient is None or isinstance(value, np.ndarray) else np.array(gradient, np.float64)
            )
            continue
        p[leaf.segment][leaf.index] = value
        if gradient is not None:
            if g[leaf.segment] is None:
                g[leaf.segment] = np.empty_like(p[leaf.segment])
            g[leaf.segment][leaf.index] = gradient
    return p, g


def _outputs(leaves: list[Leaf], p: list[Any], values: list[Any]) -> Iterator[Any]:
    """Yield what each leaf is after the step: the same array, or a new number."""
    for leaf, value in zip(leaves, values, strict=True):
        if isinstance(value, np.ndarray):
            yield value
        elif leaf.kind == FLOAT:
            yield (leaf.convert or float)(p[leaf.segment][leaf.index])
        else:
            yield p[leaf.segment][()]
