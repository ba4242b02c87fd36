"""Write the pages of docs/rules from the stanzas of rules.py, and draw their pictures: python docs/make_rules.py.

With --text only the pages, which takes no time.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from adamas import History, _describe, minimize, problems
from adamas._compare import run_all
from adamas.rules import RULES, Rule

FOLDER = Path(__file__).parent / "rules"
PROBLEMS, STEPS, RATES = ("rosenbrock", "beale", "matyas"), 300, np.geomspace(1e-4, 1, 17)


def page(rule: type[Rule]) -> str:
    """Return the page of a rule."""
    name = rule.__name__
    rows = []
    for key, value in _describe.own_hyperparameters(rule).items():
        shown = f"{value:g}" if isinstance(value, float) else value
        rows.append(f"| `{key}` | {shown} | {rule.ranges[key] or 'True or False'} |")
    return "\n".join(
        [
            f"# {name}",
            "",
            _describe.markdown(rule),
            "",
            "| hyper-parameter | default | range |",
            "|---|---|---|",
            *rows,
            "",
            f"State: {', '.join(f'`{s}`' for s in rule.state_names) or 'none'}; "
            f"{_describe.state_bytes(rule)} bytes per parameter in float32.",
            "",
            f"![The paths of {name} and Adam on three problems]({name}.png)",
            "",
            f"{STEPS} steps, each rule at the best of {len(RATES)} learning rates from {RATES[0]:g} to {RATES[-1]:g}.",
            "",
            "## The definition",
            "",
            "```py",
            _describe.stanza(rule),
            "```",
            "",
        ]
    )


def index() -> str:
    """Return the list of all pages."""
    rows = [f"| [`{name}`]({name}.md) | {_describe.summary(rule)} |" for name, rule in RULES.items()]
    made = "The pages are made from `src/adamas/rules.py` by `docs/make_rules.py`."
    return "\n".join(["# The rules", "", made, "", "| rule | |", "|---|---|", *rows, ""])


def pages() -> dict[str, str]:
    """Return all pages by the names of their files."""
    return {"README.md": index(), **{f"{name}.md": page(rule) for name, rule in RULES.items()}}


def path_of(problem: Any, name: str) -> tuple[str, History]:
    """Return the path of a rule, at the learning rate that ends lowest, and what to call it."""
    ends = [run_all(problem, name, float(rate), problem.start[None], STEPS, 0)[1][0] for rate in RATES]
    rate = float(RATES[int(np.argmin(ends))])
    history = History()
    minimize(problem, problem.start, jac=problem.gradient, method=name.lower(), learning_rate=rate, maxiter=STEPS,
             history=history)  # fmt: skip
    return f"{name} ({rate:.2g})", history


def draw() -> None:
    """Draw the pictures of all pages."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - not for the text
    from PIL import Image  # noqa: PLC0415

    from adamas import plot  # noqa: PLC0415

    beside = {problem: path_of(problems.get(problem), "Adam") for problem in PROBLEMS}
    for name in RULES:
        axes = Figure(figsize=(12, 4), layout="constrained").subplots(1, len(PROBLEMS))
        for problem, ax in zip(PROBLEMS, axes, strict=True):
            runs = dict([path_of(problems.get(problem), name), *([beside[problem]] if name != "Adam" else [])])
            plot.trajectory(problems.get(problem), runs, ax=ax, levels=15)
            ax.legend(fontsize="small", framealpha=0.6)
        picture = BytesIO()
        axes[0].figure.savefig(picture, dpi=72)
        Image.open(picture).convert("RGB").quantize(64).save(FOLDER / f"{name}.png", optimize=True)
        print(f"drawn: {name}")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
    if "--text" not in sys.argv:
        draw()
