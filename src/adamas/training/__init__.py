"""Training on real tasks: the examples, the networks, the loop, and the folder that keeps a run."""

from adamas.training import mlp
from adamas.training.data import Dataset, digits
from adamas.training.loop import Epoch, Model, count_steps, train
from adamas.training.runs import Run

__all__ = ["Dataset", "Epoch", "Model", "Run", "count_steps", "digits", "mlp", "train"]
