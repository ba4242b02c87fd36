"""The compiled engine (engine/module.cpp)."""

from collections.abc import Callable
from typing import Any

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

class TensorPlan:
    """The steps of the parameters in some groups of a torch.optim.Optimizer that share a rule.

    tensor: torch.Tensor. entries: for each parameter of the groups, in order (place of the group, parameter, its dict
        of state or None if it has none yet, the tensor that shows its count of steps there or None, whether its memory
        is what it seems).
    names: of the state in those dicts, in the rule's order. counts: float64, the steps taken by each entry.
    all_states: optimizer.state. make_handles: torch's function that returns capsules of at::Tensor for a list of
        tensors, None if there is none: it saves time.
    """

    def __init__(
        self,
        rule: str,
        tensor: type,
        entries: list[tuple[int, Any, dict[str, Any] | None, Any, bool]],
        names: list[str],
        counts: Any,
        all_states: dict[Any, Any],
        make_handles: Callable[[list[Any]], list[Any]] | None,
    ) -> None: ...
    def others(self) -> list[int]:
        """Return the entries that the engine does not step: for their type, layout or device, or shared memory."""

    def step(
        self,
        groups: list[dict[str, Any]],
        all_states: dict[Any, Any],
        numbers: Callable[[int, float], tuple[dict[str, float], tuple[float, float, float]]],
    ) -> list[Any] | None:
        """Step every parameter that has a gradient, but for the others, and return the list of those parameters.

        Returns None, with nothing changed, if something is not as it was learned: objects, types, layouts, devices,
        memory that is shared.

        numbers: called with (place of a group, t), once for each t in a group, for the coefficients and stages of step
        t = 1.0, 2.0, ...
        """

class Plan:
    """The steps of one tree of parameters.

    segments: (group, array like the parameter, its state arrays, whether it packs floats) for each array, or pack.
    skeleton: the tree with an object that has .segment, .index and .convert in place of each leaf, None if the engine
        cannot walk it.
    t: the steps taken so far, and, of both methods, the step to take; RuntimeError if it is not the next one: then
        another thread is in an update.
    coefficients, stages: for each group, a dict of the rule's coefficients in its order, and (scale, l2, decay).
    """

    def __init__(
        self, rule: str, segments: list[tuple[int, Any, tuple[Any, ...], bool]], skeleton: object, t: int
    ) -> None: ...
    def step(
        self,
        params: Any,
        grads: Any,
        coefficients: tuple[dict[str, float], ...],
        stages: tuple[tuple[float, float, float], ...],
        t: int,
    ) -> Any:
        """Step a tree and return it; return None, with nothing changed, if it is not the one that was learned."""

    def run(
        self,
        params: list[Any],
        grads: list[Any],
        coefficients: tuple[dict[str, float], ...],
        stages: tuple[tuple[float, float, float], ...],
        t: int,
    ) -> None:
        """Step one array per segment, which the caller has checked; a gradient may be None."""
