"""Adam as a function that keeps nothing: the state goes in and comes out."""

from typing import Any, TypeVar

import numpy as np

from adamas import _tree
from adamas._formats import arithmetic
from adamas._optimizers import OPTIMIZERS
from adamas._params import check_overlaps, check_state

T = TypeVar("T")


def adam_step(
    params: T,
    grads: Any,
    m: Any,
    v: Any,
    t: int,
    learning_rate: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[T, Any, Any]:
    """Take step t = 1, 2, ... of Adam and return ``(params, m, v)``.

    params, grads: as `adamas.Adam` takes them in ``update``.
    m, v: the moments, nested and shaped like params and of the same dtypes, but float32 for half precision; None for
        zeros, before the first step.
    The rest: hyper-parameters of `adamas.Adam`, in its order.

    Lists, dicts and arrays are overwritten and returned; floats and tuples come back new. Raises TypeError or
    ValueError before anything is changed. Kingma and Ba 2015, arXiv:1412.6980, Algorithm 1.
    """
    if isinstance(t, bool) or not isinstance(t, int) or t < 1:
        raise ValueError(f"t must be an integer of at least 1, got {t!r}: it counts the steps, this one included")
    adam: Any = OPTIMIZERS["Adam"]
    optimizer = adam(learning_rate, beta1, beta2, epsilon)
    memory = optimizer._memory
    memory.checked(params, grads)

    entries = list(_tree.leaves(params))
    trees = {name: _zeros(params) if tree is None else tree for name, tree in (("m", m), ("v", v))}
    moments = {name: list(_tree.matched(params, tree, name)) for name, tree in trees.items()}
    arrays = [(_tree.access("params", keys), value) for keys, value in entries]
    for name, values in moments.items():
        for (keys, param), value in zip(entries, values, strict=True):
            check_state(_tree.access(name, keys), value, _tree.access("params", keys), param)
            arrays.append((_tree.access(name, keys), value))
    gradients = [("grads", g) for g in _tree.matched(params, grads) if isinstance(g, np.ndarray)]
    check_overlaps([(name, a) for name, a in arrays if isinstance(a, np.ndarray)], gradients)

    paths = [_tree.path(keys) for keys, _ in entries]
    states = {
        path: (_dense(a, param), _dense(b, param))
        for path, (_, param), a, b in zip(paths, entries, moments["m"], moments["v"], strict=True)
    }
    memory.adopt(params, states, t - 1)
    params = optimizer.update(params, grads)
    new = memory.states()
    for i, (name, values) in enumerate(moments.items()):
        written = (_written(value, new[path][i]) for path, value in zip(paths, values, strict=True))
        trees[name] = _tree.replace(trees[name], written, in_place=True)
    return params, trees["m"], trees["v"]


def _zeros(params: Any) -> Any:
    zeros = (
        np.zeros_like(value, arithmetic(value.dtype)) if isinstance(value, np.ndarray) else type(value)(0)
        for _, value in _tree.leaves(params)
    )
    return _tree.replace(params, zeros, in_place=False)


def _dense(value: Any, param: Any) -> Any:
    """Return a moment as the engine takes it: a float, or an array dense in the order of its parameter."""
    if isinstance(param, int | float):
        return float(value)
    like = np.empty_like(param, arithmetic(param.dtype), subok=False)
    if isinstance(value, np.ndarray) and value.strides == like.strides:
        return value
    like[...] = value
    return like


def _written(value: Any, new: Any) -> Any:
    """Return the moment after the step: the user's own array, overwritten, or a number."""
    if isinstance(value, np.ndarray):
        if new is not value:
            value[...] = new
        return value
    return new[()] if isinstance(new, np.ndarray) else new
