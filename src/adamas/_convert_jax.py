"""States of optimizers to and from optax's and Keras'."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas import _tree
from adamas._state import Moments, State, as_count, told
from adamas.errors import CheckpointError

Array = NDArray[Any]

# --- optax ------------------------------------------------------------------------------------------------------------

OF_OPTAX = {
    "Adam": {"m": "mu", "v": "nu"}, "AdamW": {"m": "mu", "v": "nu"}, "Adamax": {"m": "mu", "u": "nu"},
    "Lion": {"m": "mu"},
}  # fmt: skip
"""Rules that optax computes as we do -> the fields of its state by our names."""

NOT_OF_OPTAX = {
    "AMSGrad": "optax takes the maximum of the corrected v, we (and torch) of the raw one, and neither says the other",
    "NAdam": "optax's nadam has a constant beta1, ours (and torch's) one that follows a schedule",
}


def _optax_fields(rule: str) -> dict[str, str]:
    if rule in OF_OPTAX:
        return OF_OPTAX[rule]
    reason = NOT_OF_OPTAX.get(rule, f"{', '.join(OF_OPTAX)} are")
    raise CheckpointError(f"the state of {rule} is not converted to or from optax: {reason}")


def from_optax(state: Any, rule: str) -> State:
    """Return the state of an optax optimizer: of ``optax.adam`` and others, wherever in the tuple it stands.

    rule: "Adam", "AdamW", "Adamax" or "Lion", which a state of optax does not say: nadam's looks like
        adam's. The parameters may be nested in lists, tuples and dicts; hyper-parameters are not in the state.

    Raises CheckpointError if it is not such.
    """
    fields = _optax_fields(rule)
    part = _part(state, fields.values())
    if part is None:
        raise CheckpointError(f"no part of the state has {', '.join(fields.values())}: it is not that of {rule}")
    kind = type(part).__name__
    if kind.startswith("ScaleBy") and kind != (wanted := "ScaleByLionState" if rule == "Lion" else "ScaleByAdamState"):
        raise CheckpointError(f"the state is of optax's {kind}, and that of {rule} of {wanted}")
    if hasattr(part, "nu_max") or (isinstance(part, Mapping) and "nu_max" in part):
        raise CheckpointError(f"the state of AMSGrad is not converted to or from optax: {NOT_OF_OPTAX['AMSGrad']}")
    trees = {ours: _field(part, name) for ours, name in fields.items()}
    first = next(iter(trees.values()))
    try:
        columns = {ours: list(_tree.matched(first, tree, fields[ours])) for ours, tree in trees.items()}
    except ValueError as error:
        raise CheckpointError(f"the trees of the state differ: {error}") from None
    leaves = [
        Moments({ours: _array(column[i]) for ours, column in columns.items()})
        for i in range(len(list(_tree.leaves(first))))
    ]
    return State(rule, as_count(_field(part, "count")), _tree.replace(first, iter(leaves), in_place=False))


def to_optax(state: State, like: Any) -> Any:
    """Return a state of optax, that of ``optimizer.init(params)``, with the moments and counts of ours.

    like: the state to fill, whose trees, shapes and dtypes must fit; a new one is returned. Parameters go by their
    names if all of these are the same, else by order. Raises CheckpointError if they do not fit.
    """
    fields = _optax_fields(state.rule)
    if _part(like, fields.values()) is None:
        raise CheckpointError(f"no part of the state has {', '.join(fields.values())}: it is not that of {state.rule}")

    def filled(node: Any) -> Any:
        if not isinstance(node, tuple):
            return node
        if not hasattr(node, "_asdict"):
            return type(node)(filled(child) for child in node)
        part: Any = node
        held = part._asdict()
        if {"count", *fields.values()} <= held.keys():
            arrays = {name: _refilled(held[name], state, ours) for ours, name in fields.items()}
            return part._replace(count=_like(state.t, held["count"]), **arrays)
        if "count" in held:
            return part._replace(count=_like(state.t, held["count"]))
        return part._replace(**{name: filled(child) for name, child in held.items()})

    return filled(like)


def _refilled(tree: Any, state: State, name: str) -> Any:
    old, new = list(_tree.leaves(tree)), state.arrays(name)
    if len(old) != len(new):
        raise CheckpointError(f"the state is of {len(new)} parameters, and the one to fill of {len(old)}")
    by_path = {path: moments.arrays[name] for path, moments in state.by_path()}
    if by_path.keys() == {_tree.path(keys) for keys, _ in old}:
        new = [by_path[_tree.path(keys)] for keys, _ in old]  # JAX sorts the keys of dicts, others do not
    for (keys, before), array in zip(old, new, strict=True):
        if tuple(before.shape) != array.shape:
            raise CheckpointError(
                f"{_tree.path(keys)!r} has shape {tuple(before.shape)} there and {array.shape} in the state"
            )
    return _tree.replace(
        tree, iter([_like(array, before) for (_, before), array in zip(old, new, strict=True)]), in_place=False
    )


def _like(value: Any, before: Any) -> Any:
    """Return numbers as an array of the kind of another one: JAX's, or NumPy's."""
    array = np.asarray(value, before.dtype)
    if type(before).__module__.partition(".")[0] in ("jax", "jaxlib"):
        import jax  # noqa: PLC0415 - whoever has its arrays has it

        return jax.numpy.asarray(array)
    return array


def _part(state: Any, fields: Any) -> Any:
    """Return the part of a state of optax, or of nested dicts like one, that has these fields; None if none has."""
    held = state._asdict() if hasattr(state, "_asdict") else state if isinstance(state, Mapping) else {}
    if {"count", *fields} <= held.keys():
        return state
    children = held.values() if held else state if isinstance(state, tuple | list) else ()
    return next((found for child in children if (found := _part(child, fields)) is not None), None)


def _field(part: Any, name: str) -> Any:
    return part[name] if isinstance(part, Mapping) else getattr(part, name)


def _array(value: Any) -> Array:
    array = np.asarray(value)
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


# --- Keras ------------------------------------------------------------------------------------------------------------

OF_KERAS = {
    "Adam": ("m", "v"), "AdamW": ("m", "v"), "AMSGrad": ("m", "v", "v_max"), "Adamax": ("m", "u"), "Lion": ("m",),
}  # fmt: skip
"""Rules whose state in Keras is ours, in its order; a maximum comes after all others."""

FORMS_OF_KERAS = {
    **dict.fromkeys(
        ("Adam", "AdamW", "AMSGrad"),
        "Keras adds epsilon before v is corrected: in step t it is an epsilon of ours of epsilon / sqrt(1 - beta2**t)",
    ),
    "Adamax": "Keras adds epsilon to u in each step, we to the magnitude of the gradient",
}
"""Where the steps of Keras differ though the state is the same."""


def _keras_names(rule: str) -> tuple[str, ...]:
    if rule not in OF_KERAS:
        reason = "Keras' Nadam has another schedule of beta1" if rule == "NAdam" else f"{', '.join(OF_KERAS)} are"
        raise CheckpointError(f"the state of {rule} is not converted to or from Keras: {reason}")
    return OF_KERAS[rule]


def from_keras(variables: Sequence[Any], rule: str) -> State:
    """Return the state of a Keras 3 optimizer, given its ``variables``, or arrays in their order.

    The parameters are a list. rule: "Adam", "AdamW", "AMSGrad", "Adamax" or "Lion". A CheckpointWarning tells where its
    steps differ from ours.
    Raises CheckpointError if there are not as many variables as the rule needs, or their shapes do not fit.
    """
    names = _keras_names(rule)
    arrays = [np.asarray(getattr(v, "value", v)) for v in variables]
    if len(arrays) < 2 or arrays[0].shape != () or arrays[1].shape != () or (len(arrays) - 2) % len(names):
        raise CheckpointError(
            f"{len(arrays)} variables are not those of {rule}: a count, a learning rate, and for each parameter "
            f"{', '.join(names)}"
        )
    count = (len(arrays) - 2) // len(names)
    together = [name for name in names if name != "v_max"]
    leaves = []
    for i in range(count):
        first = 2 + i * len(together)
        held = {name: _array(arrays[first + k]) for k, name in enumerate(together)}
        held |= {name: _array(arrays[2 + count * len(together) + i]) for name in names if name == "v_max"}
        leaves.append(Moments(held))
    rate = float(arrays[1])
    known = {"learning_rate": rate} if 0 <= rate < math.inf else {}
    if not known:
        told(f"the learning rate of the file is {rate:g}: the default stands until you give one")
    state = State(rule, as_count(arrays[0]), leaves, known)
    if rule in FORMS_OF_KERAS:
        told(FORMS_OF_KERAS[rule])
    return state


def to_keras(state: State) -> list[Array]:
    """Return the arrays of a Keras 3 optimizer's ``variables``, in their order: ``v.assign(array)`` puts them in.

    A CheckpointWarning tells where its steps differ from ours. Raises CheckpointError for rules that it computes
    otherwise.
    """
    names = _keras_names(state.rule)
    rate = state.hyperparameters.get("learning_rate", math.nan)
    arrays: list[Any] = [np.int64(state.t), np.float32(rate)]
    together = [name for name in names if name != "v_max"]
    arrays += [moments.arrays[name] for _, moments in state.by_path() for name in together]
    arrays += state.arrays("v_max") if "v_max" in names else []
    if state.rule in FORMS_OF_KERAS:
        told(FORMS_OF_KERAS[state.rule])
    return [np.asarray(array) for array in arrays]
