"""What an optimizer of PyTorch keeps: its options, the state of its parameters, checkpoints of both dialects."""

import inspect
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch.optim.optimizer import Optimizer

from adamas._options import Options
from adamas._q8 import LEAST, check
from adamas._tensors import decoded as decoded_tensor
from adamas._tensors import encoded, state_dtype
from adamas.rules import RULES, Rule

Group = dict[str, Any]

WHOLE = ("cautious", "update_clip", "trust_ratio")
"""Hyper-parameters that a parameter group may have beside torch's: of stages that look at whole tensors."""

ALWAYS_SAVED = ("lr", "betas", "eps", "alpha", "dampening", "lr_decay", "weight_decay")
"""The hyper-parameters that are in every state dict of a class that has them, however old."""


class StepOptions(Options):
    """The options of an optimizer of PyTorch; what its state is made by cannot change."""

    changed: bool  # since the optimizer looked

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "changed":
            vars(self)[name] = value
            return
        if name not in self.option_names:
            raise AttributeError(f"there is no option {name!r}: it may be {', '.join(self.option_names)}")
        if name in self.lasting and name in vars(self):
            raise AttributeError(f"{name} cannot change: make a new optimizer")
        vars(self)[name] = self.checked_option(name, value)
        self.changed = True


class Keeper(Optimizer):
    """A class of torch.optim that also takes the options of a step, and what it keeps.

    names: of the rules' state -> the key in the optimizer's state.
    """

    names: ClassVar[Mapping[str, str]]

    options: StepOptions
    grad_norm: float | None = None
    nonfinite_steps = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in Options.option_names if name in kwargs}
        whole = {name: RULES["SGD"].checked(name, kwargs.pop(name)) for name in WHOLE if name in kwargs}
        self.options = StepOptions(**given)
        super().__init__(*args, **kwargs)
        self.defaults.update(whole)
        for group in self.param_groups:
            for name, value in whole.items():
                group.setdefault(name, value)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        torch_class = next(base for base in cls.__mro__ if base.__module__.startswith("torch.optim."))
        own, ours = inspect.signature(torch_class), inspect.signature(Options)
        whole = [inspect.Parameter(x, inspect.Parameter.KEYWORD_ONLY, default=getattr(Rule, x)) for x in WHOLE]
        cls.__signature__ = own.replace(parameters=[*own.parameters.values(), *whole, *ours.parameters.values()])  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        kept = ("options", "grad_norm", "nonfinite_steps")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in kept}}

    def _params(self) -> Iterator[torch.Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    @property
    def ema(self) -> dict[torch.Tensor, torch.Tensor]:
        """The average of each parameter that has been stepped, if ``ema=`` was given."""
        return self._extra("ema")

    @property
    def weight_copy(self) -> dict[torch.Tensor, torch.Tensor]:
        """The copy of each parameter that has been stepped, if ``weight_copy=`` was given."""
        return self._extra("weight_copy")

    def _extra(self, name: str) -> dict[torch.Tensor, torch.Tensor]:
        return {p: state[name] for p, state in self.state.items() if name in state}

    def _in_q8(self, p: torch.Tensor) -> bool:
        """Whether the state of a parameter is kept in q8: arrays of fewer elements keep it in float32."""
        return self.options.state_format == "q8" and p.numel() >= LEAST

    def _is_nonnegative(self, key: str) -> bool:
        return any(key == self.names[name] for name in Rule.nonnegative if name in self.names)

    @property
    def state_bytes(self) -> int:
        """How many bytes the state takes, without averages and copies of the parameters."""
        keys = self.names.values()
        return sum(state[key].nbytes for state in self.state.values() for key in keys if key in state)

    def state_dict(self, *, decoded: bool = False) -> dict[str, Any]:
        """Return the state as torch's method does, but with copies of the tensors.

        decoded: whether state in q8 becomes float32 tensors shaped like their parameters, which torch's own classes
            load, too. Otherwise it is the raw bytes, from which an optimizer goes on with the same bits.
        """
        state_dict = super().state_dict()
        states = {
            key: _copied(state) if isinstance(state, dict) else state for key, state in state_dict["state"].items()
        }
        state_dict = {**state_dict, "state": states}
        if decoded:
            for p, state in self._states_in(state_dict):
                state.update({key: self._decoded(p, key, x) for key, x in state.items() if key in self.names.values()})
        return state_dict

    def _decoded(self, p: torch.Tensor, key: str, x: Any) -> Any:
        return decoded_tensor(x, p, self._is_nonnegative(key)) if isinstance(x, torch.Tensor) else x

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load copies of a state, of torch's class or ours, as torch's method does.

        Float32 state of half-precision parameters stays float32; state is encoded or decoded where one of the
        optimizers keeps it in q8 and the other does not. Raises ValueError, before anything is changed, if a group
        lacks a hyper-parameter, a state differs in shape from its parameter, or bytes are no state in q8.
        """
        loaded: dict[str, Any] = {}

        def check(_: Optimizer, state_dict: dict[str, Any]) -> None:  # called after all other hooks
            loaded.update(state_dict)
            self._check_state_dict(state_dict)

        hook = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        for p, state in self._states_in(loaded):
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and name != "step":
                    self.state[p][name] = self._loaded(p, name, value.detach())

    def _loaded(self, p: torch.Tensor, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor of a state dict as it is kept."""
        if name in self.names.values() and (self._in_q8(p) or value.dtype == torch.uint8):
            sign = self._is_nonnegative(name)
            if self._in_q8(p):
                return value.clone() if value.dtype == torch.uint8 else encoded(value, sign)
            value = decoded_tensor(value.cpu(), p, sign)
        order = torch.contiguous_format if self._in_q8(p) else torch.preserve_format
        return value.to(p.device, self._loaded_dtype(p, name, value), copy=True, memory_format=order)

    def _loaded_dtype(self, p: torch.Tensor, name: str, value: torch.Tensor) -> torch.dtype:
        """Return the dtype that a tensor of a state dict is kept in."""
        if name == "weight_copy":
            return value.dtype
        if value.dim() == 0 and name not in (*self.names.values(), "ema"):
            return torch.float64  # what lives across steps
        wanted = state_dtype(p.dtype, "float32" if name == "ema" else self.options.state_format)
        return value.dtype if value.dtype == p.dtype == torch.bfloat16 and name != "ema" else wanted

    def _states_in(self, state_dict: dict[str, Any]) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        """Yield each of our parameters that has a state in a state dict, and that state."""
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, p in zip(keys, params, strict=False):  # torch has the words for numbers that differ
            if isinstance(state := state_dict["state"].get(key), dict):
                yield p, state

    def _check_state_dict(self, state_dict: dict[str, Any]) -> None:
        for i, group in enumerate(state_dict["param_groups"]):
            if missing := [key for key in self.defaults if key in ALWAYS_SAVED and key not in group]:
                name = type(self).__name__
                raise ValueError(f"param_groups[{i}] of the state dict has no {missing[0]!r}: it is not of {name}")
        for i, (p, state) in enumerate(self._states_in(state_dict)):
            for key, value in state.items():
                if key not in self.names.values() or not isinstance(value, torch.Tensor):
                    continue
                if value.dtype == torch.uint8:
                    check(f"{key} of parameter {i}", value.cpu().numpy(), p.numel(), self._is_nonnegative(key))
                elif value.shape != p.shape:
                    raise ValueError(
                        f"{key} of parameter {i} in the state dict has shape {tuple(value.shape)}, but the parameter "
                        f"has shape {tuple(p.shape)}: they must agree"
                    )


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: x.detach().clone() if isinstance(x, torch.Tensor) else x for name, x in state.items()}
