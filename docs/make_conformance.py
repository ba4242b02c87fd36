"""Write docs/conformance.md, what `adamas.testing` finds of the Adams of others: python docs/make_conformance.py.

Keras runs on PyTorch here. It needs all of them: make peers.
"""

import os
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "torch"
import keras
import optax
import torch
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

import adamas
import adamas.torch
from adamas.testing import Report, adamas_step, conforms, optax_step, torch_step

PAGE = Path(__file__).parent / "conformance.md"


def keras_step(make: Any) -> Any:
    """Return the steps of an optimizer of Keras, on tensors of PyTorch."""

    def step(p: Any, g: Any, state: Any) -> Any:
        if state is None:
            variable = keras.Variable(p.clone(), dtype=str(p.dtype).removeprefix("torch."))
            state = variable, make()
        variable, optimizer = state
        optimizer.apply([g], [variable])
        return variable.value, state

    return step


def sklearn_step(p: Any, g: Any, state: Any) -> Any:
    """Take the steps of scikit-learn's MLP."""
    optimizer = AdamOptimizer([p]) if state is None else state
    optimizer.update_params([p], [g])
    return p, optimizer


def candidates() -> Iterator[tuple[str, Any, str, str]]:
    """Yield names, step functions, rules and kinds of arrays."""
    yield "adamas AdamW", adamas_step(adamas.AdamW), "adamw", "numpy"
    yield "adamas.torch AdamW", torch_step(adamas.torch.AdamW), "adamw", "torch"
    for kind in ({"foreach": False}, {"foreach": True}, {"fused": True}):
        name = "fused" if "fused" in kind else "foreach" if kind["foreach"] else "eager"
        made = torch_step(lambda params, kind=kind: torch.optim.AdamW(params, **kind))
        yield f"torch {version('torch')} AdamW, {name}", made, "adamw", "torch"
    yield f"optax {version('optax')} adamw", optax_step(optax.adamw(1e-3, weight_decay=0.01)), "adamw", "jax"
    options = {"epsilon": 1e-8, "weight_decay": 0.01}
    yield f"Keras {version('keras')} AdamW", keras_step(lambda: keras.optimizers.AdamW(**options)), "adamw", "torch"
    yield f"scikit-learn {version('scikit-learn')} Adam", sklearn_step, "adam", "numpy"
    amsgrad = torch_step(lambda params: torch.optim.Adam(params, amsgrad=True))
    yield f"torch {version('torch')} Adam, amsgrad", amsgrad, "amsgrad", "torch"
    yield f"optax {version('optax')} amsgrad", optax_step(optax.amsgrad(1e-3)), "amsgrad", "jax"
    options = {"epsilon": 1e-8, "amsgrad": True}
    yield (
        f"Keras {version('keras')} Adam, amsgrad",
        keras_step(lambda: keras.optimizers.Adam(**options)),
        "amsgrad",
        "torch",
    )


def row(name: str, report: Report) -> str:
    """Return a row of the table."""
    forms = [report.epsilon or "", report.decay or "", (report.maximum or "").removeprefix("of the ")]
    cells = [name, f"{report.spacings:.3g}", *forms, "; ".join(report.failures) or "-"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the page."""
    sections = []
    for dtype in ("float32", "bfloat16", "float16"):
        rows = []
        for name, step, rule, like in candidates():
            try:
                rows.append(row(name, conforms(step, rule, dtype, like=like)))
            except Exception as error:  # what it raises is part of what was found
                rows.append(f"| {name} | raises {type(error).__name__} | | | | |")
        head = "| | spacings | epsilon | decay | maximum | fails |\n|---|---|---|---|---|---|"
        sections.append(f"## {dtype}\n\n{head}\n" + "\n".join(rows) + "\n")
    text = PAGE.read_text() if PAGE.exists() else "<!-- tables -->\n"
    begin = text.index("<!-- tables -->") + len("<!-- tables -->\n")
    PAGE.write_text(text[:begin] + "\n" + "\n".join(sections))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    main()
