"""The specification behind the interface of the engine, on NumPy arrays: for machines without a compiler."""

from typing import Any

import numpy as np

from adamas._native import flush_denormals
from adamas.rules import RULES, Stages, named, step

AllStages = tuple[Stages, ...]
Coefficients = tuple[dict[str, float], ...]


class Plan:
    """The same as the engine's Plan (see _engine.pyi), but it recognises no tree: every step goes through `run`."""

    def __init__(
        self, rule: str, segments: list[tuple[int, Any, tuple[Any, ...], bool]], skeleton: object, t: int
    ) -> None:
        self.rule = RULES[rule]
        self.segments = segments

    def step(self, params: object, grads: object, coefficients: Coefficients, stages: AllStages, t: int) -> None:
        """Decline."""

    def run(self, params: list[Any], grads: list[Any], coefficients: Coefficients, stages: AllStages, t: int) -> None:
        """Take a step of one array per segment; a gradient may be None."""
        with flush_denormals(), np.errstate(all="ignore"):
            for (group, _, state, _), p, g in zip(self.segments, params, grads, strict=True):
                if g is None:
                    continue
                c = named(coefficients[group], stages[group])
                new = step(self.rule, np, c, p, g.astype(p.dtype, copy=False), *state)
                for array, value in zip((p, *state), new, strict=True):
                    array[...] = value
