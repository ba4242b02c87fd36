"""The compiled engine, where there is one, and the floating-point mode that it sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

engine: Any
try:
    from adamas import _engine as engine
except ImportError:  # a wheel built without a compiler
    engine = None


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero on this thread inside the with block, as the engine does while it runs.

    The specification returns the engine's bits inside this context. Without a compiled engine it does nothing.
    """
    if engine is None:
        yield
        return
    before = engine.set_flush_denormals(True)
    try:
        yield
    finally:
        engine.set_flush_denormals(before)
