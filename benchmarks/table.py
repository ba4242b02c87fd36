"""The table of sizes and peers: float32 AdamW, as ratios to adamas, and the picture of it."""

import gc
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.peers import Peer, ours, stream
from benchmarks.timing import Ratio, compare, short
from benchmarks.work import GPT2_SMALL, arrays

SIZES = {"2": 2, "64": 64, "1k": 1000, "16k": 16_000, "100k": 100_000, "1M": 10**6, "30M": 3 * 10**7, "100M": 10**8}
SHAPES: dict[str, list[tuple[int, ...]]] = {
    **{name: [(n,)] for name, n in SIZES.items()},
    "1,000 x 100": [(100,)] * 1000,
    "10,000 x 1,000": [(1000,)] * 10_000,
    "GPT-2 small": GPT2_SMALL,
}
QUICK = ("64", "16k", "1M", "1,000 x 100")

EXPECTED = {
    ("100M", "stream"): 0.95,
    ("100M", "torch fused"): 1.0,
    ("100M", "DeepSpeed"): 1.0,
    ("100M", "optax, jit"): 1.7,
    ("1M", "torch fused"): 1.3,
    ("100k", "torch fused"): 3.5,
    ("1,000 x 100", "torch fused"): 25.0,
    ("10,000 x 1,000", "torch fused"): 6.0,
    ("GPT-2 small", "torch fused"): 1.1,
}
"""The least ratios that are aimed at on two cores."""

Results = dict[str, dict[str, Ratio]]


def pairs_for(elements: int, quick: bool) -> int:
    return 9 if quick else 15 if elements >= 10**8 else 30


def measured(peers: list[Peer], quick: bool) -> Iterator[tuple[str, str, Ratio]]:
    """Yield work, peer and ratio; each peer's memory is freed before the next is made."""
    for work, shapes in SHAPES.items():
        if quick and work not in QUICK:
            continue
        params, grads = arrays(shapes, 0), arrays(shapes, 1)
        own, states = ours(params, grads)
        pairs = pairs_for(sum(p.size for p in params), quick)
        for name, make in [("stream", stream), *((p.name, p.make) for p in peers if len(shapes) <= p.most)]:
            yield work, name, compare(own, make(params, grads, states), pairs)
            gc.collect()


def as_tables(results: Results, title: str) -> Iterator[Table]:
    """Yield tables, rows by work, columns by peer; green is at least what was aimed at, red is less."""
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    for some in batched(names, 5):
        table = Table("float32 AdamW", *some, title=title, show_lines=True)
        for work, row in results.items():
            cells = (_cell(row[name], EXPECTED.get((work, name))) if name in row else "" for name in some)
            table.add_row(work, *cells)
        yield table


def batched(names: list[str], n: int) -> Iterator[list[str]]:
    for i in range(0, len(names), n):
        yield names[i : i + n]


def _cell(ratio: Ratio, expected: float | None) -> str:
    text = f"{short(ratio.median)}\n{short(ratio.low)}-{short(ratio.high)}"
    return text if expected is None else f"[{'green' if ratio.median >= expected else 'red'}]{text}[/]"


def plot(results: Results, path: Path) -> None:
    """Draw the cost per parameter against the size of one array, for all, on log axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    sizes = {work: n for work, n in SIZES.items() if work in results}
    names = dict.fromkeys(name for work in sizes for name in results[work])
    # Peers by their ratios, which hold while the speed of the memory drifts.
    ours = {work: statistics.median(r.ours for r in results[work].values()) / n for work, n in sizes.items()}
    lines = {"adamas": {n: ours[work] for work, n in sizes.items()}}
    for name in names:
        lines[name] = {n: ours[work] * results[work][name].median for work, n in sizes.items() if name in results[work]}
    colors = (color for color in mpl.color_sequences["tab10"] if len(set(color)) > 1)  # no grey
    for name, line in lines.items():
        style: dict[str, Any] = {"adamas": {"color": "black", "lw": 2.5}, "stream": {"color": "gray", "ls": "--"}}
        label = "what memory allows" if name == "stream" else name
        axes.plot(list(line), [1e9 * t for t in line.values()], marker="o", ms=4, label=label,
                  **style.get(name) or {"color": next(colors)})  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="parameters in one array", ylabel="nanoseconds per parameter")
    axes.set_title("A step of float32 AdamW")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
