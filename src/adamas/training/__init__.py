"""Training on real tasks: the examples, the networks, the loop, and the folder that keeps a run.

The networks in PyTorch, `adamas.training.cnn` and `adamas.training.network`, and its optimizers,
`adamas.training.peers`, are imported by those who have it.
"""

from adamas.training import mlp
from adamas.training.data import Dataset, Parts, digits
from adamas.training.loop import Epoch, Model, Progress, Stepper, count_steps, train
from adamas.training.runs import Run
from adamas.training.scores import Scores

__all__ = [
    "Dataset",
    "Epoch",
    "Model",
    "Parts",
    "Progress",
    "Run",
    "Scores",
    "Stepper",
    "count_steps",
    "digits",
    "mlp",
    "train",
]
