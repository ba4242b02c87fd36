"""Runs of `Minimizer` that go on: what of a run is kept beside its optimizer, and how another one takes it over."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from adamas import _checkpoint
from adamas._checkpoint import BESIDE, MALFORMED, Checkpoint
from adamas._evaluate import Shuffled
from adamas._stopping import Verdict
from adamas.errors import CheckpointError

if TYPE_CHECKING:
    from adamas._minimize import Minimizer

PLAIN = ("nit", "fun", "best_fun")
"""What is kept of a run as numbers."""
ARRAYS = ("best_x", "average", "jac")


def save(run: "Minimizer", path: str | os.PathLike[str], metadata: dict[str, Any]) -> None:
    """Write a run into a checkpoint; see `Minimizer.save`."""
    seen = [dict(getattr(rule, "seen", {})) for rule in run.rules]
    arrays = {f"{BESIDE}{name}": getattr(run, name) for name in ARRAYS if getattr(run, name) is not None}
    arrays |= {f"{BESIDE}seen": memory.pop("x") for memory in seen if memory.get("x") is not None}
    if isinstance(run.fun, np.ndarray):
        arrays[f"{BESIDE}fun"] = run.fun
    batches = run.evaluator.batches
    about = {
        **{name: getattr(run, name) for name in PLAIN if not isinstance(getattr(run, name), np.ndarray)},
        "verdict": run.verdict,
        "seen": seen,
        "nfev": run.evaluator.nfev,
        "njev": run.evaluator.njev,
        "taken": run.evaluator.taken,
        "order": batches.order if isinstance(batches, Shuffled) else None,
        "random": run.evaluator.rng.bit_generator.state,
        "shape": run.u.shape,
    }
    _checkpoint.save(run.optimizer, path, run.u, {"minimizer": about, **metadata}, beside=arrays)


def load(run: "Minimizer", path: str | os.PathLike[str]) -> None:
    """Let a run go on where the one was that was saved; see `Minimizer.load`."""
    with Checkpoint(path) as saved:
        about = saved.metadata.get("minimizer")
        if about is None:
            raise CheckpointError(f"{path} holds an optimizer, not a run of minimize")
        if about["shape"] != list(run.u.shape):
            raise CheckpointError(f"{path} holds a run of x of shape {tuple(about['shape'])}, not {run.u.shape}")
        if run.nit or run.evaluator.taken:
            raise ValueError("a run goes on from a file at its start: make a new Minimizer")
        try:
            u, arrays = saved.params(), {}
            for name, entry in saved.file.entries.items():
                if name.startswith(BESIDE):
                    arrays[name.removeprefix(BESIDE)] = array = np.empty(entry.shape, entry.dtype)
                    saved.file.read(name, array)
            if len(about["seen"]) != len(run.rules) or (run.average is None) != ("average" not in arrays):
                raise CheckpointError(f"{path} holds a run with other tolerances, or another return_x")
            verdict = None if about["verdict"] is None else Verdict(*about["verdict"])
        except MALFORMED as error:
            raise error if isinstance(error, CheckpointError) else saved._malformed(error) from None
    run.optimizer.load(path)
    run.u[...] = u
    run.evaluator.go_on(about["taken"], about["order"])
    run.evaluator.nfev, run.evaluator.njev = about["nfev"], about["njev"]
    run.evaluator.rng.bit_generator.state = about["random"]
    vars(run).update({name: about[name] for name in PLAIN if name in about}, verdict=verdict)
    vars(run).update({name: arrays[name] for name in (*ARRAYS, "fun") if name in arrays})
    for rule, memory in zip(run.rules, about["seen"], strict=True):
        known: dict[str, Any] = getattr(rule, "seen", {})
        known.update(memory)
        if "x" in known:
            known["x"] = arrays.get("seen")
