"""The command `adamas train reviews`: texts, their sentiment or any other label of two, and a recurrent network."""

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from adamas._experiment import Experiment, Settings, conduct
from adamas._flags import at_least, reject, training_command
from adamas._lapses import FORMS
from adamas._memory import kernel_name
from adamas.training import Dataset, Parts
from adamas.training.bayes import majority, naive_bayes
from adamas.training.extras import require
from adamas.training.scores import balanced_accuracy, confusion_matrix
from adamas.training.tasks import VOCABULARY, build_reviews
from adamas.training.text import Vocabulary, distinct, read_reviews, tweets

__all__ = ["Cell", "prepare_reviews", "train_reviews"]


class Cell(StrEnum):
    """The recurrent cells."""

    rnn = "rnn"
    gru = "gru"
    lstm = "lstm"


class Sparse(StrEnum):
    """What rows of the embedding do without a gradient, where it is sparse."""

    dense = "dense"
    exact = "exact"
    lazy = "lazy"


TUNED = {
    "sgd": {"learning_rate": 2.0},
    "momentum": {"learning_rate": 0.2},
    "rmsprop": {"learning_rate": 2e-3},
    "adagrad": {"learning_rate": 0.02},
    "adam": {"learning_rate": 2e-3},
    "adamw": {"learning_rate": 2e-3},
    "amsgrad": {"learning_rate": 2e-3},
}
"""What suits the tweets. AdamW's rate was searched, and of SGD and Momentum the best of three taken, by the loss on the
examples to validate by; the others have AdamW's, but for AdaGrad, whose rate falls by itself and was not searched."""

LONGEST = 64
"""Words of a text that count: of the tweets all."""


@training_command(epochs="4", batch_size="32", patience="2")
def train_reviews(
    *,
    cell: Annotated[Cell, typer.Option(help="What reads the words: Elman's, gated, or long short-term memory.")] = (
        Cell.gru
    ),
    embedding: Annotated[int, typer.Option(help="Numbers that stand for a word.")] = 32,
    hidden: Annotated[int, typer.Option(help="Numbers that the cell holds.")] = 32,
    dropout: Annotated[float, typer.Option(help="Share of both left out at random in training.")] = 0.5,
    sparse: Annotated[
        Sparse, typer.Option(help="Gradients of the embedding: exact and lazy are sparse, see docs/sparse.md.")
    ] = Sparse.dense,
    data: Annotated[
        Path | None,
        typer.Option(help="CSV file with the columns text and label, of two labels.", show_default="22,122 tweets"),
    ] = None,
    **options: Any,
) -> None:
    """Train a recurrent network on reviews: is a text positive or negative?

    Texts that occur twice, and those whose label is contested, are left out. A fifth of the others is kept for the
    test, and a tenth of the rest to validate by: when to stop, which weights to keep. The network knows the words of
    the training part alone. Beside it stand what always saying the more frequent label gets, and naive Bayes.

    Hyper-parameters that are not given are what suits the tweets, if the optimizer was tried on them, else its own
    defaults. Biases do not decay. The folder of results holds config.json, vocabulary.json, history.jsonl (a line per
    epoch), weights.safetensors (of the best epoch), results.json and loss.png.
    """
    conduct(*prepare_reviews(options, cell, embedding, hidden, dropout, sparse, data))


def prepare_reviews(
    options: Mapping[str, Any],
    cell: Cell,
    embedding: int,
    hidden: int,
    dropout: float,
    sparse: Sparse,
    data: Path | None,
) -> tuple[Experiment, Settings]:
    """Return the experiment that the options of the command describe, and its settings."""
    require("torch", "the recurrent network")
    require("sklearn", "naive Bayes")
    settings = Settings.of(options, TUNED, epochs=4, batch_size=32, patience=2)
    at_least(1, "--embedding", embedding)
    at_least(1, "--hidden", hidden)
    if not 0 <= dropout < 1:
        reject("--dropout", f"must be in [0, 1), got {dropout}")
    if sparse != Sparse.dense:
        _check_sparse(settings, sparse)
    for_split, *_ = settings.streams()
    texts = _parts(data, for_split)
    vocabulary = Vocabulary.of(texts.train.inputs)
    parts = Parts(*(replace(part, inputs=vocabulary.encode(part.inputs, LONGEST)) for part in texts))
    details = {"cell": cell, "embedding": embedding, "hidden": hidden, "dropout": dropout, "longest": LONGEST}
    details |= {"sparse": sparse, "vocabulary": len(vocabulary), "data": None if data is None else str(data)}
    baselines = {"majority": majority(texts.train, texts.test), "naive Bayes": naive_bayes(texts.train, texts.test)}
    experiment = Experiment(
        "reviews",
        "texts",
        parts,
        lambda rng: build_reviews(details, rng),
        details,
        in_torch=True,
        files={VOCABULARY: json.dumps(vocabulary.words)},
        baselines={name: _scores(texts.test, found) for name, found in baselines.items()},
    )
    return experiment, settings


def _check_sparse(settings: Settings, mode: Sparse) -> None:
    """Raise UsageError for an optimizer whose steps cannot be sparse."""
    for choice, values in settings.choices:
        if choice.name.startswith("torch:"):
            reject("--sparse", f"is not for {choice.name}: leave it out")
        if mode == Sparse.exact and kernel_name(choice.cls.rule) not in FORMS:
            reject("--sparse", f"exact is for {', '.join(FORMS)} and AdamW, not for {choice.name}: use lazy")
        if mode == Sparse.exact and values["weight_decay"] and not values["decoupled"]:
            reject("--sparse", f"exact needs decoupled decay: {choice.name} --decoupled")


def _parts(data: Path | None, rng: np.random.Generator) -> Parts:
    """Return the texts, split; say what there are."""
    try:
        everything = tweets() if data is None else read_reviews(data)
        reviews = distinct(everything)
        parts = Parts.of(reviews, rng)
    except OSError as error:
        reject("--data", f"{str(data)!r} cannot be read: {error.strerror or error}")
    except ValueError as error:
        reject("--data", str(error))
    counts = np.bincount(reviews.labels, minlength=2)
    each = " and ".join(f"{count:,} {name}" for name, count in zip(reviews.classes, counts, strict=True))
    print(f"{len(everything):,} texts, of which {len(reviews):,} are distinct: {each}")
    return parts


def _scores(test: Dataset, found: NDArray[np.intp]) -> dict[str, float]:
    """Return how well labels that were found by other means fit, by the names of results.json."""
    confusion = confusion_matrix(test.labels, found, len(test.classes))
    return {
        "test_accuracy": float(confusion.trace() / len(test)),
        "test_balanced_accuracy": balanced_accuracy(confusion),
    }
