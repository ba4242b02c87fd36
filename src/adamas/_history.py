"""A recorder of what an optimizer did: losses, parameters, gradients, state, effective learning rates."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from adamas import _tree

Array = Any

LARGE = 1000
"""Coordinates from which only a subset is recorded, if none is chosen."""


class History:
    """What happened at each step, or at every few of them; as arrays by name, one row for each recorded step.

    ``adamas.minimize(..., history=history)`` fills it; elsewhere call `record` after each update.

    every: records each so many steps. most: the rows that are kept: when there are more, every other one is dropped,
    and from then on only half as many steps are recorded. coordinates: which ones, as indices into all parameters laid
    end to end; all, if there are at most 1,000, else 1,000 spread evenly.

    Names of arrays: step, loss, x, g, the rule's state (such as m and v), rate (the effective learning rate, with bias
    correction, where the rule has one), change (from the row before), grad_norm, param_norm.
    """

    def __init__(self, *, every: int = 1, most: int = 10_000, coordinates: Any = None) -> None:
        for name, number in (("every", every), ("most", most)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1 + (name == "most"):
                raise ValueError(f"{name} must be an integer of at least {1 + (name == 'most')}, got {number!r}")
        self.every, self.most = every, most
        self.coordinates = None if coordinates is None else np.asarray(coordinates)
        self.rows: list[dict[str, Any]] = []

    def record(self, step: int, loss: Any, params: Any, grads: Any, optimizer: Any) -> None:
        """Record a step that was just taken.

        step: counted from 1. params: after it. loss, None if it is not known, and grads: before it.
        optimizer: of the package, or None.
        """
        if step % self.every:
            return
        x, g = _flat(params), _flat(grads)
        if self.coordinates is None:
            self.coordinates = np.arange(len(x)) if len(x) <= LARGE else np.linspace(0, len(x) - 1, LARGE).astype(int)
        chosen = self.coordinates
        with np.errstate(over="ignore"):
            norms = {"grad_norm": float(np.linalg.norm(g)), "param_norm": float(np.linalg.norm(x))}
        value = np.nan if loss is None else np.asarray(loss, float)
        row: dict[str, Any] = {"step": step, "loss": value, "x": x[chosen], "g": g[chosen], **norms}
        if optimizer is not None:
            row |= self._of_state(optimizer, chosen)
        before = self.rows[-1]["x"] if self.rows else row["x"]
        row["change"] = row["x"] - before
        self.rows.append(row)
        if len(self.rows) > self.most:
            self.rows = self.rows[1::2]
            self.every *= 2

    def _of_state(self, optimizer: Any, chosen: Array) -> dict[str, Array]:
        names, states = optimizer.rule.state_names, list(optimizer.state.values())
        flat = {name: np.concatenate([np.ravel(state[name]) for state in states])[chosen] for name in names}
        if optimizer.rule.rate is not None:
            with np.errstate(all="ignore"):
                flat["rate"] = optimizer.rule.rate(np, optimizer.at(optimizer.t), *flat.values())
        return flat

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        """Return an array by name: a row for each recorded step."""
        if self.rows and name not in self.rows[0]:
            raise KeyError(f"{name!r} was not recorded: there are {', '.join(self.rows[0])}")
        return np.array([row[name] for row in self.rows])

    @property
    def update_ratio(self) -> Array:
        """The norm of the change over that of the parameters, of the recorded coordinates: healthy near 1e-3."""
        change, x = self["change"], self["x"]
        norms = np.linalg.norm(x.reshape(len(x), -1), axis=1)
        return np.linalg.norm(change.reshape(len(x), -1), axis=1) / np.where(norms == 0, 1, norms)

    def save(self, path: str | Path) -> None:
        """Write JSON lines, one for each row."""
        lines = (json.dumps({name: np.asarray(value).tolist() for name, value in row.items()}) for row in self.rows)
        Path(path).write_text("".join(f"{line}\n" for line in lines))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Return what `save` wrote."""
        history = cls()
        for line in Path(path).read_text().splitlines():
            row = json.loads(line)
            history.rows.append(
                {name: np.array(value) if isinstance(value, list) else value for name, value in row.items()}
            )
        return history

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame: a column for each number, and for each coordinate of the others."""
        import pandas as pd  # noqa: PLC0415 - optional

        columns: dict[str, Array] = {}
        for name in self.rows[0] if self.rows else ():
            array = self[name].reshape(len(self), -1)
            columns |= {name if array.shape[1] == 1 else f"{name}[{i}]": array[:, i] for i in range(array.shape[1])}
        return pd.DataFrame(columns)


def _flat(tree: Any) -> Array:
    """Return all numbers of a tree laid end to end; of a single array as they are nested, rows being many starts."""
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for _, leaf in _tree.leaves(tree) if leaf is not None])
