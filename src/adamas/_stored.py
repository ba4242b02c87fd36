"""What checkpoints say in JSON: hyper-parameters and schedules, trees, and the kinds of their leaves."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from adamas import _tree, schedules
from adamas._memory import FLOAT
from adamas._params import FLOATS

Kind = tuple[Any, ...]

DTYPES = {dtype.name: dtype for dtype in FLOATS}


# --- hyper-parameters -------------------------------------------------------------------------------------------------


def encoded_value(value: Any) -> Any:
    """Return a hyper-parameter as JSON holds it: a schedule by name and arguments, another function by its words."""
    name = type(value).__name__
    if name in schedules.__all__ and getattr(schedules, name) is type(value):
        return {"schedule": name, "arguments": {f.name: encoded_value(getattr(value, f.name)) for f in fields(value)}}
    if callable(value):
        return {"function": f"{value!r:.200}"}
    return float(value) if isinstance(value, np.generic) else value


def decoded_value(value: Any, instead: Callable[[str], Any]) -> Any:
    """Return what `encoded_value` was given; `instead` says, by its words, what stands for a function."""
    if not isinstance(value, dict):
        if not isinstance(value, int | float | str | None):
            raise TypeError(f"{value!r:.60} for a hyper-parameter")
        return value
    if "function" in value:
        return instead(value["function"])
    name, arguments = value["schedule"], value["arguments"]
    if name not in schedules.__all__:
        raise ValueError(f"a schedule {name!r:.60}, which this version does not know")
    decoded = {key: decoded_value(argument, instead) for key, argument in arguments.items()}
    for key, argument in decoded.items():
        if not (callable(argument) if key == "then" else isinstance(argument, int | float)):
            raise TypeError(f"{argument!r:.60} for {key} of a schedule")
    return getattr(schedules, name)(**decoded)


# --- trees ------------------------------------------------------------------------------------------------------------


def encoded_tree(tree: Any) -> Any:
    """Return a tree as JSON holds it, with the paths of its leaves; None if it is not of lists, tuples and dicts."""
    if not _tree.is_plain(tree):
        return None
    names = (_tree.path(keys) for keys, _ in list(_tree.leaves(tree)))

    def encoded(node: Any) -> Any:
        if type(node) is dict:
            if not all(key is None or type(key) in (str, int, float, bool) for key in node):
                raise TypeError
            return {"dict": [[key, encoded(child)] for key, child in node.items()]}
        if type(node) in (list, tuple):
            return {type(node).__name__: [encoded(child) for child in node]}
        return next(names)

    try:
        return encoded(tree)
    except TypeError:  # of a key
        return None


def decoded_tree(tree: Any, value: Callable[[str], Any]) -> Any:
    """Return the tree, with the value of each path for a leaf."""
    if isinstance(tree, str):
        return value(tree)
    ((kind, children),) = tree.items()
    if kind == "dict":
        return {key: decoded_tree(child, value) for key, child in children}
    sequence = [decoded_tree(child, value) for child in children]
    return {"list": list, "tuple": tuple}[kind](sequence)


# --- leaves -----------------------------------------------------------------------------------------------------------


def encoded_leaf(kind: Kind, convert: type | None) -> list[Any]:
    """Return what about a parameter stays the same from step to step, as JSON holds it."""
    if kind == FLOAT:
        return ["float" if convert is None else "float64"]
    return ["array" if kind[0] == "an array" else "scalar", kind[1], list(kind[2])]


def zero_like(leaf: Any, axes: Any) -> Any:
    """Return a parameter that is zero, of the kind that `encoded_leaf` gave, its axes in order from the slowest."""
    what, *about = leaf
    if what in ("float", "float64"):
        return np.float64(0) if what == "float64" else 0.0
    dtype, shape = DTYPES[about[0]], tuple(about[1])
    if what == "scalar":
        if shape or dtype.kind == "c":
            raise ValueError(f"{leaf!r:.60} for a parameter")
        return dtype.type(0)
    if what != "array" or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{leaf!r:.60} for a parameter")
    return zeros(shape, dtype, axes)


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any], axes: Any = None) -> Any:
    """Return an array of zeros whose axes lie in memory in this order, from the slowest to the fastest."""
    if axes is None:
        return np.zeros(shape, dtype)
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(f"{axes!r:.60} for the order of {len(shape)} axes")
    return np.zeros([shape[axis] for axis in axes], dtype).transpose(np.argsort(axes))


def order_of(array: Any) -> list[int] | None:
    """Return the axes of an array from the slowest to the fastest, None where that is their own order."""
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    return None if axes == list(range(array.ndim)) or array.size <= 1 else axes


def words(leaf: Any) -> str:
    """Return what a leaf is, for an error."""
    what, *about = leaf
    return (
        f"{'an array' if what == 'array' else 'a scalar'} of {about[0]}, shape {tuple(about[1])}"
        if about
        else "a float"
    )


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return in words how the leaves of a checkpoint differ from those that it is to fit."""
    missing, extra = [path for path in wanted if path not in found], [path for path in found if path not in wanted]
    changes = []
    for path in missing:
        like = next((other for other in extra if found[other] == wanted[path]), None)
        if like is not None:
            extra.remove(like)
        changes.append(f"{path!r} is missing" + (f", but there is {like!r}, which is like it" if like else ""))
    changes += [f"{path!r} is not expected" for path in extra]
    return changes + [f"{path!r} is {words(found[path])}, not {words(leaf)}" for path, leaf in wanted.items()
                      if found.get(path, leaf) != leaf]  # fmt: skip
