"""The choice of what runs the rules: the compiled engine, or the specification where there is none or it is asked for.

``ADAMAS_ISA`` picks a lower instruction set of the engine (``x86-64``, ``x86-64-v3``, ...) or ``specification``.
"""

import os
import warnings
from typing import Any

from adamas import _fallback, _lapses, _native


def _choose(isa: str) -> str:
    """Select what `isa` names ("" for the best there is) and return the name of the choice."""
    if isa == "specification":
        return isa
    if _native.engine is None:
        warnings.warn(
            "adamas is installed without its compiled engine: the specification runs instead, some 20 times slower on "
            "large arrays. To build the engine, install a C++ compiler and adamas from source",
            stacklevel=2,
        )
        return "specification"
    if isa:
        if isa not in _native.engine.isa_levels():
            levels = ", ".join([*_native.engine.isa_levels(), "specification"])
            raise ImportError(f"ADAMAS_ISA must be one of {levels} on this machine, got {isa!r}")
        _native.engine.use_isa(isa)
    return f"native ({_native.engine.isa()})"


engine: str = _choose(os.environ.get("ADAMAS_ISA", ""))
"""What runs the rules: "native (x86-64-v4)" and the like, or "specification"."""

Plan: Any = _fallback.Plan if engine == "specification" else _native.engine.Plan
step_columns: Any = _fallback.step_columns if engine == "specification" else _native.engine.step_columns
_rows: Any = _lapses if engine == "specification" else _native.engine
Lapses, find_same_rows, add_same_rows = _rows.Lapses, _rows.find_same_rows, _rows.add_same_rows


def set_num_threads(n: int | None) -> None:
    """Set how many threads a step of large arrays uses, at least 1.

    None, as at the start, means as many as pay, up to what OpenMP says (OMP_NUM_THREADS, threadpoolctl): a step that
    waited longer for other threads than it would have taken alone makes the next ones run alone. The results never
    depend on it. Raises TypeError or ValueError for anything else.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
        raise TypeError(f"n must be an integer or None, got {n!r}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}: None leaves it to OpenMP")
    if _native.engine is not None:
        _native.engine.set_num_threads(n or 0)


def get_num_threads() -> int:
    """Return how many threads a step may use: 1 in a process forked from one that had threads."""
    return 1 if engine == "specification" else int(_native.engine.get_num_threads())
