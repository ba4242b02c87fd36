"""A recorder of what an optimizer did: losses, parameters, gradients, state, effective learning rates, norms."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from adamas import _tree
from adamas._files import write_text
from adamas._formats import as_real
from adamas._watch import STATISTICS, Pick, Stepped, Watch
from adamas.rules import Rule

Array = Any

CHOSEN = 100
"""Coordinates that are recorded of larger parameters, if none are chosen."""

TOGETHER = 32
"""Steps whose rows are made at once: right after a step of large arrays Python takes several times as long for each."""


class History:
    """What happened at each step, or at every few of them; as arrays by name, one row for each recorded step.

    ``params = opt.update(params, grads, history=history, loss=loss)`` records a step, of `adamas.torch`
    ``opt.step(history=history, loss=loss)``; `adamas.minimize` takes ``history=`` too. Elsewhere call `record` after
    each update.

    every: records each so many steps. most: the rows that are kept: when there are more, every other one is dropped,
    and from then on only half as many steps are recorded. coordinates: which are recorded one by one, as indices into
    all parameters laid end to end, or how many, spread evenly; 100 of them, or all if there are fewer, if not given.
    arrays: whether the norms, rates and counts are kept of each array, too: 64 bytes for each in a row.

    Names of what is recorded of coordinates: x, g (NaN where there is no gradient), the rule's state (such as m and v),
    change, and rate, the effective learning rate with bias correction, where the rule has one. Of the whole: step,
    loss, learning_rate, grad_norm (unscaled), param_norm; and, if the step was given its history, change_norm,
    rate_min, rate_mean, rate_max, nonfinite and clipped (how many gradients were not finite, or cut by clip_value),
    clip_factor (what clip_norm multiplied the gradients by), skips (steps that were not taken, so far). Those from
    grad_norm to clipped count the parameters that have gradients, and there are those of one array:
    ``history["grad_norm", path]``. They come from the pass over memory that the step is.

    Recorded by hand, `change` is that from the row before.
    """

    def __init__(self, *, every: int = 1, most: int = 10_000, coordinates: Any = CHOSEN, arrays: bool = True) -> None:
        for name, number in (("every", every), ("most", most)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1 + (name == "most"):
                raise ValueError(f"{name} must be an integer of at least {1 + (name == 'most')}, got {number!r}")
        chosen = np.asarray(coordinates)
        if chosen.dtype.kind not in "iu" or chosen.ndim > 1 or (chosen < 0).any():
            raise ValueError(f"coordinates must be a number of them, or indices from 0 up, got {coordinates!r}")
        self.every, self.most, self.arrays, self._coordinates = every, most, arrays, coordinates
        self.paths: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._watched: list[Watch] = []  # steps whose rows are not made yet
        self._picks: tuple[tuple[int, ...], list[Pick]] = ((), [])

    @property
    def coordinates(self) -> Any:
        """Which are recorded one by one, in all rows alike."""
        return self._coordinates

    def record(self, step: int, loss: Any, params: Any, grads: Any, optimizer: Any) -> None:
        """Record a step that was just taken.

        step: counted from 1. params: after it. loss, None if it is not known, and grads: before it.
        optimizer: of the package, or None.
        """
        values = [value for _, value in _tree.leaves(params)]
        gradients = list(_tree.matched(params, grads))
        watch = self.watch(step, values, gradients)
        if watch is None:
            return
        watch.begin()
        last = self.rows[-1]["x"] if self.rows else np.full(watch.size, np.nan)
        watch.before = [last[pick.places] for pick in watch.picks]
        numbers = {"grad_norm": _norm(gradients), "param_norm": _norm(values)}
        if optimizer is None:
            leaves = [Stepped(values[i], Rule, (), SimpleNamespace()) for i in watch.owners]
        else:
            leaves, numbers["learning_rate"] = optimizer.stepped(params, watch.owners), optimizer.last_learning_rate
        watch.finish(loss, leaves, numbers)

    def watch(self, step: int, values: Iterable[Any], gradients: Iterable[Any]) -> Watch | None:
        """Return what watches a step, None if it is not to be recorded; see `Watch`."""
        return Watch(self, step, values, gradients) if step % self.every == 0 else None

    def picks(self, sizes: tuple[int, ...]) -> list[Pick]:
        """Return which coordinates are recorded of parameters of these sizes."""
        if sizes != self._picks[0]:
            ends, chosen = np.cumsum(sizes), np.asarray(self._coordinates)
            count = sum(sizes)
            if chosen.ndim == 0:
                chosen = np.unique(np.linspace(0, count - 1, min(int(chosen), count)).astype(int))
            elif len(chosen) and chosen.max() >= count:
                raise ValueError(f"coordinates has {chosen.max()}, but there are {count}, counted from 0")
            owners = np.searchsorted(ends, chosen, side="right")
            self._picks = (
                sizes,
                [
                    Pick(int(i), chosen[owners == i] - (int(ends[i - 1]) if i else 0), np.flatnonzero(owners == i))
                    for i in np.unique(owners)
                ],
            )
        return self._picks[1]

    def add(self, watch: Watch) -> None:
        """Add a step that was taken, and thin the rows if there are too many."""
        self._watched.append(watch)
        if len(self) > self.most:
            del self.rows[::2]
            self.every *= 2
        elif len(self._watched) == TOGETHER:
            self._make_rows()

    def _make_rows(self) -> None:
        self._rows += [watch.row() for watch in self._watched]
        self._watched.clear()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was recorded by name, of each step."""
        self._make_rows()
        return self._rows

    def __len__(self) -> int:
        return len(self._rows) + len(self._watched)

    def __getitem__(self, name: str | tuple[str, str]) -> Array:
        """Return an array by name, or by name and path of a parameter: a row for each recorded step."""
        name, path = name if isinstance(name, tuple) else (name, None)
        if path is None:
            self._check_known(name, "was not recorded", list(self.rows[0]) if self.rows else [name])
            return np.array([row[name] for row in self.rows])
        self._check_known(path, "is not the path of an array whose statistics were recorded", self.paths)
        self._check_known(name, "is not recorded of arrays", STATISTICS)
        place, column = self.paths.index(path), STATISTICS.index(name)
        return np.array([row["arrays"][place][column] for row in self.rows])

    @staticmethod
    def _check_known(name: str, trouble: str, known: Sequence[str]) -> None:
        if name not in known:
            raise KeyError(f"{name!r} {trouble}: there are {', '.join(known)}")

    @property
    def update_ratio(self) -> Array:
        """The norm of the change over that of the parameters: healthy near 1e-3; recorded by hand, of the coordinates.

        NaN where the change is not known.
        """
        if self.rows and "change_norm" in self.rows[0]:
            change, norms = self["change_norm"], self["param_norm"]
        else:
            change, norms = (np.linalg.norm(self[name].reshape(len(self), -1), axis=1) for name in ("change", "x"))
        return change / np.where(norms == 0, 1, norms)

    def save(self, path: str | Path) -> None:
        """Write JSON lines, one for each row; the file is there as a whole or not at all."""
        lines = (json.dumps({name: np.asarray(value).tolist() for name, value in row.items()}) for row in self.rows)
        head = [json.dumps({"paths": self.paths})] if self.paths else []
        write_text(path, "".join(f"{line}\n" for line in (*head, *lines)))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Return what `save` wrote; raises ValueError if the file holds something else."""
        history = cls()
        for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
            try:
                row = dict(json.loads(line))
            except (ValueError, TypeError):
                raise ValueError(f"{path} is not a saved history: line {number} is not an object in JSON") from None
            if "paths" in row:
                history.paths = row["paths"]
            elif "step" in row:
                history.rows.append({k: np.array(v) if isinstance(v, list) else v for k, v in row.items()})
            else:
                raise ValueError(f"{path} is not a saved history: line {number} has no 'step'")
        return history

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame: a column for each number, and for each coordinate of the others."""
        import pandas as pd  # noqa: PLC0415 - optional

        columns: dict[str, Array] = {}
        for name in self.rows[0] if self.rows else ():
            if name == "arrays":
                columns |= {f"{s} of {path}": self[s, path] for path in self.paths for s in STATISTICS}
                continue
            array = self[name].reshape(len(self), -1)
            alone = self[name].ndim == 1
            columns |= {name if alone else f"{name}[{i}]": array[:, i] for i in range(array.shape[1])}
        return pd.DataFrame(columns)


def _norm(values: Sequence[Any]) -> float:
    """Return the norm of arrays together."""
    with np.errstate(over="ignore"):
        flat = (as_real(np.asarray(value)).ravel().astype(float) for value in values if value is not None)
        return math.hypot(*(float(np.linalg.norm(x)) for x in flat))
