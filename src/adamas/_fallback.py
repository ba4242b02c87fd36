"""The specification behind the interface of the engine, on NumPy arrays: for machines without a compiler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adamas import _q8
from adamas._formats import arithmetic, as_real, random_blocks, random_numbers, store, within
from adamas._native import flush_denormals
from adamas._norm import norm
from adamas._statistics import observe
from adamas._watch import Watch
from adamas.rules import RULES, Stages, average, named, step

AllStages = tuple[Stages, ...]
Coefficients = tuple[dict[str, float], ...]
Judge = Callable[[float, bool], float | None]
Seen = list[tuple[Any, ...]] | None


class PlanOptions(NamedTuple):
    """What a step does beside the rule (see _engine.pyi)."""

    average: bool = False
    copy: bool = False
    zero: bool = False
    stochastic: bool = False
    seed: int = 0


class Plan:
    """The same as the engine's Plan (see _engine.pyi), but it recognises no tree: every step goes through `run`."""

    def __init__(
        self,
        rule: str,
        segments: list[tuple[int, Any, tuple[Any, ...], bool]],
        skeleton: object,
        t: int,
        options: tuple[bool, bool, bool, bool, int],
    ) -> None:
        self.rule = RULES[rule]
        self.segments = segments
        self.options = PlanOptions(*options)
        self.first = random_blocks(as_real(like).size for _, like, _, _ in segments)

    def step(
        self,
        params: object,
        grads: object,
        coefficients: Coefficients,
        stages: AllStages,
        t: int,
        judge: Judge | None,
        watch: Watch | None = None,
    ) -> None:
        """Decline."""

    def run(
        self,
        params: list[Any],
        grads: list[Any],
        coefficients: Coefficients,
        stages: AllStages,
        t: int,
        judge: Judge | None,
        watch: Watch | None = None,
    ) -> bool:
        """Take a step of one array per segment; a gradient may be None. Return whether the judge let it be taken."""
        factor: float | None = 1.0
        with flush_denormals(), np.errstate(all="ignore"):
            if judge is not None:
                each = zip(self.segments, grads, strict=True)
                flats = [_given(g, like, slots) for (_, like, slots, _), g in each if g is not None]
                factor = judge(*norm(np, [g.astype(np.float64) for g in flats]))
            if factor is None:
                return False
            seen = None if watch is None else watch.seen
            if watch is not None:
                watch.begin()
            for i, (p, g) in enumerate(zip(params, grads, strict=True)):
                if g is not None:
                    group = self.segments[i][0]
                    scaled = stages[group]._replace(scale=stages[group].scale * factor)
                    c = named(coefficients[group], scaled)
                    if isinstance(g, tuple):
                        self._step_rows(i, p, g, c, t, seen)
                    else:
                        self._step_array(i, p, g, self.segments[i][1:3], c, t, seen)
        return True

    def _step_rows(self, i: int, p: Any, gradient: tuple[Any, Any], c: Any, t: int, seen: Seen) -> None:
        """Step some rows of a table, all different."""
        rows, g = gradient
        arrays = (p, *self.segments[i][2])
        copies = [array[rows] for array in arrays]
        self._step_array(i, copies[0], g, (copies[0], tuple(copies[1:])), c, t, seen)
        for array, values in zip(arrays, copies, strict=True):
            array[rows] = values

    def _step_array(self, i: int, p: Any, g: Any, kept: Any, c: Any, t: int, seen: Seen) -> None:
        like, slots = kept
        *slots_, p_, g_ = (_flat(array, like, slots) for array in (*slots, p, g))
        names = self.rule.state_names
        count, work = len(names), arithmetic(p_.dtype)
        before, gradient = (array.astype(work, copy=False) for array in (p_, g_))
        old = [self._read(name, array, p_.size, work) for name, array in zip(names, slots_, strict=False)]
        new_p, *exact = step(self.rule, np, c, before, gradient, *old)

        def stored(x: Any, dtype: Any, role: int) -> Any:
            place = (self.options.seed, t, self.first[i], role, x.size)
            if dtype == np.uint8:
                return _q8.encode(x, self._is_nonnegative(names[role - 1]), _q8.randoms(*place))
            return store(x, dtype, random_numbers(*place) if self.options.stochastic else None)

        new = [stored(within(x, array.dtype), array.dtype, role)
               for role, (x, array) in enumerate(zip(exact, slots_[:count], strict=True), start=1)]  # fmt: skip
        new_p = stored(new_p, p_.dtype, 0)
        if seen is not None and p.size:
            seen.append(observe(self.rule, np, c, i, (before, new_p.astype(work)), gradient, exact))
        if self.options.average:
            new.append(average(c, slots_[count], new_p.astype(work)))
        if self.options.copy:
            new.append(store(new_p, slots_[-1].dtype))
        for array, x in zip((p, *slots), (new_p, *new), strict=True):
            _write(array, x, like, slots)
        if self.options.zero:
            g[...] = 0

    def _is_nonnegative(self, name: str) -> bool:
        return name in self.rule.nonnegative

    def _read(self, name: str, array: Any, n: int, work: Any) -> Any:
        """Return the numbers of a flat array of state."""
        if array.dtype == np.uint8:
            return _q8.decode(array, n, self._is_nonnegative(name))
        return array.astype(work, copy=False)


def step_columns(rule: str, numbers: Any, p: Any, g: Any, state: tuple[Any, ...]) -> None:
    """Take a step of many runs side by side, each with numbers of its own, in float64 (see _engine.pyi)."""
    cls = RULES[rule]
    *coefficients, l2, decay, frozen = (row if (row != row[0]).any() else row.item(0) for row in numbers)
    names = cls.coefficients(cls(), 1)
    c = named(dict(zip(names, coefficients, strict=True)), Stages(l2=l2, decay=decay, frozen=bool(frozen)))
    with flush_denormals(), np.errstate(all="ignore"):
        for array, new in zip((p, *state), step(cls, np, c, p, g, *state), strict=True):
            array[...] = new


def _order(like: Any, slots: tuple[Any, ...]) -> list[int]:
    """Return the axes from the slowest to the fastest, by which the state lies in memory."""
    if slots and slots[0].dtype == np.uint8:
        return list(range(like.ndim))
    strides = (slots[0] if slots else like).strides
    return sorted(range(like.ndim), key=lambda axis: -abs(strides[axis]))


def _in_order(array: Any, like: Any, slots: tuple[Any, ...]) -> Any:
    order = _order(like, slots)
    return as_real(array).transpose([*order, *range(like.ndim, as_real(array).ndim)])


def _given(g: Any, like: Any, slots: tuple[Any, ...]) -> Any:
    """Return the numbers of a gradient, of an array or of some rows."""
    return g[1].reshape(-1) if isinstance(g, tuple) else _flat(g, like, slots)


def _flat(array: Any, like: Any, slots: tuple[Any, ...]) -> Any:
    """Return the real numbers of an array in the order of the state; q8 state as it is."""
    if array.dtype == np.uint8:
        return array
    return _in_order(array, like, slots).reshape(-1)


def _write(array: Any, flat: Any, like: Any, slots: tuple[Any, ...]) -> None:
    view = array if array.dtype == np.uint8 else _in_order(array, like, slots)
    view[...] = flat.reshape(view.shape)
