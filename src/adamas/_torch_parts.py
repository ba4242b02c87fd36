"""What the groups of a torch optimizer ask for in our terms, and its parameters as the engine takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch

from adamas import _backend, _native
from adamas._formats import random_blocks
from adamas._q8 import check_rule
from adamas._tensors import encoded, state_dtype
from adamas._torch_state import WHOLE, Group, Keeper
from adamas.rules import RULES, Rule, Stages

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""The types of tensors whose memory is what it seems: a subclass may keep its values elsewhere."""

HAS_ENGINE = _backend.engine != "specification" and hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
"""Whether there is an engine, and a torch, 2.10 or newer, that lets it read tensors."""


MAKE_HANDLES = getattr(getattr(torch._C, "_aoti", None), "unsafe_alloc_void_ptrs_from_tensors", None)
"""What lets the engine look at state through torch's C interface, in a third of the time of DLPack."""


class Kind(NamedTuple):
    """What a parameter group asks for."""

    rule: str
    differentiable: bool


class Entry(NamedTuple):
    """A parameter, as the engine takes it."""

    group: int
    param: torch.Tensor
    state: Group | None  # None as long as there is none
    shown: torch.Tensor | None  # its state["step"], a view of Part.counts
    plain: bool
    place: int  # among all parameters of the optimizer
    first: int  # the number of its first block of 256 elements there


@dataclass(slots=True)
class Part:
    """The parameters of all groups of a kind, in order, and how they are stepped."""

    kind: Kind
    entries: list[Entry]
    counts: torch.Tensor  # float64: the steps that each entry has taken
    carries: torch.Tensor  # float64: what the rule carries from step to step, a row for each entry
    plan: Any  # the engine's, or None
    others: Sequence[int]  # the entries that the engine does not step


class Learner(Keeper):
    """A class of torch.optim in our terms: what a subclass says is how torch's dialect differs.

    rules: name of the rule -> whether a parameter group takes it; the first that says yes.
    hyperparameters: of those rules -> the key of the parameter group, or a function of group and t = 1, 2, ...
    initial: a name of state -> the key of its first value in the group, where that is not 0.
    counted: whether torch keeps a count of steps in the state.
    takes_sparse: whether torch takes sparse gradients.
    """

    rules: ClassVar[Mapping[str, Callable[[Group], bool]]]
    hyperparameters: ClassVar[Mapping[str, str | Callable[[Group, float], Any]]]
    initial: ClassVar[Mapping[str, str]] = {}
    counted: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = False

    _kinds: list[Kind] | None = None  # of each group, when _parts was made
    _parts: list[Part] = []
    _staged = False  # whether options change what _numbers returns

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for group in self.param_groups:  # now with what torch's classes do not know
            self._kind(group)

    # --- what torch's groups mean -------------------------------------------------------------------------------------

    def _kind(self, group: Group) -> Kind:
        """Return the rule of a group, and whether its steps are differentiable."""
        if group.get("capturable"):
            raise ValueError(
                f"capturable=True is not supported by adamas.torch.{type(self).__name__}, whose step cannot be part of "
                "a CUDA graph: leave it out, or use the class of torch.optim"
            )
        if group.get("differentiable") and RULES["SGD"].reduces(self._whole(group)):
            raise ValueError(f"differentiable=True and {', '.join(WHOLE)} exclude each other: leave one out")
        for rule, takes in self.rules.items():
            if takes(group):
                return Kind(rule, bool(group.get("differentiable")))
        raise AssertionError("the last rule of a class takes every group")

    def _whole(self, group: Group) -> dict[str, Any]:
        """Return the hyper-parameters of the stages that look at whole tensors, which torch's checkpoints lack."""
        return {name: group.get(name, self.defaults.get(name, getattr(Rule, name))) for name in WHOLE}

    def _numbers(self, index: int, t: float, carry: tuple[float, ...]) -> tuple[dict[str, float], Stages]:
        """Return the coefficients of step t of a group's rule, and of the stages around it.

        carry: what lives across steps, in the rule's order.
        """
        assert self._kinds is not None
        group, kind = self.param_groups[index], self._kinds[index]
        decays = {"weight_decay": group["weight_decay"], "decoupled": group.get("decoupled_weight_decay", False)}
        h = SimpleNamespace(
            **decays, **self._whole(group), **dict(zip(RULES[kind.rule].first_carry, carry, strict=True))
        )
        for name, key in self.hyperparameters.items():
            value = group[key] if isinstance(key, str) else key(group, t)
            setattr(h, name, value if kind.differentiable else float(value))
        coefficients, stages = RULES[kind.rule].numbers(h, t)
        if group["maximize"]:
            stages = stages._replace(scale=-stages.scale)
        return coefficients, self.options.with_options(stages, int(t)) if self._staged else stages

    # --- learning the parameters --------------------------------------------------------------------------------------

    def _learned(self, kind: Kind, kinds: list[Kind]) -> Part:
        """Return the part of all groups of a kind, with the state of each parameter that has a gradient made."""
        rule, differentiable = kind
        groups = zip(self.param_groups, kinds, strict=True)
        params = [(i, p) for i, (group, other) in enumerate(groups) if other == kind for p in group["params"]]
        for i, p in params:
            if p.grad is not None:
                self._check(i, p, p.grad)
        known = {} if self.counted else self._counts()
        made = [self._state_of(rule, self.param_groups[i], p, known.get(p)) for i, p in params]
        counts = torch.tensor([count for _, count in made], dtype=torch.float64)
        first = RULES[rule].first_carry
        rows = [[float((state or {}).get(name, first[name])) for name in first] for state, _ in made]
        carries = torch.tensor(rows, dtype=torch.float64).reshape(len(made), len(first))
        everyone = list(self._params())
        blocks = random_blocks(p.numel() * (1 + p.is_complex()) for p in everyone)
        places = dict(zip(everyone, enumerate(blocks), strict=True))
        entries = [
            Entry(i, p, state, None, type(p) in PLAIN, *places[p])
            for (i, p), (state, _) in zip(params, made, strict=True)
        ]
        if self._counting:
            for k, entry in enumerate(entries):
                if entry.state is not None:
                    entry.state["step"] = count = counts[k]
                    entries[k] = entry._replace(shown=count)
        for entry, row in zip(entries, carries, strict=True):
            if entry.state is not None:
                entry.state.update(dict(zip(first, row, strict=True)))  # views, as of the counts
        part = Part(kind, entries, counts, carries, None, range(len(entries)))
        if HAS_ENGINE and not differentiable:
            names = [*(self.names[name] for name in RULES[rule].state_names), *self.options.extra_names]
            carried = [list(_native.engine.rules()[rule][1]).index(name) for name in first]
            part.plan = _native.engine.TensorPlan(
                rule, torch.Tensor, entries, names, counts.numpy().reshape(-1, 1), carried, carries.numpy(), self.state,
                MAKE_HANDLES, self.options.plan_options,
            )  # fmt: skip
            part.others = part.plan.others()
        return part

    @property
    def _counting(self) -> bool:
        """Whether the state has a count of steps: also where torch's has none, but random numbers depend on it."""
        return self.counted or self.options.stochastic_rounding or self.options.state_format == "q8"

    def _counts(self) -> dict[torch.Tensor, float]:
        """Return how many steps the states have seen that we have stepped so far."""
        pairs = chain.from_iterable(zip(part.entries, part.counts, strict=True) for part in self._parts)
        return {entry.param: float(n) for entry, n in pairs if entry.state is self.state.get(entry.param)}

    def _state_of(self, rule: str, group: Group, p: torch.Tensor, known: float | None) -> tuple[Group | None, float]:
        """Return the state of a parameter and how many steps it has seen; make it if there is a gradient.

        The state is None as long as there is none. Where torch does not count and we do not know, having a state
        counts as one step: what matters is whether the next one is the first.
        """
        names, extras = RULES[rule].state_names, self.options.extra_names
        if not names and not extras and not self._counting:
            return {}, 0.0  # torch keeps none of this kind
        state: Group = self.state.get(p, {})
        missing = [name for name in names if state.get(self.names[name]) is None]
        count = 0.0 if self.counted else known
        if self._counting and "step" in state:
            count = float(state["step"])
        if count is None:
            count = float(len(missing) < len(names))
        if p.grad is None:
            return (None if missing or any(name not in state for name in extras) else state), count
        state = self.state[p]
        dtype, coded = state_dtype(p.dtype, self.options.state_format), self._in_q8(p)
        order = torch.contiguous_format if coded else torch.preserve_format
        with torch.no_grad():
            for name in names:
                key = self.names[name]
                if name in missing:
                    first = group[self.initial[name]] if name in self.initial else 0
                    value = complex(first, first) if p.is_complex() else first
                    state[key] = torch.full_like(p, value, dtype=dtype, memory_format=order)
                elif count == 0 and state[key].dtype != torch.uint8:  # made by torch's constructor
                    state[key] = state[key].to(dtype)
                if coded and state[key].dtype != torch.uint8:
                    state[key] = encoded(state[key], name in RULES[rule].nonnegative)
            for name in extras:
                if name not in state:
                    exact = p.is_complex() or name == "ema"
                    kind = state_dtype(p.dtype, "float32") if exact else getattr(torch, self.options.option(name))
                    state[name] = p.detach().to(kind, copy=True, memory_format=order)
        return state, count

    def _check(self, group: int, p: torch.Tensor, grad: torch.Tensor) -> None:
        """Raise if a gradient is not for this optimizer."""
        name = type(self).__name__
        if grad.layout != torch.strided:
            if not self.takes_sparse:
                raise RuntimeError(f"{name} does not support sparse gradients, please consider SparseAdam instead")
            if float(self.param_groups[group]["weight_decay"]):
                raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        if self.options.state_format == "q8":
            self._check_q8(group, p)
        if p.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"adamas.torch.{name}.step cannot be captured in a CUDA graph: use torch.optim.{name}")

    def _check_q8(self, group: int, p: torch.Tensor) -> None:
        """Raise if the state of a parameter cannot be in q8."""
        trouble = ""
        if type(p) not in PLAIN or p.device.type != "cpu":
            trouble = f"is a {type(p).__name__} on {p.device.type}"
        elif torch.promote_types(p.dtype, torch.float32) != torch.float32:
            trouble = f"is {p.dtype}"
        elif self.param_groups[group].get("differentiable"):
            trouble = "is stepped differentiably"
        if trouble:
            place = next(i for i, other in enumerate(self._params()) if other is p)
            raise ValueError(
                f"parameter {place} {trouble}: state_format='q8' is for float32, bfloat16 and float16 tensors on the "
                "CPU; put the others into an optimizer without it"
            )

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as torch's method does."""
        if isinstance(param_group, dict):  # torch says what is wrong with anything else
            kind = self._kind({**self.defaults, **param_group})
            if self.options.state_format == "q8":
                check_rule(RULES[kind.rule])
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kinds, self._parts = None, []
