"""What makes a class of torch.optim step by our rules; `adamas.torch` is the table of those classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch.optim import optimizer as base
from torch.optim.optimizer import Optimizer

from adamas import _backend, _native
from adamas.rules import RULES, Stages, named, step

Group = dict[str, Any]

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""The types of tensors whose memory is what it seems: a subclass may keep its values elsewhere."""

HAS_ENGINE = _backend.engine != "specification" and hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
"""Whether there is an engine, and a torch, 2.10 or newer, that lets it read tensors."""


ALWAYS_SAVED = ("lr", "betas", "eps", "alpha", "dampening", "lr_decay", "weight_decay")
"""The hyper-parameters that are in every state dict of a class that has them, however old."""


MAKE_HANDLES = getattr(getattr(torch._C, "_aoti", None), "unsafe_alloc_void_ptrs_from_tensors", None)
"""What lets the engine look at state through torch's C interface, in a third of the time of DLPack."""


NOT_TRACED = "the step runs in a compiled engine of its own: compile without fullgraph=True"


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


@dataclass(slots=True)
class Part:
    """The parameters of all groups of a kind, in order, and how they are stepped."""

    kind: Kind
    entries: list[Entry]
    counts: torch.Tensor  # float64: the steps that each entry has taken
    plan: Any  # the engine's, or None
    others: Sequence[int]  # the entries that the engine does not step


class Stepper(Optimizer):
    """A class of torch.optim whose step is one of ours: what a subclass says is how torch's dialect differs.

    rules: name of the rule -> whether a parameter group takes it; the first that says yes.
    hyperparameters: of those rules -> the key of the parameter group, or a function of group and t = 1, 2, ...
    names: of the rules' state -> the key in the optimizer's state.
    initial: a name of state -> the key of its first value in the group, where that is not 0.
    counted: whether torch keeps a count of steps in the state.
    takes_sparse: whether torch takes sparse gradients.
    """

    rules: ClassVar[Mapping[str, Callable[[Group], bool]]]
    hyperparameters: ClassVar[Mapping[str, str | Callable[[Group, float], Any]]]
    names: ClassVar[Mapping[str, str]]
    initial: ClassVar[Mapping[str, str]] = {}
    counted: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = False

    _kinds: list[Kind] | None = None  # of each group, when _parts was made
    _parts: list[Part] = []

    # --- the step -----------------------------------------------------------------------------------------------------

    @torch.compiler.disable(reason=NOT_TRACED)  # type: ignore[untyped-decorator, no-untyped-call]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of every parameter that has a gradient; return what closure, called first, returns.

        Raises RuntimeError, before anything is changed, for a sparse gradient that torch's class refuses too, in the
        capture of a CUDA graph, and while another thread is in a step of this optimizer.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or base._global_optimizer_pre_hooks
            or base._global_optimizer_post_hooks
            or torch.autograd.profiler._is_profiler_enabled
        ):
            return _step_with_hooks(self, closure)
        return self._step(closure)

    step.hooked = True  # torch wraps the step of other optimizers, which takes longer than a step of small parameters

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._unscaled():
            kinds = [self._kind(group) for group in self.param_groups]
            if kinds != self._kinds:
                self._parts, self._kinds = [self._learned(kind, kinds) for kind in dict.fromkeys(kinds)], kinds
            for i, part in enumerate(self._parts):
                if part.plan is None or not self._stepped(part):
                    self._parts[i] = self._learned(part.kind, kinds)
                    if not self._stepped(self._parts[i]):
                        raise RuntimeError("the optimizer's parameters were changed by another thread during the step")
        return loss

    def _stepped(self, part: Part) -> bool:
        """Step all parameters of a part; return False, with nothing changed, if something about them is new."""
        others = [(i, grad) for i in part.others if (grad := part.entries[i].param.grad) is not None]
        for i, grad in others:
            self._check(part.entries[i].group, part.entries[i].param, grad)
        if part.plan is not None:
            stepped = part.plan.step(self.param_groups, self.state, self._numbers)
            if stepped is None:
                return False
            torch.autograd.graph.increment_version(stepped)  # a backward pass that needs the old values must fail
        if others:
            with torch.set_grad_enabled(part.kind.differentiable):
                for i, grad in others:
                    self._step_tensor(part, i, grad)
        return True

    def _step_tensor(self, part: Part, i: int, grad: torch.Tensor) -> None:
        """Step one parameter by the specification on torch tensors."""
        group, p, state, *_ = part.entries[i]
        assert state is not None, "made when the gradient was first seen"
        rule = RULES[part.kind.rule]
        c = named(*self._numbers(group, float(part.counts[i]) + 1))
        keys = [self.names[name] for name in rule.state_names]
        if part.kind.differentiable:  # the graph needs the old values
            state.update({key: state[key].clone() for key in keys})
        grad = grad if grad.layout == torch.strided else grad.to_dense()
        written = [p, *(state[key] for key in keys)]
        if p.is_complex():
            grad, *written = (torch.view_as_real(tensor.resolve_conj()) for tensor in (grad, *written))
        work = torch.promote_types(written[0].dtype, torch.float32)
        old = [tensor.to(work, copy=part.kind.differentiable) for tensor in written]
        new = step(rule, torch, c, old[0], grad.to(work), *old[1:])
        for tensor, value in zip(written, new, strict=True):
            tensor.copy_(value)
        part.counts[i] += 1

    def _unscaled(self) -> bool:
        """Do what torch.amp.GradScaler asks of fused optimizers; return whether the step is to be taken."""
        found_inf, grad_scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found_inf is not None and found_inf.item():
            return False
        if grad_scale is not None:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_div_(grads, grad_scale.item())
        return True

    # --- what torch's groups mean -------------------------------------------------------------------------------------

    def _kind(self, group: Group) -> Kind:
        """Return the rule of a group, and whether its steps are differentiable."""
        if group.get("capturable"):
            raise ValueError(
                f"capturable=True is not supported by adamas.torch.{type(self).__name__}, whose step cannot be part of "
                "a CUDA graph: leave it out, or use the class of torch.optim"
            )
        rule = next(rule for rule, takes in self.rules.items() if takes(group))
        return Kind(rule, bool(group.get("differentiable")))

    def _numbers(self, index: int, t: float) -> tuple[dict[str, float], Stages]:
        """Return the coefficients of step t of a group's rule, and of the stages around it."""
        assert self._kinds is not None
        group, kind = self.param_groups[index], self._kinds[index]
        h = SimpleNamespace(weight_decay=group["weight_decay"], decoupled=group.get("decoupled_weight_decay", False))
        for name, key in self.hyperparameters.items():
            value = group[key] if isinstance(key, str) else key(group, t)
            setattr(h, name, value if kind.differentiable else float(value))
        coefficients, (scale, l2, decay) = RULES[kind.rule].numbers(h, t)
        return coefficients, (-scale if group["maximize"] else scale, l2, decay)

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
        entries = [Entry(i, p, state, None, type(p) in PLAIN) for (i, p), (state, _) in zip(params, made, strict=True)]
        if self.counted:
            for k, entry in enumerate(entries):
                if entry.state is not None:
                    entry.state["step"] = count = counts[k]
                    entries[k] = entry._replace(shown=count)
        part = Part(kind, entries, counts, None, range(len(entries)))
        if HAS_ENGINE and not differentiable:
            names = [self.names[name] for name in RULES[rule].state_names]
            part.plan = _native.engine.TensorPlan(
                rule, torch.Tensor, entries, names, counts.numpy(), self.state, MAKE_HANDLES
            )
            part.others = part.plan.others()
        return part

    def _counts(self) -> dict[torch.Tensor, float]:
        """Return how many steps the states have seen that we have stepped so far."""
        pairs = chain.from_iterable(zip(part.entries, part.counts, strict=True) for part in self._parts)
        return {entry.param: float(n) for entry, n in pairs if entry.state is self.state.get(entry.param)}

    def _state_of(self, rule: str, group: Group, p: torch.Tensor, known: float | None) -> tuple[Group | None, float]:
        """Return the state of a parameter and how many steps it has seen; make it if there is a gradient.

        The state is None as long as there is none. Where torch does not count and we do not know, having a state
        counts as one step: what matters is whether the next one is the first.
        """
        names = RULES[rule].state_names
        if not names and not self.counted:
            return {}, 0.0  # torch keeps none of this kind
        state: Group = self.state.get(p, {})
        missing = [name for name in names if state.get(self.names[name]) is None]
        count = float(state.get("step", 0.0)) if self.counted else known
        if count is None:
            count = float(len(missing) < len(names))
        if p.grad is None:
            return (None if missing else state), count
        state = self.state[p]
        with torch.no_grad():
            for name in names:
                key = self.names[name]
                if name in missing:
                    first = group[self.initial[name]] if name in self.initial else 0
                    value = complex(first, first) if p.is_complex() else first
                    state[key] = torch.full_like(p, value, dtype=_state_dtype(p), memory_format=torch.preserve_format)
                elif count == 0:  # made by torch's constructor
                    state[key] = state[key].to(_state_dtype(p))
        return state, count

    def _check(self, group: int, p: torch.Tensor, grad: torch.Tensor) -> None:
        """Raise if a gradient is not for this optimizer."""
        name = type(self).__name__
        if grad.layout != torch.strided:
            if not self.takes_sparse:
                raise RuntimeError(f"{name} does not support sparse gradients, please consider SparseAdam instead")
            if float(self.param_groups[group]["weight_decay"]):
                raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        if p.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"adamas.torch.{name}.step cannot be captured in a CUDA graph: use torch.optim.{name}")

    # --- groups and state ---------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as torch's method does."""
        if isinstance(param_group, dict):  # torch says what is wrong with anything else
            self._kind({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kinds, self._parts = None, []

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch's method does, but with copies of the tensors."""
        state_dict = super().state_dict()
        states = {
            key: _copied(state) if isinstance(state, dict) else state for key, state in state_dict["state"].items()
        }
        return {**state_dict, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load copies of a state, of torch's class or ours, as torch's method does.

        Float32 state of half-precision parameters stays float32. Raises ValueError, before anything is changed, if a
        group lacks a hyper-parameter or a state differs in shape from its parameter.
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
                    dtype = _state_dtype(p) if value.dtype == _state_dtype(p) else p.dtype
                    self.state[p][name] = value.detach().to(p.device, dtype, copy=True)

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
                if key in self.names.values() and isinstance(value, torch.Tensor) and value.shape != p.shape:
                    raise ValueError(
                        f"{key} of parameter {i} in the state dict has shape {tuple(value.shape)}, but the parameter "
                        f"has shape {tuple(p.shape)}: they must agree"
                    )


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: x.detach().clone() if isinstance(x, torch.Tensor) else x for name, x in state.items()}


def _state_dtype(p: torch.Tensor) -> torch.dtype:
    """Return the type of a parameter's state: of at least single precision."""
    return torch.promote_types(p.dtype, torch.float32)


_step_with_hooks = Optimizer.profile_hook_step(Stepper._step)
