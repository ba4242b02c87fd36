"""The command `adamas train ratings`: users, items and ratings, and the factors that explain them."""

import json
from dataclasses import asdict, dataclass
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
    epochs: Annotated[int, typer.Option(help="Passes over the ratings, at most.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Ratings per step.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 5e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, decoupled.")] = 0.2,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation error, after which it ends.")] = 2,
    held_out: Annotated[
        float, typer.Option(help="The share of the ratings to judge by, and that to validate with.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split, the first factors and the order of ratings.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the results.", show_default="runs/ratings-TIME")
    ] = None,
) -> None:
    """Factorise ratings: what would a user give an item?

    The file has a user, an item and a rating in each line, separated by commas, semicolons, tabs or '::', with or
    without a line of titles (MovieLens' files, user_id:token and the like). A tenth of the ratings says when to stop,
    and the factors of the best epoch are kept; another tenth judges them. A step sees few users and items: exact steps
    have the result of dense ones and cost what those rows cost; in lazy ones the other rows stand still. The folder of
    results holds config.json, history.jsonl, results.json, ratings.png and the factors.
    """
    for name, number in (("factors", factors), ("epochs", epochs), ("batch-size", batch_size), ("patience", patience)):
        at_least(1, f"--{name}", number)
    at_least(0, "--seed", seed)
    if not 0 < held_out < 0.5:
        reject("--held-out", f"must be between 0 and 0.5, got {held_out:g}")
    modes = _modes(sparse, compare)
    require("matplotlib", "drawing ratings.png")
    require("safetensors", "keeping the factors")
    with told():
        how: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        optimizers = {mode: adamas.AdamW(**how, sparse=mode if mode != "dense" else "exact") for mode in modes}
    ratings = _read(file)
    for_split, for_factors, for_order = np.random.default_rng(seed).spawn(3)
    parts = train, _, test = ratings.split(for_split, held_out)
    print(f"{len(ratings):,} ratings of {len(ratings.item_names):,} items by {len(ratings.user_names):,} users")
    baselines = {"mean": rmse_of_mean(train, test), "biases": rmse_of_biases(train, test)}
    for name, rmse in baselines.items():
        print(f"held-out error of the {name}: {rmse:.4f}")
    config = {
        "task": "ratings", "adamas": adamas.__version__, "engine": adamas.engine, "data": str(file), "modes": modes,
        "factors": factors, "epochs": epochs, "batch_size": batch_size, **how, "patience": patience,
        "held_out": held_out, "seed": seed,
    }  # fmt: skip
    try:
        folder = new_folder(out, "ratings", config)
    except OSError as error:
        reject("--out", f"{str(out or 'runs')!r} cannot be used: {error.strerror or error}: name a new folder")
    fits = {}
    first, order = Factors.init(ratings, factors, for_factors), int(for_order.integers(2**63))
    for mode, optimizer in optimizers.items():
        params = {name: table.copy() for name, table in first.items()}
        with told():
            fits[mode] = _fitted(mode, params, optimizer, parts, (epochs, batch_size, patience, order), folder)
        _keep(folder, mode, fits[mode].params, ratings)
    results = {mode: one.results for mode, one in fits.items()}
    write_text(folder / "results.json", json.dumps({"baselines": baselines, **results}, indent=2) + "\n")
    _draw(fits, baselines, folder / "ratings.png", f"{file.name}, {factors} factors")
    _show(fits)
    print(f"the results are in {folder}")


@dataclass
class Fit:
    """A fit that has ended: what is known of each epoch, the parameters of the best, and its error on the test part."""

    history: list[Pass]
    params: dict[str, Any]
    best: Pass
    rmse: float

    @property
    def results(self) -> dict[str, float]:
        """What results.json says of it."""
        last = self.history[-1]
        return {
            "rmse": self.rmse, "validation_rmse": self.best.validation_rmse, "best_epoch": self.best.epoch,
            "epochs": last.epoch, "seconds": last.seconds, "optimizer_seconds": last.optimizer_seconds,
        }  # fmt: skip


def _modes(sparse: str, compare: str | None) -> list[str]:
    """Return how rows without a gradient are stepped, in each of the fits."""
    modes = [sparse] if compare is None else [mode.strip() for mode in compare.split(",")]
    if wrong := [mode for mode in modes if mode not in MODES]:
        reject("--compare" if compare else "--sparse", f"is {wrong[0]!r}: it must be {', '.join(MODES)}")
    if len(set(modes)) < len(modes):
        reject("--compare", f"names {max(modes, key=modes.count)} twice: name each once")
    return modes


def _read(file: Path) -> Ratings:
    try:
        return Ratings.read(file)
    except OSError as error:
        reject("FILE", f"{str(file)!r} cannot be read: {error.strerror or error}")
    except ValueError as error:
        reject("FILE", str(error))


def _fitted(
    mode: str,
    params: dict[str, Any],
    optimizer: Any,
    parts: tuple[Ratings, Ratings, Ratings],
    how: tuple[int, int, int, int],
    folder: Path,
) -> Fit:
    """Fit, show and keep each epoch, and stop when it has got no better for some."""
    epochs, batch_size, patience, seed = how
    train, validation, test = parts
    model, history, best, kept = Factors(float(train.values.mean(dtype=np.float64))), [], None, params
    print(f"{mode}: {optimizer!r}")
    options = {"epochs": epochs, "batch_size": batch_size, "rng": np.random.default_rng(seed)}
    for one in fit(model, params, optimizer, train, validation, **options, dense=mode == "dense"):  # type: ignore[arg-type]
        history.append(one)
        print(
            f"epoch {one.epoch:>3}: training error {one.train_rmse:.4f}, validation error {one.validation_rmse:.4f}, "
            f"{one.seconds:.2f} s, of which the optimizer {one.optimizer_seconds:.2f} s",
            flush=True,
        )
        with (folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"sparse": mode, **asdict(one)}) + "\n")
        if best is None or one.validation_rmse < best.validation_rmse:
            best, kept = one, {name: table.copy() for name, table in params.items()}
        elif one.epoch - best.epoch >= patience:
            break
    assert best is not None  # there is one epoch at least
    return Fit(history, kept, best, model.rmse(kept, test))


def _keep(folder: Path, mode: str, params: dict[str, Any], ratings: Ratings) -> None:
    from adamas.training import weights  # noqa: PLC0415 - needs safetensors

    weights.save(params, folder / f"factors-{mode}.safetensors")
    names = {"users": ratings.user_names, "items": ratings.item_names}
    write_text(folder / "names.json", json.dumps(names, ensure_ascii=False) + "\n")


def _draw(fits: dict[str, Fit], baselines: dict[str, float], path: Path, title: str) -> None:
    """Draw the validation errors over the epochs, and over the seconds of the optimizer."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional; no pyplot, so no display
    from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter  # noqa: PLC0415

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for k, (mode, one) in enumerate(fits.items()):
        errors, style = [x.validation_rmse for x in one.history], {"color": f"C{k}", "marker": "os^"[k % 3]}
        left.plot([x.epoch for x in one.history], errors, alpha=0.7, label=mode, **style)
        right.plot([x.optimizer_seconds for x in one.history], errors, alpha=0.7, label=mode, **style)
    for axes, label in ((left, "epoch"), (right, "seconds of the optimizer")):
        axes.axhline(baselines["biases"], color="gray", linestyle=":", label="biases alone, on the test part")
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xscale("log")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.xaxis.set_minor_formatter("")
    left.set(ylabel="root mean square error in validation")
    left.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _show(fits: dict[str, Fit]) -> None:
    """Print the fits side by side."""
    print(f"{'':8}{'held-out error':>15}{'best epoch':>12}{'seconds':>10}{'optimizer':>11}")
    for mode, one in fits.items():
        last = one.history[-1]
        print(f"{mode:8}{one.rmse:>15.4f}{one.best.epoch:>12}{last.seconds:>10.2f}{last.optimizer_seconds:>11.2f}")
