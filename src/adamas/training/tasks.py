"""The tasks whose runs can be used again: how each makes its network anew and reads what is to be classified."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas.training import mlp
from adamas.training.extras import require
from adamas.training.images import read_image
from adamas.training.loop import Model
from adamas.training.runs import Run
from adamas.training.scores import probabilities
from adamas.training.text import Vocabulary

__all__ = ["TASKS", "Task", "build_digits", "build_reviews", "predict", "read_digits", "read_texts"]

VOCABULARY = "vocabulary.json"
"""The file, in the folder of a run on texts, that lists the words that the network knows."""


@dataclass(frozen=True)
class Task:
    """How the runs of a task are used.

    build: returns the model that a run's config describes, and its parameters, with any weights.
    read: returns the inputs of that model for what the user names (files, sentences), in that order; raises ValueError
        or OSError, saying which, if one cannot be read.
    """

    build: Callable[[Run], tuple[Model, Any]]
    read: Callable[[Run, Sequence[str]], NDArray[Any]]


def predict(run: Run, names: Sequence[str]) -> NDArray[Any]:
    """Return the probability of each of the run's classes, (names, classes), by its best weights.

    Raises ValueError if the run is not of a known task or does not fit its weights, or one of the names cannot be read.
    """
    if run.config.get("task") not in TASKS:
        raise ValueError(f"{run.path} is a run of the task {run.config.get('task')!r}: use one of {', '.join(TASKS)}")
    task = TASKS[run.config["task"]]
    try:
        model, params = task.build(run)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run.path / 'config.json'} is not of this version of adamas: {error!r}") from None
    run.restore(params)
    return probabilities(model.logits(params, task.read(run, names)))


def build_digits(config: Any, rng: np.random.Generator) -> tuple[Model, Any]:
    """Return the network that a config of the task digits describes, and its first parameters.

    config: "model" (cnn or mlp), "shape" of the images, "classes", and for mlp the units of the "hidden" layers.
    """
    outputs = 1 if len(config["classes"]) == 2 else len(config["classes"])
    height, width = config["shape"]
    if config["model"] == "mlp":
        return mlp, mlp.init([height * width, *config["hidden"], outputs], rng)
    require("torch", "the network cnn")
    from adamas.training.cnn import CNN  # noqa: PLC0415 - optional
    from adamas.training.network import Network  # noqa: PLC0415

    network = Network.create(lambda: CNN((height, width), outputs), rng)
    return network, network.params


def read_digits(run: Run, names: Sequence[str]) -> NDArray[np.float32]:
    """Return image files as the images that the run was trained on."""
    require("PIL", "reading images")
    height, width = run.config["shape"]
    return np.stack([read_image(Path(name), (height, width)) for name in names])


def build_reviews(config: Any, rng: np.random.Generator) -> tuple[Model, Any]:
    """Return the network that a config of the task reviews describes, and its first parameters.

    config: how many words the "vocabulary" has, the "cell", its "embedding", "hidden" and "dropout", and whether the
    gradients of the embedding are "sparse".
    """
    from adamas.training.network import Network  # noqa: PLC0415 - optional
    from adamas.training.rnn import Recurrent  # noqa: PLC0415

    options = {name: config[name] for name in ("embedding", "hidden", "dropout")}
    options["sparse"] = config.get("sparse", "dense") != "dense"
    network = Network.create(lambda: Recurrent(config["vocabulary"], config["cell"], **options), rng)
    return network, network.params


def read_texts(run: Run, names: Sequence[str]) -> NDArray[np.int64]:
    """Return sentences, and the texts of files, as the word numbers of the vocabulary that the run was trained with."""
    texts = [_text(name) for name in names]
    return Vocabulary(json.loads((run.path / VOCABULARY).read_text())).encode(texts, run.config["longest"])


def _text(name: str) -> str:
    """Return what a file holds, or the name itself if it can only be a sentence."""
    path = Path(name)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason}): save it as UTF-8") from None
    except OSError:  # a sentence may be too long for a file's name
        return name
    if not name.strip():
        raise ValueError(f"{name!r} has no words: give a sentence or the name of a text file")
    if path.suffix and " " not in name.strip() and name[-1] not in ".?!":
        raise ValueError(f"there is no file {name!r}")
    return name


TASKS: dict[str, Task] = {
    "digits": Task(lambda run: build_digits(run.config, np.random.default_rng(0)), read_digits),
    "reviews": Task(lambda run: build_reviews(run.config, np.random.default_rng(0)), read_texts),
}
"""Every task by the name that config.json gives it."""
