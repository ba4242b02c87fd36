"""Sparse gradients: tables of which each step touches few rows, with the result of dense steps at the cost of those.

A row without a gradient moves all the same in most rules: its means decay, and it goes on by them. Such steps are not
taken but remembered; a row makes up for all that it has missed when it is needed, in closed form or one by one
(`_lapses`, engine/lapses.cpp). Only then is its gradient right, so it must be brought up to date before it is read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adamas import _tree
from adamas._backend import Lapses, add_same_rows, find_same_rows
from adamas._formats import REALS, arithmetic
from adamas._history import History
from adamas._lapses import FORMS
from adamas._memory import Memory, kernel_name
from adamas.rules import Rule, Stages

if TYPE_CHECKING:
    from adamas._optimizer import Optimizer

MODES = ("exact", "replay", "lazy")

CAPACITY = 65_536
"""Steps that are remembered at most; rows that are not needed for as long are brought up to date meanwhile."""

DENSE_FROM = 0.2
"""The share of rows from which a step goes through the whole table in one pass, which is then faster."""


@dataclass(frozen=True, eq=False)
class RowSparse:
    r"""The gradient of a table, an array of at least one axis, that is zero but for some rows.

    rows: integers of shape (k,), from 0 to len(table) - 1, in any order. A row may come more than once: then its
        gradients are added, in order.
    values: floating-point numbers of shape (k, \*table.shape[1:]).

    Raises TypeError or ValueError if they are not such.
    """

    rows: NDArray[np.int64]
    values: NDArray[Any]

    def __init__(self, rows: ArrayLike, values: ArrayLike) -> None:
        object.__setattr__(self, "rows", checked_rows("rows", rows))
        object.__setattr__(self, "values", np.ascontiguousarray(values))
        if self.values.dtype not in REALS:
            raise TypeError(f"values is {self.values.dtype.name}: gradients are real floating-point numbers")
        if self.values.ndim == 0 or len(self.values) != len(self.rows):
            raise ValueError(
                f"values has shape {self.values.shape}, and there are {len(self.rows)} rows: there must be as many"
            )

    def dense(self, size: int) -> NDArray[Any]:
        """Return the same gradient as an array of so many rows, in float32 if the values have fewer bits."""
        array = np.zeros((size, *self.values.shape[1:]), arithmetic(self.values.dtype))
        places = self.rows.astype(np.int32)
        add_same_rows(places, self.values.astype(array.dtype, copy=False), array)
        return array


def checked_rows(name: str, rows: Any) -> NDArray[np.int64]:
    """Return row numbers as an int64 vector; raise TypeError or ValueError, with the name, if they are none."""
    array = np.asarray(rows)
    if array.size == 0 and not isinstance(rows, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} is {array.dtype.name}: row numbers are integers")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: row numbers are a vector, as in {name}.reshape(-1)")
    return np.ascontiguousarray(array, np.int64)


def as_rows(name: str, grad: Any) -> RowSparse | None:
    """Return a sparse gradient of any library as ours, None if it is not sparse; raise TypeError if it cannot be."""
    if isinstance(grad, RowSparse) or grad is None or isinstance(grad, np.ndarray | int | float):
        return grad if isinstance(grad, RowSparse) else None
    library = type(grad).__module__.partition(".")[0]
    if library == "scipy" and hasattr(grad, "tocsr"):
        matrix = grad.tocsr()
        rows = np.flatnonzero(np.diff(matrix.indptr))
        return RowSparse(rows, matrix[rows].toarray())
    if library == "torch" and getattr(grad, "is_sparse", False):
        grad = grad.detach()
        if grad.sparse_dim() != 1:
            raise TypeError(
                f"{name} is sparse in {grad.sparse_dim()} dimensions: of a table only rows can be left out, as by "
                "torch.nn.Embedding(sparse=True)"
            )
        return RowSparse(grad._indices()[0].numpy(), grad._values().numpy())
    return None


class Table:
    """A parameter that has had sparse gradients.

    last: int32, the step of the table in which each row was stepped last. touched: the rows that have a gradient in the
    step that is being taken, None if all have. forgotten: where to go on bringing rows up to date.
    """

    def __init__(self, mode: str, rule: str, height: int, *, stepped: bool) -> None:
        self.mode, self.rule, self.forgotten = mode, rule, 0
        self.lapses: Any = Lapses(rule, CAPACITY)
        self.last = np.zeros(height, np.int32)
        self.constants: dict[str, float] | None = None
        self.stepped = stepped  # before it had a sparse gradient
        self.touched: NDArray[np.int64] | None = None
        self.group = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "lapses": (self.lapses.count, self.lapses.history(_first_step(self)))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        count, steps = state["lapses"]
        self.lapses = Lapses(self.rule, CAPACITY)
        if count:
            self.lapses.restore(_first_step(self, count), steps)

    def catch_up(self, p: Any, state: tuple[Any, ...], rows: NDArray[np.int64] | None = None) -> None:
        """Make up for what rows, or all of them, have missed."""
        if self.mode != "lazy" and self.lapses.count:
            self.lapses.catch_up(p, state, self.last, rows, self.mode == "exact")

    def summed(self, name: str, grad: RowSparse) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return rows that all differ, and the sum of the gradients of each; raise ValueError if one is behind."""
        places = np.empty(len(grad.rows), np.int32)
        count = find_same_rows(grad.rows, self.last, self.lapses.count, places)
        if count < 0:
            raise ValueError(
                f"row {grad.rows[-1 - count]} of {name} is behind, so its gradient was taken at an old value: call "
                "opt.prepare(params, rows) with the rows of a step before they are read"
            )
        if count == len(places):
            return grad.rows, grad.values
        values = grad.values.astype(arithmetic(grad.values.dtype), copy=False)
        sums = np.zeros((count, *values.shape[1:]), values.dtype)
        add_same_rows(places, values, sums)
        rows = np.empty(count, np.int64)
        rows[places[::-1]] = grad.rows[::-1]
        return rows, sums

    def finish(self, numbers: tuple[Mapping[str, float], Stages, int], p: Any, state: tuple[Any, ...]) -> None:
        """Remember the step that was just taken."""
        if self.mode == "lazy":
            return
        if self.stepped:  # all rows have something to go on by
            self.lapses.record(*numbers)
            self.last[...], self.stepped = 1, False
        self.lapses.record(*numbers)
        count = self.lapses.count
        self.last[slice(None) if self.touched is None else self.touched] = count
        every = max(1, CAPACITY // 256)
        if count % every == 0:  # so that no row falls back too far
            some = -(-len(self.last) // (CAPACITY // every - 2))
            rows = np.arange(self.forgotten, min(self.forgotten + some, len(self.last)))
            self.forgotten = (self.forgotten + some) if self.forgotten + some < len(self.last) else 0
            self.catch_up(p, state, rows)


def found(params: Any, grads: Any) -> bool:
    """Return whether a tree of gradients has sparse ones."""
    entries = zip(_tree.leaves(params), _tree.matched(params, grads), strict=True)
    return any(as_rows(_tree.access("grads", keys), g) is not None for (keys, _), g in entries)


def prepare(optimizer: "Optimizer", params: Any, rows: Any) -> None:
    """Bring rows up to date; see `Optimizer.prepare`."""
    entries = []
    for (keys, p), some in zip(_tree.leaves(params), _tree.matched(params, rows, "rows"), strict=True):
        if some is None:
            continue
        name = _tree.access("rows", keys)
        numbers = checked_rows(name, some)
        check_inside(name, numbers, _tree.access("params", keys), p)
        entries.append((keys, p, numbers))
    for keys, p, numbers in entries:
        path = _tree.path(keys)
        if path in optimizer._memory.tables:
            optimizer._memory.tables[path].catch_up(p, *_state(optimizer._memory, keys, p), numbers)


def flush(optimizer: "Optimizer", params: Any) -> None:
    """Bring all rows up to date; see `Optimizer.flush`."""
    values = {_tree.path(keys): (keys, p) for keys, p in _tree.leaves(params)}
    for path, table in optimizer._memory.tables.items():
        if path not in values:
            raise ValueError(f"params has no {path!r}, of which rows are behind: pass the parameters that are stepped")
        keys, p = values[path]
        table.catch_up(p, *_state(optimizer._memory, keys, p))


def check_inside(name: str, rows: NDArray[np.int64], param_name: str, p: Any) -> None:
    """Raise TypeError or ValueError unless rows are of a parameter that has such."""
    if not isinstance(p, np.ndarray) or p.ndim == 0:
        raise TypeError(f"{name} is given, but {param_name} is {_tree.described(p)}: only arrays have rows")
    if len(rows) and not 0 <= (low := int(rows.min())) <= (high := int(rows.max())) < len(p):
        wrong = low if low < 0 else high
        raise ValueError(f"{name} has the row {wrong}, but {param_name} has rows 0 to {len(p) - 1}")


def _state(memory: Memory, keys: _tree.Keys, p: Any) -> tuple[tuple[Any, ...]]:
    """Return the state of a table; raise ValueError if the parameter is not the one that it is of."""
    leaf = memory.leaves[_tree.path(keys)]
    if not isinstance(p, np.ndarray) or (p.dtype.name, p.shape) != leaf.kind[1:] or not p.flags.c_contiguous:
        raise ValueError(
            f"{_tree.access('params', keys)} is {_tree.described(p)}, but an array of {leaf.kind[1]}, shape "
            f"{leaf.kind[2]}, in C order was stepped: pass the parameters that are stepped"
        )
    return (memory.segments[leaf.segment].state,)


class SparseStep:
    """A step in which some gradients are sparse, between the look at its gradients and what is remembered of it.

    grads: a tree for the plan, with (rows that all differ, their gradients) for what is sparse.

    Raises TypeError or ValueError, with nothing changed, if something is wrong.
    """

    def __init__(
        self, optimizer: "Optimizer", params: Any, grads: Any, numbers: tuple[Any, Any, int], history: History | None
    ) -> None:
        if history is not None:
            raise ValueError("history records whole arrays, and some have sparse gradients: leave it out")
        self.memory, self.numbers, self.optimizer = optimizer._memory, numbers, optimizer
        memory = optimizer._memory
        groups = optimizer._groups_of(params) if not memory.leaves else {}
        self.tables: dict[str, tuple[Table, Any]] = {}
        entries = list(zip(_tree.leaves(params), _tree.matched(params, grads), strict=True))
        taken = []
        for (keys, p), g in entries:  # first all checks
            path, name = _tree.path(keys), _tree.access("grads", keys)
            sparse, table = as_rows(name, g), memory.tables.get(path)
            if sparse is not None:
                self._check(name, sparse, _tree.access("params", keys), p)
                if table is None:
                    table = Table(optimizer.sparse, kernel_name(optimizer.rule), len(p), stepped=memory.t > 0)
            if table is not None:
                leaf = memory.leaves.get(path)
                table.group = groups.get(path, 0) if leaf is None else memory.segments[leaf.segment].group
                self._check_numbers(table, _tree.access("params", keys))
            summed = None if sparse is None or table is None else table.summed(_tree.access("params", keys), sparse)
            taken.append((keys, p, summed, table, g))
        self.grads = _tree.replace(params, iter([self._given(*entry) for entry in taken]), in_place=False)

    def _check(self, name: str, sparse: RowSparse, param_name: str, p: Any) -> None:
        """Raise unless a sparse gradient is one of this parameter, and its steps can be deferred."""
        check_inside(name, sparse.rows, param_name, p)
        if sparse.values.shape[1:] != p.shape[1:]:
            raise ValueError(
                f"{name} has rows of shape {sparse.values.shape[1:]}, but {param_name} has rows of shape {p.shape[1:]}"
            )
        optimizer, mode = self.optimizer, self.optimizer.sparse
        trouble = ""
        if p.dtype not in REALS or not p.flags.c_contiguous:
            trouble = (
                f"{param_name} is {p.dtype.name}{'' if p.flags.c_contiguous else ', not in C order'}: rows are of "
            )
            trouble += "real arrays in C order"
        elif mode == "exact" and p.dtype != np.float32:
            trouble = f"{param_name} is {p.dtype.name}: sparse='exact' is for float32; use sparse='replay'"
        elif mode == "exact" and kernel_name(optimizer.rule) not in FORMS:
            trouble = (
                f"the steps of {optimizer.rule.__name__} without a gradient have no closed form, as those of "
                f"{', '.join(FORMS)} and AdamW have: use sparse='replay' or 'lazy'"
            )
        for option in ("ema", "weight_copy", "zero_grads", "stochastic_rounding"):
            if optimizer.option(option):
                trouble = f"{option} is for all numbers of a parameter in each step: leave it out with sparse gradients"
        if optimizer.option("state_format") == "q8":
            trouble = "state_format='q8' keeps 256 numbers together, not rows: use 'float32' or 'bfloat16'"
        if optimizer.looks_at_arrays(0):
            trouble = "cautious, update_clip and trust_ratio look at all of a parameter: leave them out"
        if trouble:
            raise ValueError(f"{name} is sparse, but {trouble}")

    def _check_numbers(self, table: Table, name: str) -> None:
        stages = self.numbers[1][table.group]
        if table.mode == "lazy":
            return
        if not stages.decay < 1:
            raise ValueError(
                f"learning_rate * weight_decay is {stages.decay:g}: with sparse gradients it must be below 1"
            )
        if stages.l2 and table.mode == "exact":
            raise ValueError(
                f"weight_decay is coupled: it gives every row of {name} a gradient in every step, so steps without one "
                "have no closed form. Use decoupled=True, or sparse='replay'"
            )
        c = self.numbers[0][table.group]
        if table.mode == "exact" and c.get("epsilon") == 0 and c.get("beta1", 0) ** 2 >= c.get("beta2", 1):
            raise ValueError(
                "epsilon is 0 and beta1**2 is at least beta2: then steps without a gradient grow without end. Use "
                "another epsilon, or sparse='replay'"
            )

    def _given(self, keys: _tree.Keys, p: Any, summed: Any, table: Table | None, g: Any) -> Any:
        """Return the gradient as the plan takes it."""
        if table is None or g is None:
            return g
        path = _tree.path(keys)
        self.tables[path] = table, p
        known = path in self.memory.leaves
        c = self.numbers[0][table.group]
        constants = {name: c[name] for name in ("beta1", "beta2", "epsilon", "momentum", "nesterov") if name in c}
        if known and table.mode == "exact" and table.constants not in (None, constants):
            table.catch_up(p, *_state(self.memory, keys, p))
        table.constants = constants
        table.touched = None
        if summed is not None:
            rows, values = summed
            if table.mode != "exact" or len(rows) < DENSE_FROM * len(p):
                table.touched = rows
                return rows, values
            g = np.zeros(p.shape, values.dtype)
            g[rows] = values
        if known:
            table.catch_up(p, *_state(self.memory, keys, p))
        return g

    def finish(self) -> None:
        """Remember the step, which was taken."""
        coefficients, stages, t = self.numbers
        for path, (table, p) in self.tables.items():
            self.memory.tables[path] = table
            state = self.memory.segments[self.memory.leaves[path].segment].state
            table.finish((coefficients[table.group], stages[table.group], t), p, state)


# --- checkpoints ------------------------------------------------------------------------------------------------------

ROW_ARRAYS = ("rows.last", "rows.steps")
"""What the names of the arrays begin with that are kept of rows."""


def described(memory: Memory) -> dict[str, dict[str, Any]]:
    """Return what is to be kept of each table beside its arrays, by its path, as JSON holds it."""
    return {
        path: {"mode": t.mode, "count": t.lapses.count, "forgotten": t.forgotten, "constants": t.constants,
               "stepped": t.stepped}
        for path, t in memory.tables.items()
    }  # fmt: skip


def row_arrays(memory: Memory) -> Iterator[tuple[str, Any]]:
    """Yield the names and arrays of what is to be kept of rows."""
    for path, table in memory.tables.items():
        if table.mode != "lazy":
            yield f"rows.last/{path}", table.last
            yield f"rows.steps/{path}", table.lapses.history(_first_step(table))


def _first_step(table: Table, count: int | None = None) -> int:
    """Return the first step that is still needed, of as many as were taken."""
    taken: int = table.lapses.count if count is None else count
    return max(1, min(int(table.last.min(initial=taken)), taken))


def restored(rule: type[Rule], about: Mapping[str, Any], height: int, last: Any, steps: Any) -> Table:
    """Return a table as it was described, with its arrays, None if it is lazy; raise ValueError if it cannot be one."""
    mode, count, forgotten = about["mode"], about["count"], about["forgotten"]
    if mode not in MODES or type(about["stepped"]) is not bool or not type(count) is type(forgotten) is int:
        raise ValueError(f"{about!r:.60} for rows")
    table = Table(mode, kernel_name(rule), height, stepped=about["stepped"])
    table.forgotten, table.constants = forgotten, about["constants"]
    if last is None:
        return table
    table.last[...] = last
    right = 0 <= forgotten < max(1, height) and table.last.min(initial=0) >= 0 and 0 <= count < 2**31
    if not right or table.last.max(initial=0) > count or count - table.last.min(initial=count) >= CAPACITY:
        raise ValueError("the last steps of the rows are not such")
    first = _first_step(table, count)
    if len(steps) != (count - first + 1 if count else 0):
        raise ValueError(f"{len(steps)} steps of the {count - first + 1} that rows may have missed")
    if count:
        table.lapses.restore(first, steps)
    return table
