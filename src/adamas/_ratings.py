"""The command `adamas train ratings`: users, items and ratings, and the factors that explain them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import adamas
from adamas._files import write_text
from adamas._flags import at_least, reject, told
from adamas.training.extras import require
from adamas.training.ratings import Factors, Pass, Ratings, fit, rmse_of_biases, rmse_of_mean
from adamas.training.runs import new_folder

MODES = ("exact", "lazy", "dense")


def train_ratings(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of user, item, rating.")],
    sparse: Annotated[str, typer.Option(help="exact, lazy or dense: what rows without a gradient do.")] = "exact",
    compare: Annotated[
        str | None, typer.Option(help="Several of those from the same start, such as dense,exact,lazy.")
    ] = None,
    factors: Annotated[int, typer.Option(help="Numbers that stand for a user, and for an item.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the ratings.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Ratings per step.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 5e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, decoupled.")] = 0.05,
    held_out: Annotated[float, typer.Option(help="The share of the ratings to judge by.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split, the first factors and the order of ratings.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the results.", show_default="runs/ratings-TIME")
    ] = None,
) -> None:
    """Factorise ratings: what would a user give an item?

    The file has a user, an item and a rating in each line, separated by commas, semicolons, tabs or '::', with or
    without a line of titles (MovieLens' files, user_id:token and the like). A tenth of the ratings is kept to judge by.
    A step sees few users and items: exact steps have the result of dense ones and cost what those rows cost; in lazy
    ones the other rows stand still. The folder of results holds config.json, history.jsonl, results.json, ratings.png
    and the factors.
    """
    for name, number in (("factors", factors), ("epochs", epochs), ("batch-size", batch_size)):
        at_least(1, f"--{name}", number)
    at_least(0, "--seed", seed)
    if not 0 < held_out < 1:
        reject("--held-out", f"must be between 0 and 1, got {held_out:g}")
    modes = [sparse] if compare is None else [mode.strip() for mode in compare.split(",")]
    if wrong := [mode for mode in modes if mode not in MODES]:
        reject("--compare" if compare else "--sparse", f"is {wrong[0]!r}: it must be {', '.join(MODES)}")
    if len(set(modes)) < len(modes):
        reject("--compare", f"names {max(modes, key=modes.count)} twice: name each once")
    require("matplotlib", "drawing ratings.png")
    require("safetensors", "keeping the factors")
    try:
        ratings = Ratings.read(file)
    except OSError as error:
        reject("FILE", f"{str(file)!r} cannot be read: {error.strerror or error}")
    except ValueError as error:
        reject("FILE", str(error))
    for_split, for_factors, for_order = np.random.default_rng(seed).spawn(3)
    train, test = ratings.split(for_split, held_out)
    print(f"{len(ratings):,} ratings of {len(ratings.item_names):,} items by {len(ratings.user_names):,} users")
    baselines = {"mean": rmse_of_mean(train, test), "biases": rmse_of_biases(train, test)}
    for name, rmse in baselines.items():
        print(f"held-out error of the {name}: {rmse:.4f}")
    first = Factors.init(ratings, factors, for_factors)
    order = for_order.integers(2**63)
    with told():
        optimizers = {
            mode: adamas.AdamW(learning_rate, weight_decay=weight_decay, sparse=mode if mode != "dense" else "exact")
            for mode in modes
        }
    config = {
        "task": "ratings", "adamas": adamas.__version__, "engine": adamas.engine, "data": str(file), "modes": modes,
        "factors": factors, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "held_out": held_out, "seed": seed,
    }  # fmt: skip
    try:
        folder = new_folder(out, "ratings", config)
    except OSError as error:
        reject("--out", f"{str(out or 'runs')!r} cannot be used: {error.strerror or error}: name a new folder")
    histories: dict[str, list[Pass]] = {}
    model = Factors(float(train.values.mean(dtype=np.float64)))
    for mode, optimizer in optimizers.items():
        params = {name: table.copy() for name, table in first.items()}
        with told():
            how = epochs, batch_size, int(order)
            histories[mode] = _fitted(mode, model, params, optimizer, train, test, how, folder)
        _keep(folder, mode, params, ratings)
    results = {mode: asdict(history[-1]) for mode, history in histories.items()}
    write_text(folder / "results.json", json.dumps({"baselines": baselines, **results}, indent=2) + "\n")
    _draw(histories, baselines, folder / "ratings.png", f"{file.name}, {factors} factors")
    if len(modes) > 1:
        _show(histories)
    print(f"the results are in {folder}")


def _fitted(
    mode: str,
    model: Factors,
    params: dict[str, Any],
    optimizer: Any,
    train: Ratings,
    test: Ratings,
    how: tuple[int, int, int],
    folder: Path,
) -> list[Pass]:
    """Fit, and show and keep each epoch."""
    epochs, batch_size, seed = how
    history = []
    print(f"{mode}: {optimizer!r}")
    options = {"epochs": epochs, "batch_size": batch_size, "rng": np.random.default_rng(seed)}
    for one in fit(model, params, optimizer, train, test, **options, dense=mode == "dense"):  # type: ignore[arg-type]
        history.append(one)
        print(
            f"epoch {one.epoch:>3}: training error {one.train_rmse:.4f}, held-out error {one.rmse:.4f}, "
            f"{one.seconds:.2f} s, of which the optimizer {one.optimizer_seconds:.2f} s",
            flush=True,
        )
        with (folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"sparse": mode, **asdict(one)}) + "\n")
    return history


def _keep(folder: Path, mode: str, params: dict[str, Any], ratings: Ratings) -> None:
    from adamas.training import weights  # noqa: PLC0415 - needs safetensors

    weights.save(params, folder / f"factors-{mode}.safetensors")
    names = {"users": ratings.user_names, "items": ratings.item_names}
    write_text(folder / "names.json", json.dumps(names, ensure_ascii=False) + "\n")


def _draw(histories: dict[str, list[Pass]], baselines: dict[str, float], path: Path, title: str) -> None:
    """Draw the held-out errors over the epochs, and over the seconds of the optimizer."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional; no pyplot, so no display

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for k, (mode, history) in enumerate(histories.items()):
        errors, style = [one.rmse for one in history], {"color": f"C{k}", "marker": "os^"[k % 3], "label": mode}
        left.plot([one.epoch for one in history], errors, alpha=0.7, **style)
        right.plot([one.optimizer_seconds for one in history], errors, alpha=0.7, **style)
    for axes, label in ((left, "epoch"), (right, "seconds of the optimizer")):
        axes.axhline(baselines["biases"], color="gray", linestyle=":", label="biases alone")
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    right.set_xscale("log")
    left.set(ylabel="held-out root mean square error")
    left.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _show(histories: dict[str, list[Pass]]) -> None:
    """Print the runs side by side."""
    print(f"{'':8}{'error':>9}{'seconds':>10}{'optimizer':>11}")
    for mode, history in histories.items():
        last = history[-1]
        print(f"{mode:8}{last.rmse:>9.4f}{last.seconds:>10.2f}{last.optimizer_seconds:>11.2f}")
