"""States of optimizers to and from PyTorch's."""

import copy
import glob
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from adamas import _tree
from adamas._state import Moments, State, as_count, nested, told
from adamas.errors import CheckpointError
from adamas.rules import RULES

Array = NDArray[Any]

OF_TORCH = {
    "AdamW": "AdamW", "Adam": "Adam", "AMSGrad": "Adam", "NAdam": "NAdam", "Adamax": "Adamax", "RMSProp": "RMSprop",
    "AdaGrad": "Adagrad", "Lion": "Lion",
}  # fmt: skip
"""The rules whose state in torch is ours -> the class in `adamas.torch`, which has torch's names and groups."""


def _torch_class(rule: str) -> Any:
    from adamas import torch as dialect  # noqa: PLC0415 - optional

    if rule not in OF_TORCH:
        raise CheckpointError(
            f"the state of {rule} is not converted to or from torch: {', '.join(OF_TORCH)} are. adamas.torch has it too"
        )
    return getattr(dialect, OF_TORCH[rule])


def from_torch(state_dict: Mapping[str, Any], rule: str | None = None) -> State:
    """Return the state of a torch.optim optimizer (or one of adamas.torch), given its ``state_dict()``.

    rule: the name of the rule; if None it is found by what is remembered. Parameters have the names that the optimizer
    knows of them, as of ``named_parameters()``, else they are a list. Raises CheckpointError if it is no such state, or
    parameters were stepped a different number of times.
    """
    try:
        groups, states = list(state_dict["param_groups"]), dict(state_dict["state"])
        order = [int(i) for group in groups for i in group["params"]]
        names = [str(name) for group in groups for name in group.get("param_names", ())]
        entries = [states[i] for i in order]
        rule = rule or _found(entries[0], groups[0])
        cls = _torch_class(rule)
        keys = {name: cls.names[name] for name in RULES[rule].state_names}
        leaves = [Moments({ours: _numbers(entry[key]) for ours, key in keys.items()}) for entry in entries]
        counts = {float(entry["step"]) for entry in entries}
        products = {float(entry["mu_product"]) for entry in entries if "mu_product" in entry}
        each = [_known(group, rule) for group in groups for _ in group["params"]]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"this is no state of torch.optim: {type(error).__name__}: {error}") from None
    if len(counts) > 1 or len(products) > 1:
        raise CheckpointError(
            f"parameters were stepped {', '.join(f'{n:g}' for n in sorted(counts))} times: here all have one count. "
            "Convert those of each count apart"
        )
    tree = nested(names, leaves) if names else leaves
    paths = [_tree.path(path) for path, _ in _tree.leaves(tree)]
    differing = zip(paths, each, strict=True)
    own = tuple((glob.escape(path), values) for path, values in differing if values != each[0])
    carry = {"mu_product": products.pop()} if products else {}
    return State(rule, as_count(counts.pop()), tree, each[0], own, carry)


def _found(entry: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """Return the name of the rule that remembers what an entry holds."""
    held = {name for name in entry if name not in ("step", "ema", "weight_copy")}
    if {"exp_avg", "exp_avg_sq"} == held and "amsgrad" not in group:
        raise CheckpointError("the state is like Adam's, but its group is not: it may be RAdam's or another's, refused")
    if "amsgrad" in group and group.get("weight_decay") and "decoupled_weight_decay" not in group:
        raise CheckpointError("the file does not say whether its decay is decoupled: name the rule, Adam or AdamW")
    for rule in OF_TORCH:
        names = {_torch_class(rule).names[name] for name in RULES[rule].state_names}
        names |= set(RULES[rule].first_carry)
        if held == names and (rule not in ("Adam", "AdamW") or (rule == "AdamW") == _is_decoupled(group)):
            return rule
    raise CheckpointError(f"no rule that is converted remembers {', '.join(sorted(held)) or 'nothing'}")


def _is_decoupled(group: Mapping[str, Any]) -> bool:
    return bool(group.get("decoupled_weight_decay", False))


def _numbers(tensor: Any) -> Array:
    """Return a tensor as an array of its own, in float32 if it is shorter."""
    import torch  # noqa: PLC0415 - optional

    if tensor.dtype == torch.uint8:
        raise CheckpointError("the state is in q8: save state_dict(decoded=True)")
    exact = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.detach().to("cpu", exact).numpy().copy()  # type: ignore[no-any-return]


def _known(group: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """Return the hyper-parameters of a group, by our names."""
    for name in ("maximize", "lr_decay"):
        if group.get(name):
            raise CheckpointError(f"{name}={group[name]!r} is not converted: adamas has no such hyper-parameter")
    known = {"learning_rate": float(group["lr"]), "weight_decay": float(group.get("weight_decay", 0.0))}
    if "betas" in group:
        known |= {"beta1": float(group["betas"][0]), "beta2": float(group["betas"][1])}
    if "alpha" in group:
        known["beta2"] = float(group["alpha"])
    known |= {ours: float(group[key]) for ours, key in TORCH_NUMBERS.items() if key in group}
    if "decoupled_weight_decay" in group:
        known["decoupled"] = _is_decoupled(group)
    return {name: value for name, value in known.items() if name in RULES[rule].ranges}


TORCH_NUMBERS = {"epsilon": "eps", "momentum_decay": "momentum_decay"}
"""Hyper-parameters that a group has under other names, besides lr, betas and weight_decay."""


def to_torch(state: State, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a state as the ``state_dict()`` of torch's class of the rule, or of adamas.torch's if torch has none.

    like: the ``state_dict()`` of the optimizer that will load it, whose groups are kept with their hyper-parameters;
        parameters go by its names if all of these are the same, else by order. Without it all parameters are in one
        group, by order: ``optimizer.load_state_dict`` takes it if its own are.

    Raises CheckpointError for rules that torch computes otherwise, and where `like` does not fit.
    """
    import torch  # noqa: PLC0415 - optional

    cls = _torch_class(state.rule)
    base = getattr(torch.optim, cls.__name__, cls)
    group = base([torch.zeros(1)]).state_dict()["param_groups"][0]
    names = [".".join(map(str, keys)) for keys, _ in _tree.leaves(state.tree)]
    held = dict(enumerate(moments for _, moments in state.by_path()))
    if like is None:
        if state.groups:
            told("the groups of hyper-parameters are not converted: give like=, the state_dict() to fill")
        _set_group(group, state)
        group["params"] = list(held)
        if not isinstance(state.tree, list):
            group["param_names"] = names
        groups = [group]
    else:
        groups = _like_groups(like, group, state)
        theirs = [name for own in groups for name in own.get("param_names", ())]
        order = [names.index(name) for name in theirs] if sorted(theirs) == sorted(names) else list(held)
        places = [place for own in groups for place in own["params"]]
        held = {place: held[i] for place, i in zip(places, order, strict=True)}
        _check_shapes(like, held, cls.names)
    entries = {}
    for place, moments in held.items():
        arrays = {cls.names[name]: torch.from_numpy(array.copy()) for name, array in moments.arrays.items()}
        carried = {name: torch.tensor(value) for name, value in state.carry.items()}
        entries[place] = {"step": torch.tensor(float(state.t)), **carried, **arrays}
    return {"state": entries, "param_groups": groups}


def _set_group(group: dict[str, Any], state: State) -> None:
    """Give a group of torch the hyper-parameters of a state."""
    known = {"learning_rate": 1e-3, **state.hyperparameters}
    group.update(lr=known["learning_rate"], weight_decay=known.get("weight_decay", 0.0))
    if "betas" in group and "beta1" in known:
        group["betas"] = (known["beta1"], known["beta2"])
    if "alpha" in group and "beta2" in known:
        group["alpha"] = known["beta2"]
    group.update({key: known[ours] for ours, key in TORCH_NUMBERS.items() if ours in known and key in group})
    if "amsgrad" in group:
        group["amsgrad"] = state.rule == "AMSGrad"
    if "decoupled_weight_decay" in group:
        group["decoupled_weight_decay"] = bool(known.get("decoupled", state.rule == "AdamW"))


def _like_groups(like: Mapping[str, Any], group: Mapping[str, Any], state: State) -> list[dict[str, Any]]:
    """Return the groups of another state of torch, if they are those of this rule and of as many parameters."""
    groups: list[dict[str, Any]] = copy.deepcopy(list(like.get("param_groups", ())))
    count, own = sum(len(held["params"]) for held in groups), len(list(state.by_path()))
    if count != own:
        raise CheckpointError(f"the state is of {own} parameters, and the one to fill of {count}")
    if any(group.keys() - held.keys() for held in groups):
        raise CheckpointError(f"the groups to fill are not of torch's optimizer for {state.rule}")
    if any("amsgrad" in held and held["amsgrad"] != (state.rule == "AMSGrad") for held in groups):
        raise CheckpointError(f"the groups to fill have another amsgrad= than {state.rule}: make them alike")
    return groups


def _check_shapes(like: Mapping[str, Any], held: Mapping[int, Moments], names: Mapping[str, str]) -> None:
    """Raise CheckpointError if another state of torch remembers arrays of other shapes."""
    for place, entry in like.get("state", {}).items():
        for name, array in held[place].arrays.items() if place in held else ():
            if names[name] in entry and tuple(entry[names[name]].shape) != array.shape:
                raise CheckpointError(
                    f"parameter {place} has shape {tuple(entry[names[name]].shape)} there and {array.shape} in the "
                    "state"
                )
