"""The training loop: batches, gradients, steps, and what is measured after each epoch."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adamas import _tree
from adamas._history import History
from adamas.training.data import Dataset
from adamas.training.scores import Scores

__all__ = ["Epoch", "Model", "Progress", "Stepper", "count_steps", "train"]


class Model(Protocol):
    """What the loop needs of a network: a class with these methods, or a module such as `adamas.training.mlp`."""

    def loss_and_gradients(self, params: Any, inputs: NDArray[Any], labels: NDArray[Any]) -> tuple[float, Any]:
        """Return the mean loss of a batch and its gradients by params."""

    def logits(self, params: Any, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return what the network says to each input, (n, outputs): one output for two classes, else one per class."""

    # One with sparse gradients also has `rows(inputs)`, which returns what `prepare` of an optimizer takes, or None.


class Stepper(Protocol):
    """What the loop needs of an optimizer: those of `adamas` are such, and `adamas.training.peers.TorchOptimizer`."""

    learning_rate: Any  # a number or a function of the step

    @property
    def t(self) -> int:
        """The number of steps taken."""

    def update(self, params: Any, grads: Any, *, history: History | None = None, loss: float | None = None) -> Any:
        """Take one step and return the parameters; history gets the step, with the loss before it, if it is given."""

    def prepare(self, params: Any, rows: Any) -> Any:
        """Bring rows up to date before they are read; only where gradients are sparse."""

    def flush(self, params: Any) -> Any:
        """Bring all rows up to date; only where gradients are sparse."""

    def save(self, path: Any, params: Any = None, **metadata: Any) -> None:
        """Write a checkpoint, as optimizers of the package do."""

    def load(self, path: Any) -> Any:
        """Continue from a checkpoint."""


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


@dataclass
class Progress:
    """How far the loop is, which is all that it needs to go on from there, after any step.

    epoch: that is being trained. batches: of it that were taken. loss: their part of its mean loss. order: the state of
    the random numbers at its beginning. steps, seconds, optimizer_seconds: as of `Epoch`. lowest, best: the lowest
    validation loss so far, and its epoch.
    """

    epoch: int = 1
    batches: int = 0
    loss: float = 0.0
    order: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    optimizer_seconds: float = 0.0
    lowest: float = math.inf
    best: int = 0


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
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Train for some epochs and yield what is known after each; params, arrays in lists or dicts, are overwritten.

    Each epoch takes the examples in a new random order, in batches, whose inputs `augment` may change. Training ends
    early once the loss on the validation examples has not been lower for `patience` epochs (0: never). A history
    records steps, with the loss of their batch. While an epoch is told of, params are those to evaluate the model at
    (see `ScheduleFreeAdamW`). Leave the iteration at any time, Ctrl-C included: what was yielded holds. Raises
    FloatingPointError if a loss becomes infinite or NaN.

    progress: kept up to date, to be looked at in `after_step`; training goes on from where it says, with the same
    results if params, optimizer, and what model and augment draw are as they were then.
    """
    now = Progress() if progress is None else progress
    while now.epoch <= epochs and not (patience and now.epoch - 1 - now.best >= patience):
        with np.errstate(all="ignore"):  # a loss that overflows is told of below
            for batch in _batches(examples, batch_size, rng, now):
                params, loss = _step(model, params, optimizer, batch, augment, history, now)
                now.loss += loss * len(batch) / len(examples)
                now.batches += 1
                now.steps += 1
                after_step()
            params = optimizer.flush(params)
        rate = optimizer.learning_rate
        rate = float(rate(optimizer.t - 1) if callable(rate) else rate)
        with _to_evaluate(optimizer, params):
            with np.errstate(all="ignore"):
                scores = Scores.of(model.logits(params, validation.inputs), validation.labels, len(validation.classes))
            _check(scores.loss, now.epoch)
            measured = (scores.loss, scores.accuracy, rate, now.seconds, now.optimizer_seconds)
            yield Epoch(now.epoch, now.steps, now.loss, *measured)
        if scores.loss < now.lowest:
            now.lowest, now.best = scores.loss, now.epoch
        now.epoch, now.batches, now.loss = now.epoch + 1, 0, 0.0


def _step(
    model: Model,
    params: Any,
    optimizer: Stepper,
    batch: Dataset,
    augment: Callable[[NDArray[Any]], NDArray[Any]],
    history: History | None,
    now: Progress,
) -> tuple[Any, float]:
    """Take a step; return the parameters and the loss before it. Progress gets the time."""
    start = perf_counter()
    inputs = augment(batch.inputs)
    rows = model.rows(inputs) if hasattr(model, "rows") else None
    before = perf_counter()
    if rows is not None:
        params = optimizer.prepare(params, rows)
    prepared = perf_counter()
    loss, gradients = model.loss_and_gradients(params, inputs, batch.labels)
    _check(loss, now.epoch)
    known = perf_counter()
    recorder = history if rows is None else None  # it records whole arrays
    params = optimizer.update(params, gradients, history=recorder, loss=loss)
    end = perf_counter()
    now.optimizer_seconds += (prepared - before) + (end - known)
    now.seconds += end - start
    return params, loss


def _batches(examples: Dataset, batch_size: int, rng: np.random.Generator, now: Progress) -> Iterator[Dataset]:
    """Yield the batches of an epoch, in a new order, that were not taken yet."""
    if now.batches:
        rng.bit_generator.state = now.order
    else:
        now.order = dict(rng.bit_generator.state)
    order = rng.permutation(len(examples))
    for first in range(now.batches * batch_size, len(order), batch_size):
        yield examples.take(order[first : first + batch_size])


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
