"""The compiled engine (engine/module.cpp)."""

from collections.abc import Callable
from typing import Any

from adamas._watch import Watch
from adamas.rules import Stages

def rules() -> dict[str, tuple[list[str], list[str]]]:
    """Return the names of state and coefficients of every rule, in order."""

def isa_levels() -> list[str]:
    """Return the instruction sets that this machine runs, best first."""

def isa() -> str:
    """Return the instruction set in use."""

def use_isa(isa: str) -> None:
    """Use another instruction set; ValueError if this machine does not run it."""

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def set_flush_denormals(on: bool) -> bool:
    """Set whether this thread reads and writes denormal numbers as zero; return whether it did."""

def find_same_rows(rows: Any, last: Any, present: int, places: Any) -> int:
    """Find the place of each of the rows among those that differ, in order of appearance; return how many these are.

    rows: int64 of shape (k,). last: int32, the step in which each row of the table was stepped last. places: int32 of
    shape (k,), to be written. Returns -1 - i, with nothing found, if row i was not stepped last in the present step.
    """

def add_same_rows(places: Any, values: Any, sums: Any) -> None:
    """Add each row of values to the one of its place in sums, in order: both float32, or float64, in C order."""

def step_columns(rule: str, numbers: Any, p: Any, g: Any, state: tuple[Any, ...]) -> None:
    """Take a step of runs side by side, each with numbers of its own.

    p, g, and state, the rule's in its order: float64 of shape (..., runs), in C order; p and state are overwritten.
    numbers: of shape (k, runs): the rule's coefficients in its order, coupled and decoupled weight decay, and whether
        the step is frozen. In a row of them either all or none may be 0, and all on the same side of 1/2.
    ValueError, with nothing changed, for other arrays.
    """

class Traffic:
    """Reads and writes of memory, side by side as in a step, without arithmetic: what memory allows.

    passes: one after the other, each a list of groups: arrays of uint8 in C order, and whether each is written, as it
    was. In a group all are read from their beginning to their end at the same time. ValueError for other arrays.
    """

    def __init__(self, passes: list[list[list[tuple[Any, bool]]]]) -> None: ...
    def run(self) -> None: ...

class Lapses:
    """The steps that rows of a table have missed.

    capacity: how many steps back a row may have been stepped last. closed: whether the steps of this rule without a
    gradient have a closed form. count: the steps that were recorded.
    """

    def __init__(self, rule: str, capacity: int) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def count(self) -> int: ...
    def record(self, coefficients: dict[str, float], stages: Stages, t: int) -> None:
        """Add a step."""

    def catch_up(self, p: Any, state: tuple[Any, ...], last: Any, rows: Any, exact: bool) -> None:
        """Make up for what rows (int64 of shape (k,); None: all) have missed.

        p: the table; state: its arrays in the rule's order; last: int32, the step in which each row was stepped last,
        which becomes the present one. exact: in closed form, of float32; otherwise step by step, to the bit. ValueError,
        with nothing changed, for other arrays.
        """

    def history(self, first: int) -> Any:
        """Return the steps from `first` on: float64, a row for each."""

    def restore(self, first: int, history: Any) -> None:
        """Remember the steps that `history` returned."""

class TensorPlan:
    """The steps of the parameters in some groups of a torch.optim.Optimizer that share a rule.

    tensor: torch.Tensor. entries: for each parameter of the groups, in order (place of the group, parameter, its dict
        of state or None if it has none yet, the tensor that shows its count of steps there or None, whether its memory
        is what it seems, its place among all parameters of the optimizer, the number of its first block of 256
        elements there: see `random_blocks`).
    names: of what is remembered in those dicts: the rule's state in its order, the average and the copy if the options
        ask for them. counts: float64, the steps taken by each entry, in a
        column. carried: the places of the coefficients that live across steps; carries: float64, those of each entry,
        in a row.
    all_states: optimizer.state. make_handles: torch's function that returns capsules of at::Tensor for a list of
        tensors, None if there is none: it saves time. options: as of Plan.
    """

    def __init__(
        self,
        rule: str,
        tensor: type,
        entries: list[tuple[int, Any, dict[str, Any] | None, Any, bool, int, int]],
        names: list[str],
        counts: Any,
        carried: list[int],
        carries: Any,
        all_states: dict[Any, Any],
        make_handles: Callable[[list[Any]], list[Any]] | None,
        options: tuple[bool, bool, bool, bool, int],
    ) -> None: ...
    def others(self) -> list[int]:
        """Return the entries that the engine does not step: for their type, layout or device, or shared memory."""

    def read(
        self,
        groups: list[dict[str, Any]],
        all_states: dict[Any, Any],
        numbers: Callable[[int, float, tuple[float, ...]], tuple[dict[str, float], Stages]],
    ) -> bool:
        """Read every parameter that has a gradient, but for the others, for a step that `run` takes.

        Returns False, with nothing changed, if something is not as it was learned: objects, types, layouts, devices,
        memory that is shared. RuntimeError while another thread is between `read` and the end of `run`.

        numbers: called with (place of a group, t, what lives across steps), once for each such in a group, for the
        coefficients and stages of step t = 1.0, 2.0, ...
        """

    def norm(self) -> tuple[float, bool]:
        """Return the norm of the gradients that were read, together, and whether all their numbers are finite."""

    def run(self, factor: float, seen: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """Take the step that was read, with all gradients multiplied by a factor; return the list of parameters.

        seen: as of the watch of Plan; the places are those of the entries.
        """

    def drop(self) -> None:
        """Forget what was read."""

class Plan:
    """The steps of one tree of parameters.

    segments: (group, array like the parameter, the arrays that are remembered of it, whether it packs floats) for each
        array, or pack. What is remembered is the rule's state, the average and the copy if the options ask for them.
    skeleton: the tree with an object that has .segment, .index and .convert in place of each leaf, None if the engine
        cannot walk it.
    t: the steps taken so far, and, of both methods, the step to take; RuntimeError if it is not the next one: then
        another thread is in an update.
    options: whether there is an average, whether there is a copy, whether gradients are set to zero, whether what is
        kept in bfloat16 is rounded at random, and the seed of that and of the rounding to q8, which always is.
    coefficients, stages: for each group, a dict of the rule's coefficients in its order, and the stages.
    judge: None, or a function that is called, before anything is changed, with the norm of all gradients together and
        whether they are finite; it returns what to multiply them by, or None not to take the step.
    watch: None, or what has a method `begin`, called before anything is changed in a step that is taken, and a list
        `seen`, to which the `Statistics` of each segment that is not empty and has a gradient are added, as tuples;
        their places are those of the segments.
    """

    def __init__(
        self,
        rule: str,
        segments: list[tuple[int, Any, tuple[Any, ...], bool]],
        skeleton: object,
        t: int,
        options: tuple[bool, bool, bool, bool, int],
    ) -> None: ...
    def step(
        self,
        params: Any,
        grads: Any,
        coefficients: tuple[dict[str, float], ...],
        stages: tuple[Stages, ...],
        t: int,
        judge: Callable[[float, bool], float | None] | None,
        watch: Watch | None = None,
    ) -> Any:
        """Step a tree and return it; None if it is not the one that was learned, False if the judge said None.

        In both of these cases nothing has changed.
        """

    def run(
        self,
        params: list[Any],
        grads: list[Any],
        coefficients: tuple[dict[str, float], ...],
        stages: tuple[Stages, ...],
        t: int,
        judge: Callable[[float, bool], float | None] | None,
        watch: Watch | None = None,
    ) -> bool:
        """Step one array per segment, which the caller has checked; a gradient may be None.

        Returns False, with nothing changed, if the judge said None.
        """
