"""Folders that keep what a training run was and did."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

from adamas._files import write_text
from adamas._history import History
from adamas.training import weights
from adamas.training.extras import require
from adamas.training.loop import Epoch
from adamas.training.scores import Scores

__all__ = ["Run", "new_folder"]

COORDINATES = 8
"""Parameters of which steps.jsonl tells one by one."""


class Run:
    """A folder that keeps a run.

    config.json: what was asked for. history.jsonl: a line per epoch, the fields of `Epoch`. steps.jsonl: some of the
    steps, as `adamas.History` saves them. weights.safetensors: the parameters after the epoch whose validation loss was
    the lowest. results.json: how they did on the test examples. checkpoints: what `CheckpointManager` keeps, as long
    as the run is not complete.

    path: the folder. config: what config.json says. history: the epochs recorded so far. steps: what to record steps
    with.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config
        self.history: list[Epoch] = []
        self.steps = History(coordinates=COORDINATES)

    @classmethod
    def create(cls, path: Path | None, task: str, config: Mapping[str, Any]) -> Self:
        """Make the folder, by default runs/<task>-<date>-<time>, and write its config.json.

        Raises FileExistsError if path is something other than an empty folder, OSError if it cannot be written, and
        ImportError if there is nothing to draw its picture or to write its weights with.
        """
        require("matplotlib", "drawing loss.png")  # said now, not when the training is done
        require("safetensors", "keeping weights")
        return cls(new_folder(path, task, config), config)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return a run that was made before, with its history.

        Raises ValueError if the folder does not keep a run with weights; OSError if it cannot be read.
        """
        for name in ("config.json", "history.jsonl", "weights.safetensors"):
            if not (path / name).is_file():
                raise ValueError(f"{path} is not the folder of a trained run: it has no {name}")
        try:
            run = cls(path, json.loads((path / "config.json").read_text()))
            run.history = [Epoch(**json.loads(line)) for line in (path / "history.jsonl").read_text().splitlines()]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not the folder of a trained run: {error}") from None
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def complete(self) -> bool:
        """Whether it came to its end, so that there is nothing to go on with."""
        return (self.path / "results.json").is_file() and not any(self.checkpoints.glob("step-*"))

    def rewind(self, epochs: int, steps: int) -> None:
        """Take up what was recorded until the middle of the run, after some epochs and steps; forget what was later.

        Raises ValueError or OSError if it cannot be read.
        """
        lines = (self.path / "history.jsonl").read_text().splitlines()[:epochs] if epochs else []
        self.history = [Epoch(**json.loads(line)) for line in lines]
        self._write_history(self.history)
        recorded = History.load(self.path / "steps.jsonl")
        self.steps.paths = recorded.paths
        self.steps.rows[:] = [row for row in recorded.rows if row["step"] <= steps]

    def keep_steps(self) -> None:
        """Write steps.jsonl."""
        self.steps.save(self.path / "steps.jsonl")

    def _write_history(self, epochs: list[Epoch]) -> None:
        write_text(self.path / "history.jsonl", "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))

    @property
    def best(self) -> Epoch:
        """The epoch whose validation loss is the lowest, the first of equals: its weights are kept."""
        return min(self.history, key=lambda epoch: epoch.validation_loss)

    def record(self, epoch: Epoch, params: Any) -> None:
        """Add an epoch, and keep the parameters if it is the best so far.

        All is on disk when this returns, so that a run that is killed keeps it.
        """
        if not self.history or epoch.validation_loss < self.best.validation_loss:
            weights.save(params, self.path / "weights.safetensors")
        self.keep_steps()
        self._write_history([*self.history, epoch])
        self.history.append(epoch)  # last: what it holds is on disk, wherever Ctrl-C falls

    def restore(self, params: Any) -> None:
        """Overwrite parameters, arrays in lists or dicts, by the best; raises ValueError if those do not fit."""
        weights.load(params, self.path / "weights.safetensors")

    def finish(
        self, test: Scores, classes: tuple[str, ...], baselines: Mapping[str, Mapping[str, float]] | None = None
    ) -> dict[str, Any]:
        """Write results.json, how the best weights and the baselines did on the test examples; return what it says."""
        last, best = self.history[-1], self.best
        results = {
            "epochs": last.epoch,
            "best_epoch": best.epoch,
            "train_loss": best.train_loss,
            "validation_loss": best.validation_loss,
            "validation_accuracy": best.validation_accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "test_balanced_accuracy": test.balanced_accuracy,
            "baselines": dict(baselines or {}),
            "classes": classes,
            "confusion": test.confusion.tolist(),
            "seconds": last.seconds,
            "optimizer_seconds": last.optimizer_seconds,
        }
        write_text(self.path / "results.json", json.dumps(results, indent=2) + "\n")
        return results

    def close(self) -> None:
        """Remove the checkpoints of a run that is complete, the newest last."""
        for path in sorted(self.checkpoints.iterdir()):
            path.unlink()
        self.checkpoints.rmdir()


def new_folder(path: Path | None, task: str, config: Mapping[str, Any]) -> Path:
    """Return a new folder for results, by default runs/<task>-<date>-<time>, with config.json in it.

    Raises FileExistsError if path is something other than an empty folder, and OSError if it cannot be written.
    """
    if path is None:
        path = _make_new(Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S}")
    else:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FileExistsError("it is not empty")
    write_text(path / "config.json", json.dumps(config, indent=2) + "\n")
    return path


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
