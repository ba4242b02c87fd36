"""Rows about every rule: beside what memory allows it, and beside who else steps it."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

import adamas
from adamas.rules import RULES
from benchmarks.peers import ours, parameters, stream
from benchmarks.timing import Work
from benchmarks.work import Row, arrays

SIZE = 30_000_000
IN_TORCH = {"SGD": "SGD", "AdaGrad": "Adagrad", "RMSProp": "RMSprop", "Adam": "Adam", "AdamW": "AdamW",
            "Adamax": "Adamax", "NAdam": "NAdam", "RAdam": "RAdam"}  # fmt: skip
IN_PYTORCH_OPTIMIZER = {"AdaBelief": "AdaBelief", "Yogi": "Yogi", "ADOPT": "ADOPT", "AdEMAMix": "AdEMAMix",
                        "Adan": "Adan", "Lion": "Lion", "LAMB": "Lamb",
                        "ScheduleFreeAdamW": "ScheduleFreeAdamW"}  # fmt: skip


def bytes_of(name: str) -> int:
    """Return what a step of a rule moves per float32 parameter: p, g and each state in, all but g out."""
    rule = RULES[name]
    states = 4 * len(rule.state_names)
    return 12 + 2 * states + (8 + states if rule.trust_ratio else 0)  # and a first pass that only reads


def beside_stream(name: str) -> tuple[Work, Work]:
    """Return the steps of a rule, and what memory allows them."""
    params, grads = arrays([(SIZE,)], 0), arrays([(SIZE,)], 1)
    own, states = ours(params, grads, getattr(adamas, name)())
    return own, stream(params, grads, states, first=["p", "g", "state"] if RULES[name].trust_ratio else [])


def beside(name: str, cls: Any) -> tuple[Work, Work]:
    """Return the steps of a rule, and those of a class of PyTorch optimizers."""
    optimizer = cls(parameters(arrays([(SIZE,)], 0), arrays([(SIZE,)], 1)), lr=1e-3)
    getattr(optimizer, "train", lambda: None)()  # of schedule-free ones
    own, _ = ours(arrays([(SIZE,)], 0), arrays([(SIZE,)], 1), getattr(adamas, name)())
    return own, lambda run: optimizer.step()


def beside_library(name: str) -> tuple[Work, Work]:
    import pytorch_optimizer

    return beside(name, getattr(pytorch_optimizer, IN_PYTORCH_OPTIMIZER[name]))


def rows() -> list[Row]:
    """Return the rows of all rules; of those that torch lacks only if there is whom to compare with."""
    made = [
        Row(f"30M: {name}", f"stream of {bytes_of(name)} bytes", partial(beside_stream, name), 1 / 1.05, 15)
        for name in RULES
    ]  # fmt: skip
    made += [
        Row(f"30M: {name}", "torch default", partial(beside, name, getattr(torch.optim, IN_TORCH[name])), 4, 9)
        for name in IN_TORCH
    ]
    if find_spec("pytorch_optimizer"):
        made += [Row(f"30M: {name}", "pytorch_optimizer", partial(beside_library, name), 4, 9)
                 for name in IN_PYTORCH_OPTIMIZER]  # fmt: skip
    return made
