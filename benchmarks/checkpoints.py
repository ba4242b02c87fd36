"""Rows about checkpoints: a gibibyte of state, beside a copy of the same bytes that is on the disk when it is done."""

import os
import tempfile
from pathlib import Path

import numpy as np

import adamas
from benchmarks.timing import Work
from benchmarks.work import Row

SIZE = 2**27  # parameters: their two moments are a gibibyte
PIECE = 1 << 24


def copied(source: Path, target: Path) -> None:
    """Copy a file as a checkpoint is written: flushed, and put in its place."""
    scratch = target.with_suffix(".part")
    with source.open("rb") as read, scratch.open("wb") as written:
        while piece := read.read(PIECE):
            written.write(piece)
        written.flush()
        os.fsync(written.fileno())
    scratch.replace(target)


def state() -> tuple[adamas.AdamW, Path]:
    """Return an optimizer with a gibibyte of state, and the file that it is saved in."""
    opt, path = adamas.AdamW(), Path(tempfile.mkdtemp()) / "state.safetensors"
    p = np.ones(SIZE, np.float32)
    opt.update(p, p * np.float32(0.1))
    opt.save(path)
    return opt, path


def saved() -> tuple[Work, Work]:
    """Return saving, and copying the file."""
    opt, path = state()
    return lambda run: opt.save(path), lambda run: copied(path, path.with_name("copy"))


def loaded() -> tuple[Work, Work]:
    """Return loading, and copying the file."""
    _, path = state()
    return lambda run: adamas.AdamW.load(path), lambda run: copied(path, path.with_name("copy"))


ROWS = [
    Row("1 GiB of state: save", "a copy with fsync", saved, 1 / 3, 9),
    Row("1 GiB of state: load", "a copy with fsync", loaded, 1 / 3, 9),
]
