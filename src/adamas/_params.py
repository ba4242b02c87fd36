"""What a leaf of a parameter tree may be, and the errors that say what it is instead."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas._formats import COMPLEX, REALS, arithmetic

FLOATS = (*REALS, *COMPLEX)


def check_param(name: str, value: Any, optimizer: str) -> None:
    """Raise if value cannot be a parameter: an array or NumPy scalar of floating-point numbers, or a Python number."""
    if isinstance(value, np.ndarray | np.generic):
        _check_dtype(name, value, f"{optimizer} needs floating-point arrays")
        if isinstance(value, np.ndarray):
            _check_writeable(name, value, "is to be updated in place")
        elif value.dtype.kind == "c":
            raise TypeError(f"{name} is a {value.dtype.name} scalar: pass an array, as in np.array({name})")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} is {value!r}, a {type(value).__name__}: {optimizer} needs floats or floating-point arrays"
        )


def check_q8(name: str, value: Any) -> None:
    """Raise if value, which passed `check_param`, is an array whose state cannot be kept in q8."""
    if not isinstance(value, int | float) and arithmetic(value.dtype) != REALS[1]:
        raise TypeError(
            f"{name} is {value.dtype.name}: state_format='q8' is for float32, bfloat16 and float16 arrays; convert "
            f"with {name}.astype('float32'), or leave state_format out"
        )


def check_grad(name: str, grad: Any, param_name: str, param: Any, zero: bool = False) -> None:
    """Raise if grad cannot be the gradient of a parameter that passed `check_param`. None can.

    zero: whether it is to be set to zero.
    """
    if grad is None or (isinstance(grad, tuple) and isinstance(param, np.ndarray)):  # rows, which were checked
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
        if (grad.dtype.kind == "c") != (param.dtype.kind == "c"):
            raise TypeError(
                f"{name} is {grad.dtype.name}, but {param_name} is {param.dtype.name}: both must be complex, or neither"
            )
        if zero:
            _check_writeable(name, grad, "is to be set to zero (zero_grads=True)")
        return
    number = isinstance(grad, int | float | np.integer | np.floating) and not isinstance(grad, bool)
    if not number and not (isinstance(grad, np.ndarray | np.generic) and grad.shape == () and grad.dtype in REALS):
        raise TypeError(f"{name} is {grad!r:.60}, a {type(grad).__name__}, but {param_name} is a float: pass a float")


def check_state(name: str, value: Any, param_name: str, param: Any) -> None:
    """Raise if value cannot be the state of a parameter that passed `check_param`."""
    check_param(name, value, "the state")
    if isinstance(value, int | float) and isinstance(param, int | float):
        return
    arrays = hasattr(value, "dtype") and hasattr(param, "dtype")
    if arrays and value.shape == param.shape and value.dtype == arithmetic(param.dtype):
        return
    raise ValueError(
        f"{name} is {_words(value)}, but {param_name} is {_words(param)}: state is like its parameter, and float32 "
        "for half precision"
    )


def count_nonfinite(grad: Any) -> int:
    """Return how many numbers of a gradient are NaN or infinite."""
    return int(np.size(grad) - np.isfinite(grad).sum())


def _words(value: Any) -> str:
    return f"{value.dtype.name} of shape {value.shape}" if hasattr(value, "dtype") else "a float"


def _check_writeable(name: str, array: NDArray[Any], use: str) -> None:
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, and {use}: pass {name}.copy()")
    if overlaps_itself(array):
        raise ValueError(f"{name} has elements that share memory, and {use}: pass {name}.copy()")


def _check_dtype(name: str, value: NDArray[Any] | np.generic, need: str) -> None:
    dtype = value.dtype
    if dtype in FLOATS and dtype.isnative:
        return
    what, to = dtype.name, "astype('float64')" if dtype.kind == "O" else "astype('float32')"
    if dtype.newbyteorder("=") in FLOATS:
        what, need, to = f"{what} in foreign byte order", "only the native one is supported", f"astype('{dtype.name}')"
    elif dtype.kind not in "biuO":
        need, to = f"{', '.join(d.name for d in FLOATS)} are supported", "astype('float64')"
    raise TypeError(f"{name} is {what}: {need}; convert with {name}.{to}")


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Return whether two elements of an array may share memory, as in a broadcast view."""
    reach = array.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach:
            return array.size > 0
        reach += stride * (extent - 1)
    return False


def check_overlaps(
    params: Sequence[tuple[str, NDArray[Any]]], grads: Sequence[tuple[str, NDArray[Any]]], zero_grads: bool = False
) -> None:
    """Raise ValueError if two parameters share memory, or a gradient does with any parameter.

    zero_grads: whether two gradients may not either, because they are written too.
    """
    arrays = [(np.lib.array_utils.byte_bounds(a), zero_grads or i < len(params), name, a)
              for i, (name, a) in enumerate([*params, *grads]) if a.size]  # fmt: skip
    arrays.sort(key=lambda entry: entry[0])
    live: list[Any] = []
    for entry in arrays:
        (low, _), written, name, array = entry
        live = [other for other in live if other[0][1] > low]
        for _, other_written, other_name, other in live:
            if (written or other_written) and _share_memory(array, other):
                first, second = (other_name, name) if other_written else (name, other_name)
                same = "are the same array" if array is other else "share memory"
                raise ValueError(f"{first} and {second} {same}: pass a copy of one, as in {second}.copy()")
        live.append(entry)


def _share_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=1_000_000))  # type: ignore[arg-type]  # the stub knows only -1 and 0
    except np.exceptions.TooHardError:
        return True  # not decided in time: refuse rather than race
