"""What a leaf of a parameter tree may be, and the errors that say what it is instead."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def check_param(name: str, value: Any, optimizer: str) -> None:
    """Raise if value cannot be a parameter: an array or NumPy scalar of float32 or float64, or a Python number."""
    if isinstance(value, np.ndarray | np.generic):
        _check_dtype(name, value, f"{optimizer} needs floating-point arrays")
        if isinstance(value, np.ndarray):
            if not value.flags.writeable:
                raise ValueError(f"{name} is read-only, and is to be updated in place: pass {name}.copy()")
            if overlaps_itself(value):
                raise ValueError(f"{name} has elements that share memory: pass {name}.copy()")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} is {value!r}, a {type(value).__name__}: {optimizer} needs floats or floating-point arrays"
        )


def check_grad(name: str, grad: Any, param_name: str, param: Any) -> None:
    """Raise if grad cannot be the gradient of a parameter that passed `check_param`. None can."""
    if grad is None:
        return
    if isinstance(param, np.ndarray):
        if not isinstance(grad, np.ndarray):
            raise TypeError(
                f"{name} is {grad!r:.60}, a {type(grad).__name__}, but {param_name} is an array: pass an array"
            )
        _check_dtype(name, grad, "gradients are floating-point")
        if grad.shape != param.shape:
            raise ValueError(
                f"{name} has shape {grad.shape}, but {param_name} has shape {param.shape}: they must agree"
            )
        return
    number = isinstance(grad, int | float | np.integer | np.floating) and not isinstance(grad, bool)
    if not number and not (isinstance(grad, np.ndarray) and grad.shape == () and grad.dtype.kind == "f"):
        raise TypeError(f"{name} is {grad!r:.60}, a {type(grad).__name__}, but {param_name} is a float: pass a float")


def check_state(name: str, value: Any, param_name: str, param: Any) -> None:
    """Raise if value cannot be the state of a parameter that passed `check_param`."""
    check_param(name, value, "the state")
    if getattr(value, "dtype", None) == getattr(param, "dtype", None) and np.shape(value) == np.shape(param):
        return
    if isinstance(value, int | float) and isinstance(param, int | float):
        return
    raise ValueError(f"{name} is {_words(value)}, but {param_name} is {_words(param)}: state is like its parameter")


def _words(value: Any) -> str:
    return f"{value.dtype.name} of shape {value.shape}" if hasattr(value, "dtype") else "a float"


def _check_dtype(name: str, value: NDArray[Any] | np.generic, need: str) -> None:
    dtype = value.dtype
    if dtype in FLOATS and dtype.isnative:
        return
    what, to = dtype.name, "astype('float64')" if dtype.kind == "O" else "astype('float32')"
    if dtype.newbyteorder("=") in FLOATS:
        what, need, to = f"{what} in foreign byte order", "only the native one is supported", f"astype('{dtype.name}')"
    elif dtype.kind == "c":
        need, to = "only real numbers are supported", f"view('float{dtype.itemsize * 4}')"
    elif dtype.kind not in "biuO":
        need = "float32 and float64 are supported"
    raise TypeError(f"{name} is {what}: {need}; convert with {name}.{to}")


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Return whether two elements of an array may share memory, as in a broadcast view."""
    reach = array.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach:
            return array.size > 0
        reach += stride * (extent - 1)
    return False


def check_overlaps(params: Sequence[tuple[str, NDArray[Any]]], grads: Sequence[tuple[str, NDArray[Any]]]) -> None:
    """Raise ValueError if two parameters share memory, or a gradient does with any parameter."""
    arrays = [(np.lib.array_utils.byte_bounds(a), i < len(params), name, a)
              for i, (name, a) in enumerate([*params, *grads]) if a.size]  # fmt: skip
    arrays.sort(key=lambda entry: entry[0])
    live: list[Any] = []
    for entry in arrays:
        (low, _), is_param, name, array = entry
        live = [other for other in live if other[0][1] > low]
        for _, other_is_param, other_name, other in live:
            if (is_param or other_is_param) and _share_memory(array, other):
                first, second = (other_name, name) if other_is_param else (name, other_name)
                same = "are the same array" if array is other else "share memory"
                raise ValueError(f"{first} and {second} {same}: pass a copy of one, as in {second}.copy()")
        live.append(entry)


def _share_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=1_000_000))  # type: ignore[arg-type]  # the stub knows only -1 and 0
    except np.exceptions.TooHardError:
        return True  # not decided in time: refuse rather than race
