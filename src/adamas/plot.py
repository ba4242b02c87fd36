"""Pictures of what optimizers did, with matplotlib: each function draws into `ax`, or new axes, and returns them.

Nothing global is touched, so they work without a display. Runs are `adamas.History` by label. Colours are told apart by
the colour-blind, and lines by their style in print; what diverged is marked, not clipped away.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

try:
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("adamas.plot needs matplotlib, which is missing: pip install 'adamas[plot]'") from error

from adamas._history import History
from adamas._space import LogUniform
from adamas._tune import Tuned
from adamas.problems import Problem

__all__ = [
    "animate",
    "effective_rates",
    "gradient_norm",
    "heat_map",
    "loss",
    "loss_band",
    "overview",
    "rate_band",
    "trajectory",
    "tuning",
    "update_ratio",
]

Axes = Any
Runs = Mapping[str, History]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito 2008, "Color universal design"."""
STYLES = ("-", "--", "-.", ":")


def _axes(ax: Axes | None) -> Axes:
    return Figure(figsize=(6.4, 4.8), layout="constrained").subplots() if ax is None else ax


def _lines() -> Any:
    """Return looks that differ in colour and, for print, in style."""
    return ({"color": color, "linestyle": style} for color, style in zip(cycle(COLORS), cycle(STYLES), strict=False))


def trajectory(problem: Problem, runs: Runs, *, ax: Axes | None = None, levels: int = 25) -> Axes:
    """Draw the paths of runs of two variables over contours of the function, evenly spaced in its logarithm.

    The start is a ring, ends are squares, minimizers stars. A path that leaves the picture ends in a cross at its edge.
    """
    if problem.n != 2:
        raise ValueError(f"a trajectory is drawn in two dimensions, but {problem.name} has {problem.n}")
    ax = _axes(ax)
    paths = {label: np.concatenate([problem.start[None], run["x"]]) for label, run in runs.items()}
    low, high = _window(problem, list(paths.values()))
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True))), axis=-1)
    value = problem.value(grid)
    gap = np.maximum(value - (problem.minimum if np.isfinite(problem.minimum) else value.min()), 1e-12)
    edges = np.geomspace(max(np.quantile(gap, 0.001), gap.max() * 1e-8), gap.max(), levels)
    ax.contourf(*np.moveaxis(grid, -1, 0), gap, levels=edges, norm=LogNorm(), cmap="Greys", alpha=0.5, extend="min")
    ax.contour(*np.moveaxis(grid, -1, 0), gap, levels=edges, colors="gray", linewidths=0.4)
    for (label, path), look in zip(paths.items(), _lines(), strict=False):
        inside = np.isfinite(path).all(axis=1) & (path >= low).all(axis=1) & (path <= high).all(axis=1)
        end = len(path) if inside.all() else max(int(np.argmin(inside)), 1)
        ax.plot(*path[:end].T, label=label, lw=1.4, **look)
        left = end < len(path)
        ax.plot(*path[end - 1], "X" if left else "s", color=look["color"], ms=8 if left else 6, mec="white")
    ax.plot(*problem.start, "o", mfc="none", mec="black", ms=9, label="start")
    if len(problem.minimizers):
        ax.plot(*problem.minimizers.T, "*", color="black", ms=12, ls="none", label="minimum")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=problem.name, xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.legend()
    return ax


def animate(
    problem: Problem,
    runs: Runs,
    path: str | Path,
    *,
    frames: int = 60,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write the growing trajectories of runs of two variables as a GIF.

    progress: called with the number of each frame and how many there are.
    """
    ax = trajectory(problem, runs)
    paths = [(line, line.get_xydata()) for line in ax.lines if line.get_label() in runs]
    for mark in [line for line in ax.lines if line.get_marker() in ("s", "X")]:
        mark.remove()
    longest = max(len(points) for _, points in paths)
    shown = np.linspace(1, longest, min(frames, longest)).astype(int)

    def draw(count: int) -> list[Any]:
        for line, points in paths:
            line.set_data(*points[:count].T)
        return [line for line, _ in paths]

    movie = FuncAnimation(ax.figure, draw, frames=list(shown), interval=50)
    movie.save(path, writer=PillowWriter(fps=20), progress_callback=progress)


def _window(problem: Problem, paths: list[Any]) -> tuple[Any, Any]:
    """Return the corners of what is shown: start, minimizers, and paths as far as they stay near the domain."""
    low, high = problem.domain.T
    low, high = low - (high - low) / 2, high + (high - low) / 2
    points = [problem.start[None], problem.minimizers, *paths]
    shown = np.concatenate([p[(p >= low).all(axis=1) & (p <= high).all(axis=1)] for p in points])
    margin = 0.15 * np.maximum(np.ptp(shown, axis=0), 0.2)
    return shown.min(axis=0) - margin, shown.max(axis=0) + margin


def loss(runs: Runs, *, minimum: float = 0.0, ax: Axes | None = None) -> Axes:
    """Draw how far the loss is above a minimum, on a log axis; a cross marks where a run diverged."""
    ax = _axes(ax)
    for (label, run), look in zip(runs.items(), _lines(), strict=False):
        step, gap = run["step"], run["loss"] - minimum
        finite = np.isfinite(gap)
        ax.plot(step[finite], np.maximum(gap[finite], np.finfo(float).tiny), label=label, **look)
        if not finite.all() and finite.any():
            last = int(np.argmin(finite)) - 1
            ax.plot(step[last], gap[last], "X", color=look["color"], ms=9)
    ax.set(yscale="log", xlabel="step", ylabel="loss" if minimum == 0 else "loss above the minimum")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def loss_band(runs: Mapping[str, Any], *, steps: Any = None, ax: Axes | None = None) -> Axes:
    """Draw the median loss over seeds, and its quartiles as a band, of arrays (seeds, steps) by label."""
    ax = _axes(ax)
    for (label, losses), look in zip(runs.items(), _lines(), strict=False):
        low, middle, high = np.quantile(np.asarray(losses), [0.25, 0.5, 0.75], axis=0)
        at = np.arange(1, len(middle) + 1) if steps is None else steps
        ax.fill_between(at, low, high, color=look["color"], alpha=0.2, lw=0)
        ax.plot(at, middle, label=label, **look)
    ax.set(yscale="log", xlabel="step", ylabel="loss")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def effective_rates(run: History, *, coordinates: Any = (0, 1), axes: Any = None) -> Any:
    """Draw the value of some parameters, and below it their effective learning rates, over the steps; return both axes.

    The effective learning rate is learning_rate / (sqrt(v_hat) + epsilon), with bias correction: what the mean gradient
    is multiplied by.
    """
    if axes is None:
        axes = Figure(figsize=(6.4, 6.4), layout="constrained").subplots(2, sharex=True)
    for i, look in zip(coordinates, _lines(), strict=False):
        axes[0].plot(run["step"], run["x"][:, i], label=f"$x_{i + 1}$", **look)
        axes[1].plot(run["step"], run["rate"][:, i], label=f"$x_{i + 1}$", **look)
    axes[0].set(ylabel="parameter")
    axes[1].set(yscale="log", xlabel="step", ylabel="effective learning rate")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend()
    return axes


def update_ratio(runs: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw the size of each change over that of the parameters, beside the line at 1e-3 that is usual for networks."""
    ax = _axes(ax)
    for (label, run), look in zip(runs.items(), _lines(), strict=False):
        ratio = run.update_ratio
        known = np.isfinite(ratio)
        ax.plot(run["step"][known], np.maximum(ratio[known], np.finfo(float).tiny), label=label, **look)
    ax.axhline(1e-3, color="gray", lw=1, label="1e-3")
    ax.set(yscale="log", xlabel="step", ylabel="change / parameters")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def gradient_norm(runs: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw the norm of all gradients together, before they are clipped."""
    ax = _axes(ax)
    for (label, run), look in zip(runs.items(), _lines(), strict=False):
        ax.plot(run["step"], np.maximum(run["grad_norm"], np.finfo(float).tiny), label=label, **look)
    ax.set(yscale="log", xlabel="step", ylabel="gradient norm")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def rate_band(runs: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw the mean effective learning rate of all parameters, with a band from the least to the greatest.

    Where only coordinates were recorded, of those; of runs without such rates, the learning rate.
    """
    ax = _axes(ax)
    for (label, run), look in zip(runs.items(), _lines(), strict=False):
        rows = run.rows[0]
        if "rate" not in rows:
            ax.plot(run["step"], run["learning_rate"], label=f"{label}: learning rate", **look)
            continue
        whole = "rate_mean" in rows
        rates = np.stack([run["rate_min"], run["rate_mean"], run["rate_max"]], axis=1) if whole else run["rate"]
        least, middle, most = rates.min(axis=1), rates[:, 1] if whole else rates.mean(axis=1), rates.max(axis=1)
        ax.fill_between(run["step"], least, most, color=look["color"], alpha=0.2, lw=0)
        ax.plot(run["step"], middle, label=label, **look)
    ax.set(yscale="log", xlabel="step", ylabel="effective learning rate")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def overview(runs: Runs) -> list[Axes]:
    """Draw losses, sizes of changes, gradient norms and effective learning rates into a figure; return its axes."""
    axes = list(Figure(figsize=(11, 7.5), layout="constrained").subplots(2, 2, sharex=True).flat)
    for draw, ax in zip((loss, update_ratio, gradient_norm, rate_band), axes, strict=True):
        draw(runs, ax=ax)
    for ax in axes[:2]:
        ax.set_xlabel("")
    return axes


def heat_map(x: Any, y: Any, losses: Any, *, labels: tuple[str, str], ax: Axes | None = None) -> Axes:
    """Draw final losses, an array (len(y), len(x)), over two hyper-parameters; crosses mark what diverged."""
    ax, losses = _axes(ax), np.asarray(losses, float)
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(losses), norm=LogNorm(), cmap="viridis_r", shading="nearest")
    ax.figure.colorbar(mesh, ax=ax, label="final loss")
    rows, columns = np.nonzero(~np.isfinite(losses))
    ax.plot(np.asarray(x)[columns], np.asarray(y)[rows], "x", color="black", ls="none")
    ax.set(xscale="log", xlabel=labels[0], ylabel=labels[1])
    return ax


def tuning(result: Tuned) -> list[Axes]:
    """Draw a search into a figure: scores in order, by the first hyper-parameter, over two, and importances.

    Crosses mark trials that diverged or failed; the band by the first hyper-parameter is from quartile to quartile.
    """
    axes = list(Figure(figsize=(11, 7.5), layout="constrained").subplots(2, 2).flat)
    scored = [trial for trial in result.trials if trial.score is not None]
    good = [trial for trial in scored if trial.score is not None and trial.score < 1e30]
    numbers, scores = [trial.number for trial in good], np.array([trial.score for trial in good], float)
    floor = max(scores.min(initial=np.inf), 1e-300) if len(scores) and scores.min() >= 0 else None
    shown = scores if floor is None else np.maximum(scores, floor)
    names = sorted(result.space, key=lambda name: name != "learning_rate")
    axes[0].plot(numbers, shown, ".", color=COLORS[0], label="trial")
    axes[0].step(numbers, np.minimum.accumulate(shown), color=COLORS[1], where="post", label="best so far")
    if bad := [trial.number for trial in result.trials if trial not in good]:
        top = [0.97] * len(bad)
        axes[0].plot(bad, top, "x", color="black", transform=axes[0].get_xaxis_transform(), label="no score")
    axes[0].set(xlabel="trial", ylabel="score")
    axes[0].legend()
    _by_value(axes[1], names[0], [trial.params[names[0]] for trial in good], shown)
    if len(names) > 1:
        x, y = ([trial.params[name] for trial in good] for name in names[:2])
        points = axes[2].scatter(x, y, c=shown, cmap="viridis_r", norm=LogNorm() if floor is not None else None, s=18)
        axes[2].figure.colorbar(points, ax=axes[2], label="score")
        axes[2].set(xlabel=names[0], ylabel=names[1])
    shares = result.sensitivity if find_spec("optuna") else {}
    axes[3].barh(list(shares), list(shares.values()), color=COLORS[2])
    axes[3].set(xlabel="importance", xlim=(0, 1))
    for ax in axes[:2]:
        ax.set_yscale("log" if floor is not None else "linear")
        ax.grid(alpha=0.3)
    for ax, name in ((axes[1], names[0]), (axes[2], names[0])):
        ax.set_xscale("log" if isinstance(result.space[name], LogUniform) else "linear")
    return axes


def _by_value(ax: Axes, name: str, values: Any, scores: Any) -> None:
    """Draw scores by the values of a hyper-parameter: median and quartiles of neighbours."""
    ax.plot(values, scores, ".", color=COLORS[0])
    ax.set(xlabel=name, ylabel="score")
    if len(scores) < 20 or isinstance(values[0], str | bool):
        return
    order = np.argsort(values)
    parts = np.array_split(order, min(12, len(order) // 5))
    middle = [np.median(np.array(values)[part]) for part in parts]
    low, median, high = np.array([np.quantile(scores[part], [0.25, 0.5, 0.75]) for part in parts]).T
    ax.fill_between(middle, low, high, color=COLORS[1], alpha=0.2, lw=0)
    ax.plot(middle, median, color=COLORS[1])
