"""Trees of parameters: lists, tuples, dicts and the nodes that are registered with optree, nested at will.

A leaf is anything else. The engine walks lists, tuples and dicts itself in every step but the first; this module is
for the first, for other nodes, and for the words when something is wrong.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import optree

Keys = tuple[Any, ...]
"""The keys that lead from the root of a tree to a leaf."""


def _custom(node: Any) -> tuple[list[Any], list[Any], Callable[[list[Any]], Any]] | None:
    """Return the keys, children and rebuilding function of a node that optree knows, None for a leaf."""
    if optree.tree_is_leaf(node, none_is_leaf=True):
        return None
    children, metadata, entries, unflatten = optree.tree_flatten_one_level(node, none_is_leaf=True)
    return list(entries), list(children), lambda new: unflatten(metadata, new)


def _items(node: Any) -> Iterator[tuple[Any, Any]] | None:
    """Return the keys and children of a node in their order, None for a leaf."""
    if isinstance(node, dict):
        return iter(node.items())
    if isinstance(node, list) or type(node) is tuple:
        return enumerate(node)
    custom = _custom(node)
    return None if custom is None else zip(custom[0], custom[1], strict=True)


def leaves(tree: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield the keys and the value of every leaf, in order."""
    items = _items(tree)
    if items is None:
        yield keys, tree
    else:
        for key, child in items:
            yield from leaves(child, (*keys, key))


def replace(tree: Any, values: Iterator[Any], *, in_place: bool) -> Any:
    """Return the tree with its leaves replaced by values, in order.

    In place, lists and dicts are overwritten; else they are copied. Tuples and registered nodes come back new.
    """
    items = _items(tree)
    if items is None:
        return next(values)
    children = [(key, replace(child, values, in_place=in_place)) for key, child in items]
    if isinstance(tree, list | dict):
        tree = tree if in_place else copy.copy(tree)
        for key, child in children:
            tree[key] = child
        return tree
    new = [child for _, child in children]
    custom = _custom(tree)
    return tuple(new) if custom is None or type(tree) is tuple else custom[2](new)


def is_plain(tree: Any) -> bool:
    """Return whether a tree is made of nothing but lists, tuples and dicts: the nodes that the engine walks itself."""
    items = _items(tree)
    return items is None or (type(tree) in (list, tuple, dict) and all(is_plain(child) for _, child in items))


def matched(params: Any, grads: Any, root: str = "grads", keys: Keys = ()) -> Iterator[Any]:
    """Yield the gradient of every leaf of params, in order; raise ValueError where the trees differ.

    Dicts are matched by key; only at the top a list or tuple may stand for a dict, in the dict's order. `root` is what
    errors call the second tree.
    """
    items = _items(params)
    if items is None:
        yield grads
        return
    own = list(items)
    here, there = access("params", keys), access(root, keys)
    if isinstance(params, dict) and isinstance(grads, dict):
        if missing := [key for key, _ in own if key not in grads]:
            raise ValueError(f"{there} has no {missing[0]!r}, which {here} has: each parameter needs an entry")
        if extra := [key for key in grads if key not in params]:
            raise ValueError(f"{there} has {extra[0]!r}, which {here} has not: remove it, or spell it alike")
        others = [grads[key] for key, _ in own]
    else:
        sequences = isinstance(params, list | tuple) or (isinstance(params, dict) and not keys)
        if not (isinstance(grads, list | tuple) if sequences else type(grads) is type(params)):
            raise ValueError(f"{there} is {described(grads)} but {here} is {described(params)}: nest them alike")
        others = [child for _, child in _items(grads) or ()]
        if len(others) != len(own):
            raise ValueError(f"{there} has {len(others)} entries but {here} has {len(own)}: there must be as many")
    for (key, child), other in zip(own, others, strict=True):
        yield from matched(child, other, root, (*keys, key))


def described(value: object) -> str:
    """Return what a value is, for an error."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"an array of shape {shape}" if shape is not None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def access(root: str, keys: Keys) -> str:
    """Return the Python expression for a leaf: params['layer'][0]."""
    return root + "".join(f"[{key!r}]" for key in keys)


def path(keys: Keys) -> str:
    r"""Return the name of a leaf: its keys joined by '.', with '.' in a key escaped.

    Integers stand as they are; strings too, unless they could be taken for another key, as '0' for 0: those are
    quoted. Other keys stand in angle brackets.
    """
    return ".".join(_name(key).replace("\\", "\\\\").replace(".", "\\.") for key in keys)


def _name(key: object) -> str:
    if isinstance(key, str):
        return repr(key) if re.match(r"-?\d+$|['\"<]|$", key) else key
    return str(key) if type(key) is int else f"<{key!r}>"
