"""What a network that reads reviews has to beat: the majority, and naive Bayes on the counts of words."""

import numpy as np
from numpy.typing import NDArray

from adamas.training.data import Dataset
from adamas.training.text import tokenize

__all__ = ["majority", "naive_bayes"]


def majority(train: Dataset, test: Dataset) -> NDArray[np.intp]:
    """Return a label for each test example: always the one that is the most frequent in training."""
    return np.full(len(test), np.bincount(train.labels).argmax(), np.intp)


def naive_bayes(train: Dataset, test: Dataset) -> NDArray[np.intp]:
    """Return a label for each test text, by multinomial naive Bayes, trained on the training texts.

    It counts all words as `tokenize` gives them, whatever their order, and adds 1 to each count. Raises ImportError if
    scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import (  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
            CountVectorizer,
        )
        from sklearn.naive_bayes import MultinomialNB  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise ImportError("naive Bayes is scikit-learn's, which is missing: pip install 'adamas[train]'") from None
    counter = CountVectorizer(analyzer=tokenize)
    model = MultinomialNB().fit(counter.fit_transform(train.inputs), train.labels)
    labels: NDArray[np.intp] = model.predict(counter.transform(test.inputs))
    return labels
