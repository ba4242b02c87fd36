"""The command `adamas train digits`: images of digits, or of anything else, and the networks for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from adamas._experiment import Experiment, Settings, conduct
from adamas._flags import at_least, reject, training_command
from adamas.training import Dataset, Parts, digits
from adamas.training.extras import require
from adamas.training.idx import is_idx_folder, read_idx_folder
from adamas.training.images import jiggle, read_image_folder
from adamas.training.tasks import build_digits

__all__ = ["ImageNetwork", "prepare_digits", "train_digits"]


class ImageNetwork(StrEnum):
    """The networks for images."""

    cnn = "cnn"
    mlp = "mlp"


@dataclass(frozen=True)
class Defaults:
    """What suits a network on the 5,000 digits."""

    epochs: int
    batch_size: int
    patience: int
    augment: bool
    tuned: dict[str, dict[str, Any]]


# For cnn, chosen beforehand and not tuned: about twice the defaults, which Adam's best rate is too.
YOUNGER = {
    "adamax": 4e-3,
    "radam": 2e-3,
    "adabelief": 2e-3,
    "yogi": 1e-2,
    "adopt": 2e-3,
    "ademamix": 1e-3,
    "adan": 2e-3,
    "lion": 3e-4,
    "nadam": 2e-3,
    "lamb": 1e-2,
    "schedulefreeadamw": 5e-3,
}

# The rates: of three per rule, a factor of 2 to 5 apart, the one with the lowest validation loss, the mean over the
# splits of seeds 10 and 11, after 15 epochs of cnn or 20 of mlp. No test example had a part in it.
TUNED = {
    ImageNetwork.cnn: {
        "sgd": {"learning_rate": 0.15},
        "momentum": {"learning_rate": 0.015},
        "adagrad": {"learning_rate": 0.015},
        "rmsprop": {"learning_rate": 2e-3},
        "adam": {"learning_rate": 2e-3},
        "adamw": {"learning_rate": 2e-3, "weight_decay": 0.05},
        "amsgrad": {"learning_rate": 2e-3},
        **{name: {"learning_rate": rate} for name, rate in YOUNGER.items()},
    },
    ImageNetwork.mlp: {
        "sgd": {"learning_rate": 0.3},
        "momentum": {"learning_rate": 0.03},
        "adagrad": {"learning_rate": 0.03},
        "rmsprop": {"learning_rate": 1e-3},
        "adam": {"learning_rate": 1e-3},
        "adamw": {"learning_rate": 5e-3, "weight_decay": 0.1},
        "amsgrad": {"learning_rate": 3e-3},
    },
}

DEFAULTS = {
    ImageNetwork.cnn: Defaults(25, 32, 8, True, TUNED[ImageNetwork.cnn]),
    ImageNetwork.mlp: Defaults(60, 16, 0, False, TUNED[ImageNetwork.mlp]),
}

MOST_UNITS = 100_000


@training_command(epochs="25, of mlp 60", batch_size="32, of mlp 16", patience="8, of mlp 0")
def train_digits(
    *,
    model: Annotated[
        ImageNetwork, typer.Option(help="A convolutional network in PyTorch, or one in NumPy.")
    ] = ImageNetwork.cnn,
    hidden: Annotated[
        str | None, typer.Option(help="Units of each hidden layer of mlp, such as 256,128.", show_default="512")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of IDX files (MNIST, Fashion-MNIST) or with a folder of images for each class.",
            show_default="5,000 digits of MNIST",
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Height and width that images in folders are scaled to.", show_default="28")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes to tell apart, such as 3,8; for two, one output.", show_default="all")
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment",
            help="Turn, scale and shift each image a little at random while training.",
            show_default="--augment, of mlp --no-augment",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Train a network on handwritten digits, or on images of your own.

    A fifth of the images is kept for the test, unless the folder says which, and a tenth of the others to validate by:
    when to stop, which weights to keep. Both have the same share of each class.

    Images in folders become grey and are fitted into one size; those with a light border are taken for dark ink on
    light paper and inverted. The images of IDX files stay as they are.

    Hyper-parameters that are not given are what suits the digits, if the optimizer was tried on them, else its own
    defaults. Biases do not decay. The folder of results holds config.json, history.jsonl (a line per epoch),
    weights.safetensors (of the best epoch), results.json and loss.png; a comparison has such a folder for each
    optimizer, and compare.png.
    """
    conduct(*prepare_digits(options, model, hidden, data, image_size, classes, augment))


def prepare_digits(
    options: Mapping[str, Any],
    model: ImageNetwork,
    hidden: str | None,
    data: Path | None,
    image_size: int | None,
    classes: str | None,
    augment: bool | None,
) -> tuple[Experiment, Settings]:
    """Return the experiment that the options of the command describe, and its settings."""
    default = DEFAULTS[model]
    if model is ImageNetwork.cnn:
        require("torch", "the network cnn")
        if hidden is not None:
            reject("--hidden", "is for --model mlp: leave it out, or choose that")
    sizes = {"epochs": default.epochs, "batch_size": default.batch_size, "patience": default.patience}
    settings = Settings.of(options, default.tuned, **sizes)
    units = _units("512" if hidden is None else hidden)
    augment = default.augment if augment is None else augment
    if augment:
        require("torch", "--augment")
    for_split, *_ = settings.streams()
    parts = _parts(*_examples(data, image_size), classes, for_split)
    shape = parts.train.inputs.shape[1:]
    details = {"model": model, "shape": shape, "augment": augment, "data": None if data is None else str(data)}
    details |= {"hidden": units} if model is ImageNetwork.mlp else {}

    def build(rng: Any) -> Any:
        try:
            return build_digits({**details, "classes": parts.test.classes}, rng)
        except MemoryError:
            reject("--hidden", f"layers of {', '.join(map(str, units))} do not fit in memory: use fewer units")
        except ValueError as error:
            reject("--data", str(error))

    in_torch = model is ImageNetwork.cnn or augment
    experiment = Experiment("digits", "images", parts, build, details, in_torch)
    return replace(experiment, augment=jiggle if augment else None), settings


def _units(hidden: str) -> list[int]:
    units = [int(part) if part.strip().isdecimal() and len(part) < 10 else 0 for part in hidden.split(",")]
    if min(units) < 1 or max(units) > MOST_UNITS:
        reject("--hidden", f"must be widths of 1 to {MOST_UNITS}, such as 512 or 256,128, got {hidden!r}")
    return units


def _examples(data: Path | None, image_size: int | None) -> tuple[Dataset, Dataset | None]:
    """Return the examples and, if it is given which they are, those for the test."""
    size = 28 if image_size is None else image_size
    at_least(1, "--image-size", size)
    if image_size is not None and (data is None or is_idx_folder(data)):
        reject("--image-size", "is for --data with folders of images: leave it out")
    if data is None:
        return digits(), None
    try:
        return read_idx_folder(data) if is_idx_folder(data) else (read_image_folder(data, (size, size)), None)
    except OSError as error:
        reject("--data", f"{str(error.filename or data)!r} cannot be read: {error.strerror or error}")
    except ValueError as error:
        reject("--data", str(error))


def _parts(examples: Dataset, test: Dataset | None, classes: str | None, rng: Any) -> Parts:
    names = examples.classes if classes is None else [name.strip() for name in classes.split(",")]
    try:
        examples, test = examples.only(names), None if test is None else test.only(names)
    except ValueError as error:
        reject("--classes" if classes is not None else "--data", f"{classes!r}: {error}" if classes else str(error))
    try:
        return Parts.of(examples, rng, test)
    except ValueError as error:
        reject("--data", str(error))
