"""Rows about sparse gradients: a table of a million rows of 64 numbers, of which a step touches few."""

import warnings
from typing import Any

import numpy as np
import torch

import adamas
from adamas import RowSparse
from benchmarks.timing import Work
from benchmarks.work import Row, arrays

HEIGHT, WIDTH = 1_000_000, 64
BATCHES = 40
AMONG = 1.05
"""The exponent of Zipf's law, by which the rows of a step are drawn: words in a text."""


def batches(count: int) -> list[Any]:
    """Return rows of some steps, all different in a step, shuffled."""
    rng = np.random.default_rng(0)
    weights = np.arange(1, HEIGHT + 1.0) ** -AMONG
    below, names = np.cumsum(weights) / weights.sum(), rng.permutation(HEIGHT)
    drawn = []
    for _ in range(BATCHES if count < 50_000 else BATCHES // 4):
        rows = np.empty(0, np.int64)
        while len(rows) < count:
            rows = np.unique(np.concatenate([rows, np.searchsorted(below, rng.random(2 * count))]))
        drawn.append(names[rng.permutation(rows)[:count]])
    return drawn


def exact(count: int) -> Work:
    """Return our exact steps: rows are prepared, and then stepped. All rows have been stepped before."""
    (table,), (values,), steps = arrays([(HEIGHT, WIDTH)], 0), arrays([(count, WIDTH)], 1), batches(count)
    opt = adamas.AdamW()
    opt.update(table, np.ones_like(table))

    def step(run: int) -> None:
        rows = steps[run % len(steps)]
        opt.prepare(table, rows)
        opt.update(table, RowSparse(rows, values))

    for run in range(200 if count < 50_000 else 20):
        step(run)
    return step


def beside_dense(count: int) -> tuple[Work, Work]:
    """Return exact steps, and torch's fused ones of the whole table."""
    p = torch.nn.Parameter(torch.from_numpy(arrays([(HEIGHT, WIDTH)], 0)[0]))
    p.grad = torch.zeros_like(p)
    opt = torch.optim.AdamW([p], fused=True)
    return exact(count), lambda run: opt.step()


def beside_lazy(count: int) -> tuple[Work, Work]:
    """Return exact steps, and those of torch.optim.SparseAdam, which leave the other rows alone."""
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    (table,), (values,), steps = arrays([(HEIGHT, WIDTH)], 0), arrays([(count, WIDTH)], 1), batches(count)
    p = torch.nn.Parameter(torch.from_numpy(table))
    opt = torch.optim.SparseAdam([p])
    grads = [torch.sparse_coo_tensor(torch.from_numpy(rows)[None], torch.from_numpy(values), p.shape) for rows in steps]

    def step(run: int) -> None:
        p.grad = grads[run % len(grads)]
        opt.step()

    return exact(count), step


def behind(gap: int, t: int) -> Work:
    """Return making up, in each of 1,000 rows in the cache, for as many steps, after t of them."""
    (table,), rows = arrays([(1000, WIDTH)], 0), np.arange(1000)
    state = tuple(np.abs(array) for array in arrays([(1000, WIDTH)] * 2, 1))
    opt = adamas.AdamW()
    empty = RowSparse([], np.zeros((0, WIDTH), np.float32))
    opt._memory.adopt(table, {"": state}, max(0, t - 2 * gap - 100))
    while opt.t < t:
        opt.update(table, empty)
    known = opt._memory.tables[""]

    def step(run: int) -> None:
        opt.update(table, empty)
        known.last[:] = known.lapses.count - gap
        opt.prepare(table, rows)

    return step


def factorised(count: int) -> tuple[Work, Work]:
    """Return the optimizer's part of steps of `adamas train ratings`, exact and dense, for a million users."""
    rng, size = np.random.default_rng(0), {"user": HEIGHT, "item": 50_000}
    each = 1 / np.arange(1, size["item"] + 1) ** AMONG
    params = {name: rng.normal(0, 0.1, (rows, 17)).astype(np.float32) for name, rows in size.items()}
    others = {name: table.copy() for name, table in params.items()}
    steps = [
        {"user": rng.integers(0, HEIGHT, count), "item": rng.choice(size["item"], count, p=each / each.sum())}
        for _ in range(BATCHES)
    ]
    values = rng.standard_normal((count, 17)).astype(np.float32)
    whole = {name: np.zeros_like(table) for name, table in params.items()}
    opt, dense = adamas.AdamW(), adamas.AdamW()

    def ours(run: int) -> None:
        rows = steps[run % BATCHES]
        opt.prepare(params, rows)
        opt.update(params, {name: RowSparse(some, values) for name, some in rows.items()})

    return ours, lambda run: dense.update(others, whole)


TABLE = "1M rows of 64"
ROWS = [
    Row(f"{TABLE}: 0.1% sparse, exact", "torch fused, dense", lambda: beside_dense(1000), 80, 20, least=20),
    Row(f"{TABLE}: 0.1% sparse, exact", "torch SparseAdam", lambda: beside_lazy(1000), 3, least=20),
    Row(f"{TABLE}: 1% sparse, exact", "torch fused, dense", lambda: beside_dense(10_000), 14, 20),
    Row(f"{TABLE}: 1% sparse, exact", "torch SparseAdam", lambda: beside_lazy(10_000), 3.5),
    Row(f"{TABLE}: 10% sparse, exact", "torch fused, dense", lambda: beside_dense(100_000), 1.8, 20),
    Row(f"{TABLE}: 10% sparse, exact", "torch SparseAdam", lambda: beside_lazy(100_000), 3.5),
    Row("ratings of 1M users, 1,024 in a step, exact", "our dense steps", lambda: factorised(1024), 5, 20),
    Row("1,000 rows, 100 steps behind, t = 10^6", "t = 10^3", lambda: (behind(100, 10**6), behind(100, 1000)), 1 / 1.2),
    Row("1,000 rows, 10,000 steps behind", "10 behind", lambda: (behind(10_000, 10**5), behind(10, 10**5)), 1 / 1.2),
]
