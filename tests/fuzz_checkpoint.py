"""Fuzz the reader of checkpoints: whatever is in a file, it is loaded or refused by CheckpointError. Run by make fuzz.

The inputs are real checkpoints and what libFuzzer makes of them. Checksums are made right again before each try, so
that what lies behind them is reached too.
"""

import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["adamas"]):
    import adamas
    from adamas import _tensorfile
    from adamas.errors import CheckpointError

import numpy as np

PATH = Path(tempfile.mkdtemp()) / "checkpoint"


def seeds(folder):
    """Write small checkpoints of every kind of state."""
    for i, (name, options) in enumerate(
        [("Adam", {}), ("AMSGrad", {"ema": 0.9}), ("NAdam", {"state_format": "bfloat16"}), ("AdamW", {}), ("SGD", {})]
    ):
        opt = getattr(adamas, name)(learning_rate=adamas.schedules.Cosine(0.1, 9), **options)
        params = {"a": np.ones((2, 3), np.float32), "b": [1.0, np.ones(2)]}
        g = {"a": np.ones((2, 3), np.float32), "b": [1.0, np.ones(2)]}
        if name in ("AdamW", "SGD"):
            params, g = params["a"], adamas.RowSparse([1], np.ones((1, 3), np.float32))
        opt.save(folder / f"seed{i}", opt.update(params, g), note="text")


def mended(data):
    """Return a file with the checksum of its header made right, if there is room for it."""
    length = int.from_bytes(data[:8], "little")
    end, at = 8 + length, _tensorfile.SUM_AT
    if not at + _tensorfile.SUM_DIGITS <= end <= len(data):
        return data
    head = bytearray(data[:end])
    head[at : at + _tensorfile.SUM_DIGITS] = b"0" * _tensorfile.SUM_DIGITS
    head[at : at + _tensorfile.SUM_DIGITS] = f"{zlib.crc32(head):08x}".encode()
    return bytes(head) + data[end:]


def one_input(data):
    """Try a file as it is, and mended."""
    for attempt in (data, mended(data)):
        PATH.write_bytes(attempt)
        try:
            with adamas.Checkpoint(PATH) as saved:
                saved.verify()
                if saved.has_params:
                    saved.params()
                rule = getattr(adamas, saved.rule, adamas.Adam)
            if isinstance(rule, type):
                rule.load(PATH)
        except CheckpointError:
            pass


def main():
    """Fuzz with libFuzzer's arguments."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp())
    seeds(folder)
    atheris.Setup([*sys.argv, str(folder)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
