"""Pictures of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamas.training.loop import Epoch

__all__ = ["draw_comparison", "draw_run"]


def draw_run(history: Sequence[Epoch], path: Path, title: str = "") -> None:
    """Draw the losses and the validation accuracy after each epoch, with the epoch whose weights are kept marked."""
    figure, losses, accuracies = _axes()
    epochs = [e.epoch for e in history]
    best = min(history, key=lambda epoch: epoch.validation_loss)
    losses.plot(epochs, [e.train_loss for e in history], ".-", color="tab:blue", label="train")
    losses.plot(epochs, [e.validation_loss for e in history], ".-", color="tab:orange", label="validation")
    losses.plot(best.epoch, best.validation_loss, "o", color="black", mfc="none", ms=9, label="kept weights")
    accuracies.plot(epochs, [e.validation_accuracy for e in history], ".-", color="tab:orange")
    accuracies.plot(best.epoch, best.validation_accuracy, "o", color="black", mfc="none", ms=9)
    _finish(figure, losses, [e.train_loss for e in history] + [e.validation_loss for e in history], title, path)


def draw_comparison(histories: Mapping[str, Sequence[Epoch]], path: Path, title: str = "") -> None:
    """Draw the curves of several runs, by the names of their optimizers: training dashed, validation solid."""
    figure, losses, accuracies = _axes()
    values = []
    for k, (name, history) in enumerate(histories.items()):
        epochs, color = [e.epoch for e in history], f"C{k % 10}"
        train, validation = [e.train_loss for e in history], [e.validation_loss for e in history]
        losses.plot(epochs, validation, ".-", color=color, label=name)
        losses.plot(epochs, train, "--", color=color, alpha=0.6)
        accuracies.plot(epochs, [e.validation_accuracy for e in history], ".-", color=color)
        values += train + validation
    losses.plot([], [], "--", color="gray", label="in training")
    _finish(figure, losses, values, title, path)


def _axes() -> tuple[Any, Any, Any]:
    """Return a figure with axes for losses and, below, for accuracies."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional; no pyplot, so no display and no global state
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(7, 6), layout="constrained")
    losses, accuracies = figure.subplots(2, sharex=True)
    losses.set(ylabel="loss (cross-entropy)")
    accuracies.set(ylabel="validation accuracy", xlabel="epoch")
    accuracies.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, losses, accuracies


def _finish(figure: Any, losses: Any, values: Sequence[float], title: str, path: Path) -> None:
    if min(values) > 0:
        losses.set_yscale("log")
        losses.yaxis.set_major_formatter("{x:g}")  # 0.1 rather than a power of ten
        losses.yaxis.set_minor_formatter("{x:g}" if max(values) < 10 * min(values) else "")
    figure.legend(frameon=False, loc="outside right upper")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
