"""Trajectories at 50 digits, which `adamas.testing` compares with; ``python -m adamas._golden`` writes golden.json.

Adam's own are written out here, in each form that libraries have; those of the other rules are the specification's on
numbers of mpmath.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from adamas.rules import RULES, named, step

FILE = Path(__file__).parent / "golden.json"
STEPS, SHOWN = 20, (1, 2, 5, 20)
"""How many steps there are, and after which the parameters are compared."""

FIRST = (0.0, 0.5, 0.0, -1.25, 0.0, 2.0, 0.0, -0.75, 0.0, 1.0, 0.0, -3.0)
EXPONENTS = {
    "wide": (-30, -27, -24, -20, -13, -7, -3, 0, 0, 3, 7, 13),
    "narrow": (-7, -6, -5, -4, -3, -2, -1, 0, 0, 1, 2, 4),
}
"""Of the magnitudes of the gradients: for float16 they must be narrow."""

EPSILONS = ("after the correction", "before the correction", "inside the root")
DECAYS = ("none", "coupled", "decoupled", "decoupled, not times the learning rate")
MAXIMA = ("of the raw second moment", "of the corrected second moment")


class Form(NamedTuple):
    """A form of Adam: where epsilon is added, how weights decay and, of AMSGrad, what the maximum is of."""

    epsilon: str = EPSILONS[0]
    decay: str = DECAYS[0]
    maximum: str | None = None


def gradients(kind: str) -> list[list[float]]:
    """Return the gradients of each step: eighths of powers of two, so exact in every format; a few are 0."""
    number, steps = 1, []
    for _ in range(STEPS):
        row = []
        for exponent in EXPONENTS[kind]:
            number = (1103515245 * number + 12345) % 2**31
            row.append((number // 65536 % 17 - 8) / 8 * 2.0**exponent)
        steps.append(row)
    return steps


def forms_of(rule: str, weight_decay: float) -> list[Form]:
    """Return the forms of a rule of Adam's kind that can be told apart."""
    decays = DECAYS[1:] if weight_decay else DECAYS[:1]
    return [Form(*x) for x in itertools.product(EPSILONS, decays, MAXIMA if rule == "AMSGrad" else (None,))]


def adam(form: Form, h: SimpleNamespace, p: Any, grads: Sequence[Any]) -> list[Any]:
    """Return p after each step of Adam in one of its forms."""
    from mpmath import sqrt  # noqa: PLC0415 - optional

    m = v = most = 0 * p
    path = []
    for t, gradient in enumerate(grads, start=1):
        g = gradient + h.weight_decay * p if form.decay == "coupled" else gradient
        bc1, bc2 = 1 - h.beta1**t, 1 - h.beta2**t
        m, v = h.beta1 * m + (1 - h.beta1) * g, h.beta2 * v + (1 - h.beta2) * g * g
        v_hat = v / bc2
        if form.maximum is not None:
            most = max(most, v if form.maximum == MAXIMA[0] else v_hat)
            v_hat = most / bc2 if form.maximum == MAXIMA[0] else most
        denominator = {
            EPSILONS[0]: sqrt(v_hat) + h.epsilon,
            EPSILONS[1]: sqrt(v_hat) + h.epsilon / sqrt(bc2),
            EPSILONS[2]: sqrt(v_hat + h.epsilon),
        }[form.epsilon]
        rate = {DECAYS[2]: h.learning_rate, DECAYS[3]: 1}.get(form.decay, 0)
        p = p - h.learning_rate * (m / bc1) / denominator - rate * h.weight_decay * p
        path.append(p)
    return path


class exact:
    """The namespace of mpmath's numbers, as rules use it."""

    @staticmethod
    def sqrt(x: Any) -> Any:
        from mpmath import sqrt  # noqa: PLC0415 - optional

        return sqrt(x)

    @staticmethod
    def where(condition: bool, a: Any, b: Any) -> Any:
        return a if condition else b

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return max(a, b)

    @staticmethod
    def finfo(dtype: type) -> Any:  # noqa: ARG004 - as of arrays
        from mpmath import mpf  # noqa: PLC0415 - optional

        return SimpleNamespace(max=mpf(10) ** 10_000)


def specified(name: str, h: SimpleNamespace, p: Any, grads: Sequence[Any]) -> list[Any]:
    """Return p after each step of a rule as it is specified."""
    rule = RULES[name]
    state, path = [0 * p for _ in rule.state_names], []
    vars(h).update(rule.first_carry)
    for t, g in enumerate(grads, start=1):
        c = named(*rule.numbers(h, t))
        vars(h).update({key: getattr(c, key) for key in rule.first_carry})
        p, *state = step(rule, exact, c, p, g, *state)
        path.append(p)
    return path


def trajectory(name: str, form: Form | None, hyperparameters: Mapping[str, Any], kind: str) -> list[list[float]]:
    """Return the parameters after each of the steps that are shown, rounded to float64; needs mpmath."""
    import mpmath  # noqa: PLC0415 - optional

    rule, columns = RULES[name], zip(*gradients(kind), strict=True)
    paths = []
    with mpmath.workdps(50):
        values = {**{key: getattr(rule, key) for key in rule.ranges}, **hyperparameters}
        for first, column in zip(FIRST, columns, strict=True):
            h = SimpleNamespace(**{k: mpmath.mpf(x) if type(x) is float else x for k, x in values.items()})
            grads, p = [mpmath.mpf(g) for g in column], mpmath.mpf(first)
            path = specified(name, h, p, grads) if form is None else adam(form, h, p, grads)
            paths.append([float(path[t - 1]) for t in SHOWN])
    return [list(row) for row in zip(*paths, strict=True)]


def key_of(name: str, form: Form | None, kind: str) -> str:
    """Return the name of a trajectory in the file."""
    return "; ".join([name, kind, *(part for part in form or () if part)])


def trajectories_of(name: str) -> dict[str, list[list[float]]]:
    """Return the trajectories of a rule, in all of its forms, with its defaults."""
    of_adam = name in ("Adam", "AdamW", "AMSGrad")
    weight_decay: Any = RULES[name].weight_decay
    each = itertools.product(forms_of(name, weight_decay) if of_adam else [None], EXPONENTS)
    return {key_of(name, form, kind): trajectory(name, form, {}, kind) for form, kind in each}


if __name__ == "__main__":
    everything = [trajectories_of(name) for name, rule in RULES.items() if not rule.trust_ratio]
    lines = (f"{json.dumps(key)}: {json.dumps(rows)}" for made in everything for key, rows in made.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
