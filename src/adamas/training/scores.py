"""What logits say: labels, probabilities, and how well they fit the truth."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from adamas.training import mlp

__all__ = ["Scores", "likeliest", "probabilities"]


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


@dataclass(frozen=True)
class Scores:
    """How well a network does on some examples.

    loss: the mean cross-entropy.
    accuracy: the share that is classified rightly.
    balanced_accuracy: the mean over the classes of the share of each that is classified rightly; classes of which
        there is no example do not count.
    confusion: (classes, classes), how many of each class (rows) were taken for each class (columns).
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
        confusion = np.zeros((classes, classes), np.intp)
        np.add.at(confusion, (labels, likeliest(logits)), 1)
        right, all_ = confusion.diagonal(), confusion.sum(axis=1)
        there = all_ > 0
        balanced = np.mean(right[there] / all_[there])
        return cls(loss, float(right.sum() / len(labels)), float(balanced), confusion)
