"""A conformance kit for anyone who writes an Adam: does it take the right steps, and which form of the rule is it?

``conforms(step, rule="adamw", dtype="float32")`` runs a step function against trajectories of 50 digits.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from adamas._golden import FILE, FIRST, SHOWN, STEPS, Form, forms_of, gradients, key_of, trajectory
from adamas.rules import RULES, Rule

__all__ = ["Report", "adamas_step", "conforms", "optax_step", "torch_step"]

Array = Any
Step = Callable[[Array, Array, Any], tuple[Array, Any]]
"""Called with parameters, gradients and the state that it returned last (None at first): returns both anew."""

DTYPES = ("float64", "float32", "bfloat16", "float16")
KNOWN = {"float64": 1e6, "float32": 1000.0, "bfloat16": 1000.0, "float16": 1000.0}
"""The spacings above which a trajectory is of no known form. (Bias corrections in float64 lose some digits too.)"""


@dataclass(frozen=True)
class Report:
    """What was found.

    spacings: the largest deviation from the nearest form's exact trajectory, in distances between neighbouring numbers
    of the format. epsilon, decay, maximum: that form, None where the rule has but one; "?" where no form is near, or
    they cannot be told apart. failures: what went wrong on special gradients. tried: what was tried.
    """

    rule: str
    dtype: str
    spacings: float
    epsilon: str | None
    decay: str | None
    maximum: str | None
    failures: tuple[str, ...]
    tried: tuple[str, ...]

    @property
    def conforms(self) -> bool:
        """Whether the steps are those of a known form and nothing went wrong."""
        return self.spacings <= KNOWN[self.dtype] and not self.failures

    def __str__(self) -> str:
        forms = {"epsilon": self.epsilon, "decay": self.decay, "maximum": self.maximum}
        lines = [f"{self.rule}, {self.dtype}: at most {self.spacings:.3g} spacings from exact"]
        lines += [f"  {name}: {form}" for name, form in forms.items() if form is not None]
        lines += [f"  fails: {failure}" for failure in self.failures] or ["  fails nothing that was tried"]
        return "\n".join(lines)


def conforms(step: Step, rule: str = "adamw", dtype: str = "float32", *, like: str = "numpy", **hyper: Any) -> Report:
    """Run a step function against exact trajectories, and on special gradients; return what was found.

    step: ``p, state = step(p, g, state)``, state being None at first; p, of 12 numbers, may be overwritten. It must
    start anew for each None. If it has ``count(state)`` and ``set_count(state, n)``, counting past 2**24 is tried.
    rule: a name of `adamas.rules`, in any case. dtype: of p and g, "float64", "float32", "bfloat16" or "float16".
    like: what p and g are arrays of: "numpy", "torch" or "jax".
    hyper: hyper-parameters that differ from the rule's defaults in `adamas`; then mpmath is needed.

    Raises TypeError or ValueError for anything else.
    """
    known = _rule(rule)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if like not in ("numpy", "torch", "jax"):
        raise ValueError(f"like must be 'numpy', 'torch' or 'jax', got {like!r}")
    for name, value in hyper.items():
        if name not in known.ranges:
            raise TypeError(f"{known.__name__} has no {name!r}: it has {', '.join(known.ranges)}")
        hyper[name] = known.checked(name, value)
    run = _Run(step, dtype, like)
    deviations = _deviations(run, known, hyper)
    form, least = min(deviations.items(), key=lambda item: item[1])
    alike = [f for f, deviation in deviations.items() if deviation <= 2 * least + 1] if least <= KNOWN[dtype] else []

    def told(i: int) -> str | None:
        if form is None or form[i] is None:
            return None
        return form[i] if {f[i] for f in alike if f is not None} == {form[i]} else "?"

    failures, tried = _special(run, bool(hyper.get("weight_decay", known.weight_decay)))
    return Report(known.__name__, dtype, least, told(0), told(1), told(2), tuple(failures), tuple(tried))


def _rule(name: str) -> type[Rule]:
    names = {known.lower(): rule for known, rule in RULES.items() if not rule.trust_ratio}
    if name.lower() not in names:
        raise ValueError(f"rule must be one of {', '.join(names)}, got {name!r}")
    return names[name.lower()]


class _Run:
    """A step function, on NumPy arrays of a format."""

    def __init__(self, step: Step, dtype: str, like: str) -> None:
        self.step, self.dtype, self.like = step, np.dtype(getattr(ml_dtypes, dtype, dtype)), like

    def __call__(self, p: Any, g: Any, state: Any) -> tuple[Any, Any, Any]:
        """Return the new parameters, as they are and in float64, and state."""
        with np.errstate(all="ignore"):  # some gradients are meant to overflow
            p, state = self.step(p, self.given(g), state)
        return p, self.numbers(p), state

    def given(self, numbers: Any) -> Any:
        """Return numbers as the step function takes them."""
        with np.errstate(all="ignore"):
            array = np.array(numbers, np.float64).astype(self.dtype)
        if self.like == "torch":
            import torch  # noqa: PLC0415 - optional

            return torch.tensor(array.astype(np.float64), dtype=getattr(torch, self.dtype.name))
        if self.like == "jax":
            import jax.numpy as jnp  # noqa: PLC0415 - optional

            return jnp.asarray(array)
        return array

    def numbers(self, p: Any) -> Any:
        """Return what a step returned in float64."""
        if self.like == "torch":
            p = p.detach().double().numpy()
        return np.asarray(p).astype(np.float64)

    def spacings(self, off: Any, sizes: Any) -> float:
        """Return the largest deviation, in distances between neighbours as large as sizes; NaN counts as infinite."""
        info: Any = ml_dtypes.finfo(self.dtype)  # type: ignore[no-untyped-call]
        unit = np.maximum(2.0 ** np.floor(np.log2(np.maximum(sizes, 1e-300))), float(info.tiny)) * float(info.eps)
        most = float(np.max(np.abs(off) / unit))
        return math.inf if math.isnan(most) else most


def _deviations(run: _Run, rule: type[Rule], hyper: dict[str, Any]) -> dict[Form | None, float]:
    """Return how far the step function is from each form of a rule."""
    kind = "narrow" if run.dtype == np.float16 else "wide"
    p, state, shown = run.given(FIRST), None, []
    for t, g in enumerate(gradients(kind), start=1):
        p, numbers, state = run(p, g, state)
        if t in SHOWN:
            shown.append(numbers)
    assert t == STEPS
    shipped = {} if hyper else json.loads(FILE.read_text())
    of_adam = rule.__name__ in ("Adam", "AdamW", "AMSGrad")
    forms = forms_of(rule.__name__, hyper.get("weight_decay", rule.weight_decay)) if of_adam else [None]
    found: dict[Form | None, float] = {}
    for form in forms:
        key = key_of(rule.__name__, form, kind)
        exact = np.array(shipped[key] if shipped else trajectory(rule.__name__, form, hyper, kind))
        largest = np.maximum.accumulate(
            np.maximum(np.abs(exact), np.abs(FIRST))
        )  # so far: what is small now was larger
        found[form] = run.spacings(np.array(shown) - exact, largest)
    return found


def _special(run: _Run, decays: bool) -> tuple[list[str], list[str]]:
    """Return what goes wrong on special gradients, and what was tried; decays: whether weights do."""
    info: Any = ml_dtypes.finfo(run.dtype)  # type: ignore[no-untyped-call]
    huge, least = float(info.max) / 2, float(info.smallest_subnormal)
    cases = {
        "a gradient of zero": [0.0] * 3,
        "subnormal gradients": [least, -least, 3 * least],
        "huge gradients": [huge, -huge, huge],
    }
    failures, tried = [], [*cases]
    for name, numbers in cases.items():
        p, state = run.given([1.0] * 12), None
        shown = np.ones(12)
        for g in numbers:
            p, shown, state = run(p, [g] * 12, state)
        if np.isnan(shown).any():
            failures.append(f"{name}: NaN")
        elif name == "a gradient of zero" and not decays and (shown != 1).any():
            failures.append(f"{name}: moves by {np.abs(shown - 1).max():.2g}")
    step: Any = run.step
    if hasattr(step, "set_count"):
        tried.append("step 2**24")
        p, state = run.given([1.0] * 12), None
        p, _, state = run(p, [1.0] * 12, state)
        step.set_count(state, 2**24)
        _, _, state = run(p, [1.0] * 12, state)
        if step.count(state) != 2**24 + 1:
            failures.append(f"step 2**24: counts {step.count(state):.0f} then")
    return failures, tried


# --- step functions of optimizers -------------------------------------------------------------------------------------


class torch_step:
    """The steps of an optimizer of PyTorch: ``torch_step(lambda params: torch.optim.AdamW(params))``, like="torch"."""

    def __init__(self, make: Callable[[list[Any]], Any]) -> None:
        self.make = make

    def __call__(self, p: Any, g: Any, state: Any) -> tuple[Any, Any]:
        import torch  # noqa: PLC0415 - optional

        if state is None:
            parameter = torch.nn.Parameter(p.detach().clone())
            state = parameter, self.make([parameter])
        parameter, optimizer = state
        parameter.grad = g
        optimizer.step()
        return parameter, state

    def count(self, state: Any) -> float:
        """Return the steps that the optimizer has counted."""
        parameter, optimizer = state
        return float(optimizer.state[parameter]["step"])

    def set_count(self, state: Any, n: int) -> None:
        """Let the optimizer have counted n steps."""
        parameter, optimizer = state
        optimizer.state[parameter]["step"].fill_(n)


def optax_step(transformation: Any) -> Step:
    """Return the steps of a transformation of optax: ``optax_step(optax.adamw(1e-3))``, for like="jax"."""
    import jax  # noqa: PLC0415 - optional
    import optax  # noqa: PLC0415 - optional

    update = jax.jit(transformation.update)

    def step(p: Any, g: Any, state: Any) -> tuple[Any, Any]:
        changes, state = update(g, transformation.init(p) if state is None else state, p)
        return optax.apply_updates(p, changes), state

    return step


def adamas_step(make: Callable[[], Any]) -> Step:
    """Return the steps of an optimizer of this package: ``adamas_step(lambda: adamas.AdamW())``."""

    def step(p: Any, g: Any, state: Any) -> tuple[Any, Any]:
        optimizer = make() if state is None else state
        return optimizer.update(p, g), optimizer

    return step
