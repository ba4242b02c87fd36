"""The training loop: batches, gradients, steps, and what is measured after each epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adamas.rules import Rule
from adamas.training.data import Dataset

__all__ = ["Epoch", "Model", "count_steps", "train"]


class Model(Protocol):
    """What the loop needs of a network: a class with these methods, or a module such as `adamas.training.mlp`."""

    def loss_and_gradients(self, params: Any, inputs: NDArray[Any], labels: NDArray[Any]) -> tuple[float, Any]:
        """Return the mean loss of a batch and its gradients by params."""

    def predict(self, params: Any, inputs: NDArray[Any]) -> NDArray[np.intp]:
        """Return the label of each input."""


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    epoch, steps: how many were made so far.
    train_loss: the mean over the epoch, of each batch before its step.
    test_accuracy: the share of the test examples that are classified rightly, now.
    learning_rate: of the epoch's last step.
    seconds, optimizer_seconds: spent so far on training (tests not counted), and in the optimizer's part of it.
    """

    epoch: int
    steps: int
    train_loss: float
    test_accuracy: float
    learning_rate: float
    seconds: float
    optimizer_seconds: float


def count_steps(examples: int, batch_size: int) -> int:
    """Return the number of steps in an epoch; the last batch may be smaller."""
    return -(-examples // batch_size)


def train(
    model: Model,
    params: Any,
    optimizer: Rule,
    examples: Dataset,
    test: Dataset,
    *,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    after_step: Callable[[], object] = lambda: None,
) -> Iterator[Epoch]:
    """Train for some epochs and yield what is known after each; params, arrays in lists or dicts, are overwritten.

    Each epoch takes the examples in a new random order, in batches. Leave the iteration at any time, Ctrl-C included:
    what was yielded holds. Raises FloatingPointError if the loss becomes infinite or NaN.
    """
    steps, seconds, optimizer_seconds = 0, 0.0, 0.0
    for epoch in range(1, epochs + 1):
        loss = 0.0
        start = perf_counter()
        with np.errstate(all="ignore"):  # a loss that overflows is told of below
            order = rng.permutation(len(examples))
            for first in range(0, len(order), batch_size):
                batch = examples.take(order[first : first + batch_size])
                batch_loss, gradients = model.loss_and_gradients(params, batch.inputs, batch.labels)
                if not np.isfinite(batch_loss):
                    raise FloatingPointError(f"the loss became {batch_loss} in epoch {epoch}")
                before = perf_counter()
                params = optimizer.update(params, gradients)
                optimizer_seconds += perf_counter() - before
                loss += batch_loss * len(batch) / len(order)
                steps += 1
                after_step()
            seconds += perf_counter() - start
            accuracy = np.mean(model.predict(params, test.inputs) == test.labels)
        rate = optimizer.learning_rate  # type: ignore[attr-defined]  # declared by each rule, not by their base
        rate = rate(optimizer.t - 1) if callable(rate) else rate
        yield Epoch(epoch, steps, loss, float(accuracy), float(rate), seconds, optimizer_seconds)
