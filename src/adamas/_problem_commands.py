"""The commands about problems: adamas problems, minimize and compare."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import adamas
from adamas import problems
from adamas._choices import find_choice
from adamas._compare import Outcome, compare
from adamas._flags import UsageError, at_least, reject, told
from adamas.training.extras import require

Problem = problems.Problem

ProblemName = Annotated[
    str, typer.Argument(metavar="PROBLEM", help="A name (adamas problems lists them), or MODULE:FUNCTION.")
]
Dimension = Annotated[int | None, typer.Option("--dimension", help="Variables, where the problem leaves that free.")]
Start = Annotated[
    str | None, typer.Option("--start", metavar="X1,X2,...", help="Where to begin, or what to begin around.")
]
Picture = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result.")]


def problems_command() -> None:
    """List the test problems."""
    table = Table("name", "n", "what", "minimum", "source", box=None)
    for name in problems.names():
        problem = problems.get(name)
        table.add_row(name, str(problem.n), problem.description, f"{problem.minimum:.6g}", problem.reference)
    Console().print(table)


def minimize_command(
    problem: ProblemName,
    optimizer: Annotated[str, typer.Option("--optimizer", help="The rule.")] = "adam",
    learning_rate: Annotated[float, typer.Option("--learning-rate")] = 0.01,
    start: Start = None,
    steps: Annotated[int, typer.Option("--steps", help="At most so many.")] = 1000,
    gtol: Annotated[float | None, typer.Option("--gtol", help="Stop at gradients as small as this.")] = None,
    dimension: Dimension = None,
    plot: Picture = None,
    record: Annotated[
        Path | None, typer.Option("--history", metavar="FILE", help="Record the steps: see adamas history show.")
    ] = None,
) -> None:
    """Minimize a problem, showing progress."""
    require("scipy", "adamas minimize")
    at_least(1, "--steps", steps)
    found = _problem(problem, dimension, start)
    choice, history = find_choice(optimizer), adamas.History()
    with told():
        run = adamas.Minimizer(
            found.value_and_gradient, found.start, jac=True, method=choice.name,
            bounds=found.bounds, learning_rate=learning_rate, maxiter=steps, gtol=gtol, history=history,
        )  # fmt: skip
        for it in run:
            if it.nit in _milestones(steps):
                print(f"step {it.nit:>{len(str(steps))}}: f = {it.fun:.6e} at {_point(it.x)}")
        result = run.result()
    print(f"{choice.name}: f = {result.fun:.6e} at {_point(result.x)} after {result.nit} steps; {result.message}")
    if len(found.minimizers):
        nearest = found.minimizers[np.argmin(np.linalg.norm(found.minimizers - result.x, axis=1))]
        print(f"minimum:{' ' * max(1, len(choice.name) - 6)}f = {found.minimum:.6e} at {_point(nearest)}")
    if record is not None:
        try:
            history.save(record)
        except OSError as error:
            reject("--history", f"{str(record)!r} cannot be written: {error.strerror or error}")
    if plot is not None:
        _draw_run(plot, found, choice.name, history)


def _draw_run(path: Path, problem: Problem, name: str, history: Any) -> None:
    require("matplotlib", "--plot")
    from adamas import plot as plots  # noqa: PLC0415 - optional

    if problem.n == 2:
        ax = plots.trajectory(problem, {name: history})
    else:
        known = np.isfinite(problem.minimum)
        ax = plots.loss({name: history}, minimum=problem.minimum if known else float(np.nanmin(history["loss"])))
    _save(ax, path)


def compare_command(
    problem: ProblemName,
    optimizers: Annotated[str, typer.Option("--optimizers", metavar="A,B,...", help="The rules.")] = "sgd,rmsprop,adam",
    steps: Annotated[int, typer.Option("--steps")] = 1000,
    seeds: Annotated[int, typer.Option("--seeds", help="Starts, and noise, that all share.")] = 10,
    tune_budget: Annotated[int, typer.Option("--tune-budget", help="Learning rates that each may try.")] = 20,
    target: Annotated[float, typer.Option("--target", help="Loss above the minimum that counts as reached.")] = 1e-6,
    dimension: Dimension = None,
    start: Start = None,
    plot: Picture = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
) -> None:
    """Compare rules fairly: the same starts and noise, and the same budget to tune each learning rate."""
    for flag, number in (("--steps", steps), ("--seeds", seeds), ("--tune-budget", tune_budget)):
        at_least(1, flag, number)
    found = _problem(problem, dimension, start)
    names = [find_choice(name.strip(), "--optimizers").name for name in optimizers.split(",")]
    outcomes: dict[str, Outcome] = {}
    with told():
        for name in track(names, description="tuning and running", transient=True, console=Console(file=sys.stderr)):
            outcomes |= compare(found, [name], steps=steps, seeds=seeds, tune_budget=tune_budget, target=target)
    title = f"{found.name}: {seeds} starts, {steps} steps, {tune_budget} learning rates each"
    table = Table(box=None, header_style="")
    table.add_column(overflow="fold")
    for column in ("rate", "loss", "quartiles", f"to {target:g}", "diverged", "good"):
        table.add_column(column, no_wrap=True, justify="right")
    for name, outcome in outcomes.items():
        low, middle, high = outcome.quartiles
        reached = "never" if np.isinf(outcome.steps) else f"{outcome.steps:.0f}"
        table.add_row(name, f"{outcome.rate:.2g}", f"{middle:.2e}", f"{low:.0e}, {high:.0e}", reached,
                      str(outcome.failures), f"{outcome.sensitivity:.0%}")  # fmt: skip
    print(title)
    Console().print(table)
    print("rate: the learning rate, tuned. loss: the median in the end, above the minimum.")
    print(f"to {target:g}: steps until then. good: rates that end at no more than 10 times the best loss.")
    if plot is not None:
        require("matplotlib", "--plot")
        from adamas import plot as plots  # noqa: PLC0415 - optional

        floor = 1e-300
        ax = plots.loss_band({f"{n} ({o.rate:.2g})": np.maximum(o.losses, floor) for n, o in outcomes.items()})
        ax.set(title=found.name, ylabel="loss above the minimum")
        _save(ax, plot)
    if json_ is not None:
        record = {name: {k: np.asarray(v).tolist() for k, v in asdict(o).items()} for name, o in outcomes.items()}
        json_.write_text(json.dumps(record, indent=1) + "\n")


def _problem(name: str, n: int | None, text: str | None) -> Problem:
    """Return a problem by name, or made of the user's function of an array that returns value and gradient.

    n: --dimension; text: --start, where the problem then begins.
    """
    start = None if text is None else numbers(text)
    if ":" in name:
        function = imported(name)
        if start is None:
            reject("--start", f"is needed for {name}, whose dimension is not known")
        return problems.own(name, function, start)
    try:
        found = problems.get(name, n if n is not None else len(start) if start is not None and _free(name) else None)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if start is not None and len(start) != found.n:
        reject("--start", f"has {len(start)} numbers, but {name} has {found.n} variables")
    return found if start is None else _from(found, start)


def _free(name: str) -> bool:
    """Whether a problem may have another dimension than the usual one."""
    try:
        problems.get(name, 3)
    except ValueError:
        return False
    return True


def imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{name} cannot be imported: {error}") from None
    if not callable(found):
        raise UsageError(f"{name} is {found!r}: it must be a function of an array that returns value and gradient")
    return found


def numbers(text: str) -> Any:
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        reject("--start", f"must be numbers separated by commas, as in -1.5,2, got {text!r}")


def _from(problem: Problem, start: Any) -> Problem:
    return Problem(problem.name, problem.description, problem.reference, problem.function, problem.domain,
                   problem.minimizers, problem.minimum, start, problem.bounds)  # fmt: skip


def _milestones(steps: int) -> set[int]:
    return {1, *(max(1, round(steps * k / 10)) for k in range(1, 11))}


def _point(x: Any) -> str:
    shown = ", ".join(f"{value:.6g}" for value in x[:6])
    return f"({shown}{', ...' if len(x) > 6 else ''})"


def _save(ax: Any, path: Path) -> None:
    try:
        ax.figure.savefig(path, dpi=150)
    except ValueError as error:
        reject("--plot", str(error))
    print(f"drawn: {path}")
