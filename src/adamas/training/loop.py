"""The training loop: batches, gradients, steps, and what is measured after each epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adamas import _tree
from adamas._history import History
from adamas.training.data import Dataset
from adamas.training.scores import Scores

__all__ = ["Epoch", "Model", "Stepper", "count_steps", "train"]


class Model(Protocol):
    """What the loop needs of a network: a class with these methods, or a module such as `adamas.training.mlp`."""

    def loss_and_gradients(self, params: Any, inputs: NDArray[Any], labels: NDArray[Any]) -> tuple[float, Any]:
        """Return the mean loss of a batch and its gradients by params."""

    def logits(self, params: Any, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return what the network says to each input, (n, outputs): one output for two classes, else one per class."""


class Stepper(Protocol):
    """What the loop needs of an optimizer: those of `adamas` are such, and `adamas.training.peers.TorchOptimizer`."""

    learning_rate: Any  # a number or a function of the step

    @property
    def t(self) -> int:
        """The number of steps taken."""

    def update(self, params: Any, grads: Any, *, history: History | None = None, loss: float | None = None) -> Any:
        """Take one step and return the parameters; history gets the step, with the loss before it, if it is given."""


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    epoch, steps: how many were made so far.
    train_loss: the mean over the epoch, of each batch before its step.
    validation_loss, validation_accuracy: on the examples to validate by, now: the mean loss, and the share that is
        classified rightly.
    learning_rate: of the epoch's last step.
    seconds, optimizer_seconds: spent so far on training (validation not counted), and in the optimizer's part of it.
    """

    epoch: int
    steps: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    optimizer_seconds: float


def count_steps(examples: int, batch_size: int) -> int:
    """Return the number of steps in an epoch; the last batch may be smaller."""
    return -(-examples // batch_size)


def train(
    model: Model,
    params: Any,
    optimizer: Stepper,
    examples: Dataset,
    validation: Dataset,
    *,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    patience: int = 0,
    augment: Callable[[NDArray[Any]], NDArray[Any]] = lambda inputs: inputs,
    after_step: Callable[[], object] = lambda: None,
    history: History | None = None,
) -> Iterator[Epoch]:
    """Train for some epochs and yield what is known after each; params, arrays in lists or dicts, are overwritten.

    Each epoch takes the examples in a new random order, in batches, whose inputs `augment` may change. Training ends
    early once the loss on the validation examples has not been lower for `patience` epochs (0: never). A history
    records steps, with the loss of their batch. While an epoch is told of, params are those to evaluate the model at
    (see `ScheduleFreeAdamW`). Leave the iteration at any time, Ctrl-C included: what was yielded holds. Raises
    FloatingPointError if a loss becomes infinite or NaN.
    """
    steps, seconds, optimizer_seconds = 0, 0.0, 0.0
    lowest, best = np.inf, 0
    for epoch in range(1, epochs + 1):
        loss = 0.0
        start = perf_counter()
        with np.errstate(all="ignore"):  # a loss that overflows is told of below
            order = rng.permutation(len(examples))
            for first in range(0, len(order), batch_size):
                batch = examples.take(order[first : first + batch_size])
                batch_loss, gradients = model.loss_and_gradients(params, augment(batch.inputs), batch.labels)
                _check(batch_loss, epoch)
                before = perf_counter()
                params = optimizer.update(params, gradients, history=history, loss=batch_loss)
                optimizer_seconds += perf_counter() - before
                loss += batch_loss * len(batch) / len(order)
                steps += 1
                after_step()
            seconds += perf_counter() - start
        rate = optimizer.learning_rate
        rate = rate(optimizer.t - 1) if callable(rate) else rate
        with _to_evaluate(optimizer, params):
            with np.errstate(all="ignore"):
                scores = Scores.of(model.logits(params, validation.inputs), validation.labels, len(validation.classes))
            _check(scores.loss, epoch)
            yield Epoch(epoch, steps, loss, scores.loss, scores.accuracy, float(rate), seconds, optimizer_seconds)
        if scores.loss < lowest:
            lowest, best = scores.loss, epoch
        if patience and epoch - best >= patience:
            break


@contextmanager
def _to_evaluate(optimizer: Any, params: Any) -> Iterator[None]:
    """Let params be those to evaluate the model at inside the with block, where the rule has others for that."""
    if getattr(getattr(optimizer, "rule", None), "evaluated", None) is None:
        yield
        return
    arrays = [array for _, array in _tree.leaves(params)]
    kept = [array.copy() for array in arrays]
    for array, (_, value) in zip(arrays, _tree.leaves(optimizer.eval_params(params)), strict=True):
        array[...] = value
    try:
        yield
    finally:
        for array, value in zip(arrays, kept, strict=True):
            array[...] = value


def _check(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss} in epoch {epoch}")
