"""What the command shows: a progress bar in a terminal, plain lines elsewhere, and tables at the end."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, Protocol, Self

from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adamas.training.loop import Epoch

__all__ = [
    "Bar",
    "Lines",
    "Monitor",
    "monitor",
    "show_baselines",
    "show_comparison",
    "show_predictions",
    "show_results",
]

MOST_COLUMNS = 20
"""Classes up to which a confusion matrix is shown: more would not fit in a line."""


class Monitor(Protocol):
    """What shows how training goes, as a context manager around it."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> bool | None: ...
    def step(self) -> None:
        """Take note of a step."""

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch."""


def monitor(epochs: int, steps: int, taken: int = 0) -> Monitor:
    """Return the monitor that suits where the output goes, for this many epochs and steps in all, and taken already."""
    console = Console()
    in_terminal = console.file.isatty() and not console.is_dumb_terminal  # rich alone would trust FORCE_COLOR
    return Bar(console, epochs, steps, taken) if in_terminal else Lines(epochs)


class Bar:
    """A progress bar with the figures of the last epoch."""

    def __init__(self, console: Console, epochs: int, steps: int, taken: int = 0) -> None:
        self.epochs = epochs
        columns = (TextColumn("{task.description}"), BarColumn(10), TextColumn("{task.fields[figures]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(compact=True), console=console)
        self.task = self.progress.add_task(f"epoch 0/{epochs}", total=steps, completed=taken, figures="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def step(self) -> None:
        """Move the bar."""
        self.progress.advance(self.task)

    def epoch(self, epoch: Epoch) -> None:
        """Show the figures beside the bar."""
        self.progress.update(self.task, description=f"epoch {epoch.epoch}/{self.epochs}", figures=_figures(epoch))


class Lines(AbstractContextManager["Lines", None]):
    """A line per epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.start = perf_counter()

    def __exit__(self, *exception: object) -> None:
        """Nothing is left to do."""

    def step(self) -> None:
        """Show nothing: lines are for epochs."""

    def epoch(self, epoch: Epoch) -> None:
        """Print the line, at once."""
        left = (perf_counter() - self.start) / epoch.epoch * (self.epochs - epoch.epoch)
        number = f"{epoch.epoch:{len(str(self.epochs))}}/{self.epochs}"
        print(f"epoch {number}  {_figures(epoch)}  rate {epoch.learning_rate:.1e}  {left:.0f} s left", flush=True)


def _figures(epoch: Epoch) -> str:
    losses = f"loss {_short(epoch.train_loss)}  validation {_short(epoch.validation_loss)}"
    return f"{losses}  accuracy {epoch.validation_accuracy:.4f}"


def _short(figure: float) -> str:
    return f"{figure:.4f}" if figure < 1e3 else f"{figure:.1e}"


def show_results(results: Mapping[str, Any], steps: int) -> None:
    """Print what results.json says of a run of so many steps."""
    classes = results["classes"]
    if len(classes) <= MOST_COLUMNS:
        print("test examples of each class (rows), by what they were taken for:")
        matrix = Table(box=None)
        for name in ["", *classes]:
            matrix.add_column(name, justify="right")
        for name, row in zip(classes, results["confusion"], strict=True):
            matrix.add_row(name, *(str(count) if count else "." for count in row))
        _print(matrix)
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("best epoch", f"{results['best_epoch']} of {results['epochs']}")
    for name in ("train loss", "validation loss", "test loss", "test accuracy", "test balanced accuracy"):
        table.add_row(name, _short(results[name.replace(" ", "_")]))
    table.add_row("seconds", f"{results['seconds']:.1f}")
    table.add_row("steps per second", f"{steps / results['seconds']:,.0f}")
    table.add_row("time in the optimizer", f"{results['optimizer_seconds'] / results['seconds']:.0%}")
    _print(table)


def show_baselines(results: Mapping[str, Any]) -> None:
    """Print, if there are any, what the baselines of results.json get, which a network has to beat."""
    if not results["baselines"]:
        return
    print("beside it, on the same test examples:")
    table = Table(box=None)
    for name in ("", "accuracy", "balanced accuracy"):
        table.add_column(name, justify="right" if name else "left")
    for name, scores in results["baselines"].items():
        table.add_row(name, *(f"{scores[key]:.4f}" for key in ("test_accuracy", "test_balanced_accuracy")))
    _print(table)


def show_comparison(runs: Mapping[str, tuple[float, Mapping[str, Any]]]) -> None:
    """Print a table of runs: by the name of the optimizer, its learning rate and what results.json says."""
    print("each with its best weights; accuracy, and balanced over the classes, on the test examples:")
    table = Table(box=None)
    table.add_column("optimizer", no_wrap=True)
    names = ("rate", "epoch", "train loss", "val. loss", "accuracy", "balanced", "seconds")
    for name in names:
        table.add_column(name, justify="right")
    for optimizer, (rate, results) in runs.items():
        keys = ("train_loss", "validation_loss", "test_accuracy", "test_balanced_accuracy")
        figures = (results[key] for key in keys)
        row = (
            f"{rate:g}",
            str(results["best_epoch"]),
            *map(_short, figures),
            f"{results['seconds']:.1f}",
        )
        table.add_row(optimizer, *row)
    _print(table)


def show_predictions(names: Sequence[str], shares: NDArray[Any], classes: Sequence[str]) -> None:
    """Print the likeliest class of each name, and its probability; shares: (names, classes)."""
    table = Table(box=None)
    table.add_column("input", overflow="fold")
    table.add_column("class", justify="right")
    table.add_column("probability", justify="right")
    for name, row in zip(names, shares, strict=True):
        label = int(row.argmax())
        table.add_row(name, classes[label], f"{row[label]:.4f}")
    _print(table)


def _print(table: Table) -> None:
    Console(highlight=False, markup=False).print(table)
