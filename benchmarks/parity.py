"""Whether training with short state is the same training: paired runs from the same start, by the same batches.

``python -m benchmarks.parity`` prints, for each task, how loss and accuracy in q8 differ from those in float32, with
95% intervals over the seeds. It takes half an hour on a core; ``--seeds 3`` less.
"""

import argparse
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import adamas.torch
from adamas.training.cnn import CNN
from adamas.training.data import digits

STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Number of pairs -> the half width of a 95% interval of a mean, in standard errors."""

SOURCES = ("argparse", "ast", "difflib", "inspect", "pickle", "tarfile", "turtle", "typing", "zipfile")
"""Modules of the standard library whose sources are the text."""


class Examples(NamedTuple):
    """Inputs and targets, along the first axis."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Task(NamedTuple):
    """What is trained: examples to learn and others to judge by, the network, and how long."""

    learn: Examples
    judge: Examples
    network: Callable[[], nn.Module]
    steps: int
    batch: int
    learning_rate: float


class Scores(NamedTuple):
    """The mean loss over the examples to judge by, and the percentage that is predicted rightly."""

    loss: float
    accuracy: float


class Difference(NamedTuple):
    """The mean of paired differences, and the half width of its 95% interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, ours: list[float], theirs: list[float]) -> "Difference":
        pairs = np.subtract(ours, theirs)
        return cls(float(pairs.mean()), STUDENT[len(pairs)] * float(pairs.std(ddof=1)) / len(pairs) ** 0.5)

    def within(self, bound: float) -> bool:
        """Whether the whole interval is between -bound and bound."""
        return abs(self.mean) + self.half <= bound

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.half:.4f}"


# --- the tasks --------------------------------------------------------------------------------------------------------


def sources() -> str:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return "\n".join((folder / f"{name}.py").read_text() for name in SOURCES)


def digits_cnn() -> Task:
    """Half of 5,000 handwritten digits, and the other half to judge by."""
    learn, judge = digits().split(0.5, np.random.default_rng(0))
    first, second = (Examples(torch.from_numpy(half.inputs), torch.from_numpy(half.labels)) for half in (learn, judge))
    return Task(first, second, CNN, 800, 50, 1e-3)


class Transformer(nn.Module):
    """Two layers of four heads, 64 wide, that predict each next character."""

    def __init__(self, characters: int, context: int = 64, width: int = 64) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(characters, width), nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embedding(text) + self.position.weight
        logits: torch.Tensor = self.out(self.layers(x, self.mask, is_causal=True))
        return logits.transpose(1, 2)


def characters() -> Task:
    """Stretches of 64 characters of Python sources; every tenth is to judge by."""
    text = torch.tensor([min(ord(c), 127) for c in sources()])
    count = (len(text) - 1) // 64
    examples = text[: 64 * count].reshape(-1, 64), text[1 : 64 * count + 1].reshape(-1, 64)
    tenth = torch.arange(count) % 10 == 0
    learn, judge = (Examples(*(part[chosen] for part in examples)) for chosen in (~tenth, tenth))
    return Task(learn, judge, lambda: Transformer(128), 600, 32, 2e-3)


class Words(nn.Module):
    """The word amid four others, from the mean of their embeddings."""

    def __init__(self, words: int, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.out = nn.EmbeddingBag(words, width), nn.Linear(width, words)

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.embedding(context))
        return logits


def words() -> Task:
    """Words of Python sources, of which the frequent ones are very frequent; every tenth window is to judge by."""
    text = re.findall(r"\w+|[^\w\s]", sources())
    known = {word: i for i, word in enumerate(dict.fromkeys(text))}
    numbers = torch.tensor([known[word] for word in text])
    windows = numbers.unfold(0, 5, 1)
    tenth = torch.arange(len(windows)) // 50 % 10 == 0
    learn, judge = (Examples(w[:, [0, 1, 3, 4]], w[:, 2]) for w in (windows[~tenth], windows[tenth]))
    return Task(learn, judge, lambda: Words(len(known)), 1000, 256, 1e-2)


TASKS: dict[str, Callable[[], Task]] = {
    "digits, convolutional network": digits_cnn,
    "characters, transformer": characters,
    "words, embedding": words,
}


# --- paired runs ------------------------------------------------------------------------------------------------------


def trained(task: Task, seed: int, state_format: str) -> Scores:
    """Return the scores after training; the learning rate falls to 0 as a cosine."""
    torch.manual_seed(seed)
    network = task.network()
    opt = adamas.torch.AdamW(network.parameters(), lr=task.learning_rate, state_format=state_format, seed=seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, task.steps)
    for _ in range(task.steps):
        chosen = torch.randint(len(task.learn.inputs), (task.batch,))
        loss = nn.functional.cross_entropy(network(task.learn.inputs[chosen]), task.learn.targets[chosen])
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    return scores(network, task.judge)


def scores(network: nn.Module, judge: Examples) -> Scores:
    loss = right = 0.0
    with torch.no_grad():
        for inputs, targets in zip(judge.inputs.split(1000), judge.targets.split(1000), strict=True):
            logits = network(inputs)
            loss += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            right += float((logits.argmax(1) == targets).sum())
    return Scores(loss / judge.targets.numel(), 100 * right / judge.targets.numel())


class Parity(NamedTuple):
    """The mean scores in float32, and how those in q8 differ."""

    exact: Scores
    loss: Difference
    accuracy: Difference

    def holds(self) -> bool:
        """Whether the difference is surely within 2% of the loss and 0.3 points of accuracy."""
        return self.loss.within(0.02 * self.exact.loss) and self.accuracy.within(0.3)


def compared(task: Task, seeds: int) -> Parity:
    """Return how training in q8 differs from training in float32 over some seeds."""
    exact, short = ([trained(task, seed, kind) for seed in range(seeds)] for kind in ("float32", "q8"))
    loss, accuracy = (Difference.of([s[i] for s in short], [s[i] for s in exact]) for i in (0, 1))
    return Parity(Scores(*(float(x) for x in np.mean(exact, axis=0))), loss, accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--seeds", type=int, default=10, choices=STUDENT, help="how many pairs of runs; 10 if not given"
    )
    given = parser.parse_args()
    title = f"trained with q8 instead of float32 state: differences with 95% intervals, {given.seeds} pairs"
    table = Table("task", "float32: loss", "accuracy", "q8: loss", "accuracy", "same", title=title)
    for name, make in TASKS.items():
        found = compared(make(), given.seeds)
        exact = (f"{found.exact.loss:.4f}", f"{found.exact.accuracy:.2f}")
        table.add_row(name, *exact, str(found.loss), str(found.accuracy), "yes" if found.holds() else "no")
    Console().print(table)


if __name__ == "__main__":
    main()
