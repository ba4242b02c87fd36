"""Ratings: matrix factorisation with biases, whose gradients are of few rows of two large tables.

The rating of an item by a user is the mean of all, what the user and the item add to it, and how well the factors of
the two agree (Koren, Bell and Volinsky 2009, "Matrix Factorization Techniques for Recommender Systems", eq. 4).
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas import RowSparse

__all__ = ["Factors", "Pass", "Ratings", "fit", "rmse_of_biases", "rmse_of_mean"]

Array = NDArray[Any]

COLUMNS = {
    "user": ("user", "user_id", "userid", "uid", "reviewer", "reviewerid"),
    "item": (
        "item",
        "item_id",
        "itemid",
        "iid",
        "movie",
        "movie_id",
        "movieid",
        "product",
        "product_id",
        "asin",
        "book",
    ),
    "rating": ("rating", "ratings", "score", "stars", "overall", "value"),
}
"""What columns are called in the first line of a file, in any case, and with or without ':' and a type behind."""


LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Ratings:
    """Ratings, each (user, item, value): vectors of int64, int64 and float32; and the names of users and items."""

    users: Array
    items: Array
    values: Array
    user_names: list[str]
    item_names: list[str]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Array) -> "Ratings":
        """Return some of the ratings, with the names of all."""
        return Ratings(self.users[indices], self.items[indices], self.values[indices], self.user_names, self.item_names)

    def split(self, rng: np.random.Generator, held_out: float = 0.1) -> tuple["Ratings", "Ratings", "Ratings"]:
        """Return those to train on, those that say when to stop, and those to judge by: a share each of the last two.

        held_out: that share, between 0 and 1/2. There is one at least of each.
        """
        order, count = rng.permutation(len(self)), min(max(1, round(held_out * len(self))), (len(self) - 1) // 2)
        return self.take(order[2 * count :]), self.take(order[count : 2 * count]), self.take(order[:count])

    @classmethod
    def read(cls, path: Path) -> "Ratings":
        """Return the ratings in a file: lines of user, item and rating, with whatever stands behind.

        The columns are separated by '::', tabs, commas or semicolons. A first line without a number for a rating names
        the columns, as `COLUMNS` knows them. Users and items may be any text. Raises OSError if it cannot be read, and
        ValueError, naming the line, if a line is not such.
        """
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                rows = _rows(file)
                first = next(rows, None)
                if first is None:
                    raise ValueError(f"{path} is empty: it needs lines of user, item and rating")
                places = _places(path, *first)
                if places is None:
                    return cls._of(path, {"user": 0, "item": 1, "rating": 2}, chain([first], rows))
                return cls._of(path, places, rows)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is no text with columns: {error}") from None

    @classmethod
    def _of(cls, path: Path, places: Mapping[str, int], rows: Iterable[tuple[int, list[str]]]) -> "Ratings":
        names: tuple[dict[str, int], dict[str, int]] = ({}, {})
        numbers: tuple[list[int], list[int]] = ([], [])
        values = []
        for number, row in rows:
            if len(row) <= max(places.values()):
                raise ValueError(
                    f"{path}, line {number}: {len(row)} columns, and user, item and rating are to be in columns "
                    f"{', '.join(str(places[name] + 1) for name in COLUMNS)}"
                )
            for known, found, name in zip(names, numbers, ("user", "item"), strict=True):
                text = row[places[name]].strip()
                if not text:
                    raise ValueError(f"{path}, line {number}: the {name} is empty")
                found.append(known.setdefault(text, len(known)))
            value = _number(row[places["rating"]])
            if not math.isfinite(value):
                raise ValueError(f"{path}, line {number}: the rating {row[places['rating']]!r:.40} is no number")
            values.append(value)
        if len(values) < 3:
            raise ValueError(f"{path} has {len(values)} ratings: it needs three at least, two of them to judge by")
        return cls(
            np.array(numbers[0]), np.array(numbers[1]), np.array(values, np.float32), list(names[0]), list(names[1])
        )


def _rows(file: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the columns of each line that is not empty."""
    start = file.read(4096)
    file.seek(0)
    if len(start.lstrip().partition("\n")[0].split("::")) > 2:
        yield from ((n, line.rstrip("\r\n").split("::")) for n, line in enumerate(file, start=1) if line.strip())
        return
    separator = next((mark for mark in "\t;" if mark in start.partition("\n")[0]), ",")
    reader = csv.reader(file, delimiter=separator)
    yield from ((reader.line_num, row) for row in reader if row)


def _places(path: Path, number: int, row: list[str]) -> dict[str, int] | None:
    """Return where the columns are if a row names them, None if it is a rating."""
    if len(row) > 2 and math.isfinite(_number(row[2])):
        return None
    titles = [title.strip().partition(":")[0].lower() for title in row]
    places = {}
    for name, known in COLUMNS.items():
        found = [i for i, title in enumerate(titles) if title in known]
        if not found:
            raise ValueError(
                f"{path}, line {number}: {', '.join(map(repr, row))[:80]} is neither user, item and rating nor has it "
                f"a title for the {name}, such as {name!r}"
            )
        places[name] = found[0]
    return places


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


# --- the model --------------------------------------------------------------------------------------------------------


class Factors:
    """The model of ratings; its parameters are {"user": (users, 1 + factors), "item": ...}, float32, a row for each.

    The first column of a table is what the user or item adds to a rating.
    """

    def __init__(self, mean: float) -> None:
        self.mean = np.float32(mean)

    @staticmethod
    def init(ratings: Ratings, factors: int, rng: np.random.Generator) -> dict[str, Array]:
        """Return the first parameters: small factors, and no biases."""
        tables = {}
        for name, count in (("user", len(ratings.user_names)), ("item", len(ratings.item_names))):
            tables[name] = rng.normal(0, 0.1, (count, 1 + factors)).astype(np.float32)
            tables[name][:, 0] = 0
        return tables

    def predict(self, params: Mapping[str, Array], users: Array, items: Array) -> Array:
        """Return the ratings of items by users."""
        u, v = params["user"][users], params["item"][items]
        products: Array = np.einsum("ij,ij->i", u[:, 1:], v[:, 1:])
        return self.mean + u[:, 0] + v[:, 0] + products

    def gradients(self, params: Mapping[str, Array], batch: Ratings) -> tuple[float, dict[str, RowSparse]]:
        """Return half the mean square error of a batch, and its gradients."""
        u, v = params["user"][batch.users], params["item"][batch.items]
        products = np.einsum("ij,ij->i", u[:, 1:], v[:, 1:])
        errors = (self.mean + u[:, 0] + v[:, 0] + products) - batch.values
        scaled = (errors / np.float32(len(batch)))[:, None]
        du, dv = scaled * v, scaled * u
        du[:, 0] = dv[:, 0] = scaled[:, 0]
        loss = float(np.mean(errors.astype(np.float64) ** 2)) / 2
        return loss, {"user": RowSparse(batch.users, du), "item": RowSparse(batch.items, dv)}

    def rmse(self, params: Mapping[str, Array], ratings: Ratings) -> float:
        """Return the root of the mean square error."""
        errors = self.predict(params, ratings.users, ratings.items).astype(np.float64) - ratings.values
        return float(np.sqrt(np.mean(errors**2)))


def rmse_of_mean(train: Ratings, test: Ratings) -> float:
    """Return the error of always saying the mean."""
    return float(np.sqrt(np.mean((test.values - train.values.mean(dtype=np.float64)) ** 2)))


def rmse_of_biases(train: Ratings, test: Ratings, damping: float = 5.0) -> float:
    """Return the error of the mean and what user and item add, each damped by so many ratings of the mean."""
    mean = train.values.mean(dtype=np.float64)
    of_items, of_users = np.zeros(len(train.item_names)), np.zeros(len(train.user_names))
    for _ in range(5):
        for totals, rows, others in (
            (of_items, train.items, of_users[train.users]), (of_users, train.users, of_items[train.items])
        ):  # fmt: skip
            rest = train.values - mean - others
            sums = np.bincount(rows, rest, len(totals))
            totals[:] = sums / (np.bincount(rows, minlength=len(totals)) + damping)
    return float(np.sqrt(np.mean((mean + of_users[test.users] + of_items[test.items] - test.values) ** 2)))


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """What is known after an epoch: root mean square errors in training and in validation, and seconds."""

    epoch: int
    steps: int
    train_rmse: float
    validation_rmse: float
    seconds: float
    optimizer_seconds: float


def fit(
    model: Factors,
    params: dict[str, Array],
    optimizer: Any,
    train: Ratings,
    validation: Ratings,
    *,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    dense: bool = False,
) -> Iterator[Pass]:
    """Fit the model, and yield what is known after each epoch; params are overwritten.

    dense: whether the optimizer gets dense gradients. What that takes to make is not counted as the optimizer's time.
    """
    seconds, spent, steps = 0.0, 0.0, 0
    sizes = {name: len(table) for name, table in params.items()}
    for epoch in range(1, epochs + 1):
        losses, order = 0.0, rng.permutation(len(train))
        for first in range(0, len(order), batch_size):
            batch = train.take(order[first : first + batch_size])
            start = perf_counter()
            if not dense:
                optimizer.prepare(params, {"user": batch.users, "item": batch.items})
            prepared = perf_counter()
            loss, sparse = model.gradients(params, batch)
            given = {name: g.dense(sizes[name]) for name, g in sparse.items()} if dense else sparse
            known = perf_counter()
            optimizer.update(params, given)
            end = perf_counter()
            seconds += end - start
            spent += (prepared - start) + (end - known)
            losses += loss * len(batch) / len(order)
            steps += 1
        start = perf_counter()
        optimizer.flush(params)
        spent += perf_counter() - start
        yield Pass(epoch, steps, math.sqrt(2 * losses), model.rmse(params, validation), seconds, spent)
