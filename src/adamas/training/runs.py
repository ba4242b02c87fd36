"""Folders that keep what a training run was and did."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Self

from adamas.training.loop import Epoch

__all__ = ["Run"]


class Run:
    """A folder: config.json, history.jsonl with a line per epoch (the fields of `Epoch`), and at last loss.png.

    path: the folder. history: the epochs recorded so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history: list[Epoch] = []

    @classmethod
    def create(cls, path: Path | None, task: str, config: Mapping[str, Any]) -> Self:
        """Make the folder, by default runs/<task>-<date>-<time>, and write its config.json.

        Raises FileExistsError if path is something other than an empty folder, OSError if it cannot be written, and
        ImportError if there is nothing to draw the picture with.
        """
        if find_spec("matplotlib") is None:  # said now, not when the training is done
            raise ImportError("loss.png is drawn by matplotlib, which is missing: pip install 'adamas[train]'")
        if path is None:
            path = _make_new(Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S}")
        else:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise FileExistsError("it is not empty")
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (path / "history.jsonl").touch()
        return cls(path)

    def record(self, epoch: Epoch) -> None:
        """Add an epoch. It is on disk when this returns, so that a run that is killed keeps it."""
        with (self.path / "history.jsonl").open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
        self.history.append(epoch)

    def draw(self) -> None:
        """Draw loss.png: the training loss and the test accuracy after each epoch."""
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional; no pyplot, so no display and no global state
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        epochs = [e.epoch for e in self.history]
        figure = Figure(figsize=(7, 6), layout="constrained")
        losses, accuracies = figure.subplots(2, sharex=True)
        losses.plot(epochs, [e.train_loss for e in self.history], ".-", color="tab:blue")
        scale = "log" if min(e.train_loss for e in self.history) > 0 else "linear"
        losses.set(ylabel="train loss (cross-entropy)", yscale=scale)
        accuracies.plot(epochs, [e.test_accuracy for e in self.history], ".-", color="tab:orange")
        accuracies.set(ylabel="test accuracy", xlabel="epoch")
        accuracies.xaxis.set_major_locator(MaxNLocator(integer=True))
        last = self.history[-1]
        figure.suptitle(f"train loss {last.train_loss:.4g}, test accuracy {last.test_accuracy:.4f}")
        for axes in (losses, accuracies):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(self.path / "loss.png", dpi=150)


def _make_new(path: Path) -> Path:
    """Make a folder that was not there, with a number added to its name if need be, and return its path."""
    for k in count(2):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            path = path.with_name(f"{path.name.partition('_')[0]}_{k}")
        else:
            break
    return path
