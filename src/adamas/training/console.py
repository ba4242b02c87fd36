"""What `adamas train` shows: a progress bar in a terminal, plain lines elsewhere, and a table at the end."""

from contextlib import AbstractContextManager
from time import perf_counter
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adamas.training.loop import Epoch

__all__ = ["Bar", "Lines", "Monitor", "monitor", "show_table"]


class Monitor(Protocol):
    """What shows how training goes, as a context manager around it."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> bool | None: ...
    def step(self) -> None:
        """Take note of a step."""

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch."""


def monitor(epochs: int, steps: int) -> Monitor:
    """Return the monitor that suits where the output goes, for this many epochs and steps in all."""
    console = Console()
    in_terminal = console.file.isatty() and not console.is_dumb_terminal  # rich alone would trust FORCE_COLOR
    return Bar(console, epochs, steps) if in_terminal else Lines(epochs)


class Bar:
    """A progress bar with the figures of the last epoch."""

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        self.epochs = epochs
        columns = (TextColumn("{task.description}"), BarColumn(14), TextColumn("{task.fields[figures]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(compact=True), console=console)
        self.task = self.progress.add_task(f"epoch 0/{epochs}", total=steps, figures="")

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
        print(f"epoch {number}  {_figures(epoch)}  {left:.0f} s left", flush=True)


def _figures(epoch: Epoch) -> str:
    return f"loss {epoch.train_loss:.4f}  accuracy {epoch.test_accuracy:.4f}  rate {epoch.learning_rate:.1e}"


def show_table(last: Epoch, parameters: int) -> None:
    """Print the result of a run whose last epoch this is."""
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("train loss", f"{last.train_loss:.4f}")
    table.add_row("test accuracy", f"{last.test_accuracy:.4f}")
    table.add_row("parameters", f"{parameters:,}")
    table.add_row("steps per second", f"{last.steps / last.seconds:,.0f}")
    table.add_row("time in the optimizer", f"{last.optimizer_seconds / last.seconds:.0%}")
    Console(highlight=False).print(table)
