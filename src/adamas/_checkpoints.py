"""The checkpoints of a training loop: a folder of numbered files, of which some are kept."""

import math
import os
import re
import warnings
from pathlib import Path
from typing import Any

from adamas._checkpoint import Checkpoint
from adamas._files import link
from adamas.errors import CheckpointError, CheckpointWarning

SUFFIX = ".safetensors"
LATEST = "latest" + SUFFIX


class CheckpointManager:
    """A folder with the checkpoints of one run: ``manager.update(opt, params)`` after each step, `resume` at its start.

    folder: made if it is not there. Its files are named by their step, step-000000100.safetensors;
        latest.safetensors is a link to the last that was written.
    every: the steps from one to the next that `update` saves.
    keep: how many of the newest are kept, at least 1. keep_best: how many of those with the lowest `metric`, besides.

    Whatever instant the process is killed at, `resume` finds a whole file. Raises ValueError for wrong numbers, and
    OSError if the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1, keep: int = 3, keep_best: int = 0) -> None:
        for name, number, least in (("every", every, 1), ("keep", keep, 1), ("keep_best", keep_best, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")
        self.folder = Path(folder)
        self.every, self.keep, self.keep_best = every, keep, keep_best
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resumed = False
        self._metrics: dict[Path, float] = {}

    @property
    def paths(self) -> dict[int, Path]:
        """The files that there are, by their steps, in order; damaged ones too."""
        found = ((re.fullmatch(rf"step-(\d{{9,}})\{SUFFIX}", path.name), path) for path in self.folder.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def update(self, optimizer: Any, params: Any = None, *, metric: Any = None, **metadata: Any) -> Path | None:
        """Save if the optimizer's step is a multiple of `every`, as `save` does; return the file, None if not."""
        if optimizer.t % self.every:
            return None
        return self.save(optimizer, params, metric=metric, **metadata)

    def save(self, optimizer: Any, params: Any = None, *, metric: Any = None, **metadata: Any) -> Path:
        """Write a checkpoint now, whatever the step, remove those that are not to be kept, and return its file.

        optimizer: of the package. params: to be kept in it. metric: a number of which less is better, kept in the
        metadata as "metric", for `keep_best`. metadata: as ``optimizer.save`` takes it.

        After `resume` the files of later steps, which were damaged, are removed. Without it they are another run's:
        raises FileExistsError. Raises OSError if the file cannot be written; the older ones are then as they were.
        """
        step = optimizer.t
        later = [path for other, path in self.paths.items() if other > step]
        if later and not self._resumed:
            raise FileExistsError(
                f"{self.folder} holds {later[-1].name}, which is later than step {step}: resume() from it, or name a "
                "new folder"
            )
        path = self.folder / f"step-{step:09d}{SUFFIX}"
        if metric is not None:
            metadata["metric"] = float(metric)
        optimizer.save(path, params, **metadata)
        self._metrics.pop(path, None)
        link(self.folder / LATEST, path.name)
        self._resumed = True
        for old in later:
            old.unlink(missing_ok=True)
        for old in self._superfluous():
            old.unlink(missing_ok=True)
        return path

    def resume(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, open; None if there is none.

        ``if saved := manager.resume(): opt.load(saved.path); params = saved.params()``. A CheckpointWarning names each
        that is damaged and was passed over.
        """
        self._resumed = True
        for path in reversed(self.paths.values()):
            try:
                saved = Checkpoint(path)
            except CheckpointError as error:
                warnings.warn(f"passed over: {error}", CheckpointWarning, stacklevel=2)
                continue
            try:
                saved.verify()
            except CheckpointError as error:
                saved.close()
                warnings.warn(f"passed over: {error}", CheckpointWarning, stacklevel=2)
                continue
            return saved
        return None

    def _superfluous(self) -> list[Path]:
        """Return the files that are neither among the newest nor among the best."""
        *older, _ = paths = list(self.paths.values())
        best = sorted(paths, key=self._metric)[: self.keep_best]
        return [path for path in older if path not in paths[-self.keep :] and path not in best]

    def _metric(self, path: Path) -> float:
        if path not in self._metrics:
            try:
                with Checkpoint(path) as saved:
                    metric = saved.metadata.get("metric", math.inf)
            except CheckpointError:
                metric = math.inf
            self._metrics[path] = metric if isinstance(metric, float) and not math.isnan(metric) else math.inf
        return self._metrics[path]
