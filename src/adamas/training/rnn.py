"""A recurrent network that reads reviews: embedding, recurrent cell, fully connected layer, one logit.

It is a torch module; the sigmoid of its logit is the probability of class 1. Inputs are rows of word numbers, as
`adamas.training.text.Vocabulary` makes them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from adamas.training.text import PADDING

__all__ = ["CELLS", "Recurrent"]

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
"""Elman's (Elman 1990), the gated recurrent unit (arXiv:1406.1078) and long short-term memory (Hochreiter 1997)."""


class Recurrent(nn.Module):
    """Reads the words of a text one after the other and judges by what the cell holds after the last one.

    vocabulary: how many words there are, padding and unknown included.
    cell: one of `CELLS`. bidirectional: a second cell reads from the last word to the first.
    embedding, hidden: the numbers that stand for a word, and that the cell holds.
    dropout: the share, in [0, 1), of both that is left out at random in training.
    sparse: whether the gradient of the embedding is sparse.
    """

    def __init__(
        self,
        vocabulary: int,
        cell: str = "gru",
        *,
        embedding: int = 32,
        hidden: int = 32,
        bidirectional: bool = False,
        dropout: float = 0.5,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=PADDING, sparse=sparse)
        self.recurrent = CELLS[cell](embedding, hidden, batch_first=True, bidirectional=bidirectional)
        self.output = nn.Linear(hidden * (1 + bidirectional), 1)
        with torch.no_grad():  # a size of 1 drowns what is learned of rare words: the tweets get 0.80 then, not 0.86
            self.embedding.weight *= 0.1

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (n, 1), of texts, (n, longest) int64, each with a word at least and padding at its end.

        How much padding there is changes nothing.
        """
        lengths = (inputs != PADDING).sum(1)
        words = self.dropout(self.embedding(inputs[:, : int(lengths.max())]))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.recurrent(packed)
        held = last[0] if isinstance(last, tuple) else last  # of the LSTM, what it shows and not its memory
        logits: Tensor = self.output(self.dropout(torch.cat(list(held), dim=1)))  # of both directions
        return logits
