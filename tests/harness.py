"""What several test modules share: the cases of every rule, the specification as a reference, wild gradients."""

from types import SimpleNamespace
from typing import Any

import numpy as np

import adamas
from adamas import rules
from adamas._native import engine

DTYPES = (np.float32, np.float64)
DECAYS = {
    "no decay": {"weight_decay": 0.0, "decoupled": False},
    "L2": {"weight_decay": 0.01, "decoupled": False},
    "decoupled": {"weight_decay": 0.01, "decoupled": True},
}
RULES = {name: {} for name in rules.RULES} | {
    "Momentum, nesterov": {"nesterov": True},
    "Momentum, damped": {"dampening": 0.5},
}
"""Every rule, and the forms of a rule that its flags make: name -> hyper-parameters."""
WHOLE = [name for name in RULES if name in rules.RULES and rules.RULES[name].trust_ratio]
"""Those whose step looks at whole arrays, so that a part of one is not stepped as the whole."""
ELEMENTWISE = [name for name in RULES if name not in WHOLE]
ISA_LEVELS = [] if engine is None else engine.isa_levels()


def make(case: str, *rate: float, **hyperparameters: Any) -> Any:
    """Return the optimizer of a case of RULES."""
    return getattr(adamas, case.split(",", maxsplit=1)[0])(*rate, **{**RULES[case], **hyperparameters})


def reference(optimizer: Any, p: Any, gradients: Any, start: int = 1) -> tuple[Any, ...]:
    """Return p and its state after the specification's steps in NumPy, all in the dtype of p, denormals flushed."""
    rule = optimizer.rule
    state = tuple(np.zeros_like(p) for _ in rule.state_names)
    carry: dict[str, float] = {}
    with adamas.flush_denormals(), np.errstate(all="ignore"):
        for t, g in enumerate(gradients, start=start):
            c = optimizer.at(t, carry)
            carry = {name: getattr(c, name) for name in rule.first_carry}
            p, *state = rules.step(rule, np, c, p, np.asarray(g, p.dtype), *state)
    return (p, *state)


def wild_gradients(rng: np.random.Generator, steps: int, n: int, dtype: Any) -> list[Any]:
    """Return gradients that span 20 decades, of which a third is so small that squares are flushed, some are zero."""
    tiny = 1e-25 if dtype == np.float32 else 1e-165
    scale = 10.0 ** rng.uniform(-10, 10, n) * np.where(np.arange(n) % 3 == 0, tiny, 1.0)
    gradients = rng.standard_normal((steps, n)) * scale
    gradients[:, 7::50] = 0
    gradients[steps // 2] = 0
    return list(gradients.astype(dtype))


class Watching:
    """What a plan tells of a step: what it saw, and the arrays as they were when it began."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays, self.begun, self.seen = arrays, [], []

    def begin(self) -> None:
        self.begun.append([array.copy() for array in self.arrays])


class EngineSteps:
    """The engine on one list of arrays, whatever ADAMAS_ISA says the package uses."""

    def __init__(self, optimizer: Any, params: list[Any]) -> None:
        kernel = next(cls.__name__ for cls in optimizer.rule.__mro__ if "change" in vars(cls))
        self.optimizer, self.params, self.t = optimizer, params, 0
        self.carry: dict[str, float] = {}
        self.state = [tuple(np.zeros_like(p) for _ in optimizer.rule.state_names) for p in params]
        places = [SimpleNamespace(segment=i, index=0, convert=None) for i in range(len(params))]
        segments = [(0, p, state, False) for p, state in zip(params, self.state, strict=True)]
        self.plan = engine.Plan(kernel, segments, places, 0, optimizer.plan_options)

    def step(self, gradients: list[Any]) -> None:
        self.t += 1
        rule = self.optimizer.rule
        numbers, stages = rule.numbers_at(self.optimizer._hyperparameters[0], self.t, self.carry)
        self.carry = {name: numbers[name] for name in rule.first_carry}
        assert self.plan.step(self.params, gradients, (numbers,), (stages,), self.t, None) is self.params
