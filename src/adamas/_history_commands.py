"""The commands about what was recorded: adamas history show and adamas plot."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from adamas._flags import reject
from adamas._history import History
from adamas.training.extras import require

Recorded = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run, or a file that History.save wrote.")
]
ROWS = 12
"""Steps that are shown."""
USUAL = {"clipped to": 1.0, "skipped": 0}
"""What goes without saying."""


def show_command(run: Recorded) -> None:
    """Show steps of a run, and each array at its end."""
    history = _load(run)
    table = Table(box=None, header_style="")
    columns = {
        "loss": "loss", "learning rate": "learning_rate", "gradients": "grad_norm", "rates": "rate_mean",
        "clipped to": "clip_factor", "skipped": "skips",
    }  # fmt: skip
    known = {title: history[name] for title, name in columns.items() if name in history.rows[0]}
    known = {title: values for title, values in known.items() if title not in USUAL or (values != USUAL[title]).any()}
    known["change/norm"] = history.update_ratio
    for title in ("step", *known):
        table.add_column(title, justify="right", no_wrap=True)
    for i in np.unique(np.linspace(0, len(history) - 1, ROWS).astype(int)):
        table.add_row(str(history.rows[i]["step"]), *(_short(values[i]) for values in known.values()))
    console = Console()
    console.print(table)
    if history.paths:
        console.print()
        console.print(_of_arrays(history))


def _of_arrays(history: History) -> Table:
    """Return the table of every array at the last step."""
    table = Table(box=None, header_style="")
    table.add_column(f"step {history.rows[-1]['step']}", no_wrap=True)
    for title in ("gradient", "norm", "change/norm", "rates: min", "mean", "max"):
        table.add_column(title, justify="right", no_wrap=True)
    for path in history.paths:
        g, norm, change, *rates = (
            history[name, path][-1]
            for name in ("grad_norm", "param_norm", "change_norm", "rate_min", "rate_mean", "rate_max")
        )
        table.add_row(path, *map(_short, (g, norm, change / norm if norm else np.nan, *rates)))
    return table


def plot_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or saved histories.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The picture to write.")] = Path("run.png"),
) -> None:
    """Draw the losses, sizes of changes, gradient norms and effective learning rates of runs."""
    require("matplotlib", "adamas plot")
    from adamas import plot  # noqa: PLC0415 - optional

    names = [run.stem if run.is_file() else run.resolve().name for run in runs]
    labels = names if len(set(names)) == len(names) else list(map(str, runs))
    axes = plot.overview({label: _load(run) for label, run in zip(labels, runs, strict=True)})
    try:
        axes[0].figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        reject("--out", f"{str(out)!r} cannot be written: {error}")
    print(f"the picture is in {out}")


def _load(run: Path) -> History:
    """Return the history of a run."""
    path = run / "steps.jsonl" if run.is_dir() else run
    if not path.is_file():
        inside = sorted(str(found.parent) for found in run.glob("*/steps.jsonl"))
        hint = f"name one of its runs: {', '.join(inside)}" if inside else "name the folder of a run"
        reject("RUN", f"{str(run)!r} has no recorded steps: {hint}")
    try:
        history = History.load(path)
    except ValueError as error:
        reject("RUN", str(error))
    if not history.rows:
        reject("RUN", f"{str(path)!r} has no recorded steps")
    return history


def _short(value: float) -> str:
    """Return a number in few characters; '-' if it is not known."""
    return "-" if np.isnan(value) else f"{float(value):.4g}"
