"""What logits say: labels, probabilities, and how well they fit the truth."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from adamas.training import mlp

__all__ = ["Scores", "balanced_accuracy", "confusion_matrix", "likeliest", "probabilities"]


def likeliest(logits: NDArray[Any]) -> NDArray[np.intp]:
    """Return the label of the likeliest class, (n,), for logits, (n, outputs); one output stands for two classes."""
    return (logits[:, 0] > 0).astype(np.intp) if logits.shape[1] == 1 else logits.argmax(axis=1)


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probability of each class, (n, classes), for logits, (n, outputs); one output stands for two."""
    if logits.shape[1] == 1:  # the sigmoid is the softmax beside a 0
        logits = np.hstack([np.zeros_like(logits), logits])
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def confusion_matrix(labels: NDArray[np.intp], found: NDArray[np.intp], classes: int) -> NDArray[np.intp]:
    """Return how many examples of each class (rows) were taken for each class (columns), (classes, classes)."""
    confusion = np.zeros((classes, classes), np.intp)
    np.add.at(confusion, (labels, found), 1)
    return confusion


def balanced_accuracy(confusion: NDArray[np.intp]) -> float:
    """Return the mean over the classes of the share of each that is classified rightly.

    Guessing the majority gets 1 / classes. Classes of which there is no example do not count.
    """
    right, all_ = confusion.diagonal(), confusion.sum(axis=1)
    there = all_ > 0
    return float(np.mean(right[there] / all_[there]))


@dataclass(frozen=True)
class Scores:
    """How well a network does on some examples.

    loss: the mean cross-entropy.
    accuracy: the share that is classified rightly.
    balanced_accuracy: the same in the mean over the classes, as the function says.
    confusion: (classes, classes), as `confusion_matrix` says.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    confusion: NDArray[np.intp]

    @classmethod
    def of(cls, logits: NDArray[Any], labels: NDArray[np.intp], classes: int) -> Self:
        """Return the scores of logits, (n, outputs), where the truth is labels, (n,), n at least 1."""
        with np.errstate(all="ignore"):  # the loss tells
            loss, _ = mlp.cross_entropy(logits, labels)
        confusion = confusion_matrix(labels, likeliest(logits), classes)
        return cls(loss, float(confusion.trace() / len(labels)), balanced_accuracy(confusion), confusion)
