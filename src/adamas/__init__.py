"""Adam for every array in Python: one readable definition, a compiled engine that returns the same bits."""

from adamas import _optimizers, errors, problems, rules, schedules
from adamas._adam_tuner import AdamTuner
from adamas._backend import engine, get_num_threads, set_num_threads
from adamas._checkpoint import Checkpoint
from adamas._checkpoints import CheckpointManager
from adamas._functional import adam_step
from adamas._history import History
from adamas._minimize import Minimizer, minimize
from adamas._native import flush_denormals
from adamas._space import Choice, Int, LogUniform, Uniform
from adamas._sparse import RowSparse
from adamas._tune import Tuner
from adamas.rules import *  # noqa: F403 - for type checkers; the last line puts the optimizers in place of the rules

__version__ = "0.1.0"

__all__ = [
    "AdamTuner",
    "Checkpoint",
    "CheckpointManager",
    "Choice",
    "History",
    "Int",
    "LogUniform",
    "Minimizer",
    "RowSparse",
    "Tuner",
    "Uniform",
    "adam_step",
    "engine",
    "errors",
    "flush_denormals",
    "get_num_threads",
    "minimize",
    "problems",
    "rules",
    "schedules",
    "set_num_threads",
]
__all__ += rules.__all__

globals().update(_optimizers.OPTIMIZERS)
