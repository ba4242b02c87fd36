"""What makes a class of torch.optim step by our rules; `adamas.torch` is the table of those classes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch.optim import optimizer as base
from torch.optim.optimizer import Optimizer

from adamas import _backend, _native
from adamas._formats import random_blocks
from adamas._history import History
from adamas._q8 import check_rule
from adamas._tensors import Place, coded, encoded, norm_of, numbers_of, state_dtype, step_tensor
from adamas._torch_state import WHOLE, Group, Keeper
from adamas._watch import Stepped, Watch
from adamas.rules import RULES, Rule, Stages, named

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""The types of tensors whose memory is what it seems: a subclass may keep its values elsewhere."""

HAS_ENGINE = _backend.engine != "specification" and hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
"""Whether there is an engine, and a torch, 2.10 or newer, that lets it read tensors."""


MAKE_HANDLES = getattr(getattr(torch._C, "_aoti", None), "unsafe_alloc_void_ptrs_from_tensors", None)
"""What lets the engine look at state through torch's C interface, in a third of the time of DLPack."""


NOTHING: list[tuple[int, torch.Tensor]] = []

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


class Stepper(Keeper):
    """A class of torch.optim whose step is one of ours: what a subclass says is how torch's dialect differs.

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
    _needs_norm = False  # options.needs_norm, which takes longer to ask

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for group in self.param_groups:  # now with what torch's classes do not know
            self._kind(group)

    # --- the step -----------------------------------------------------------------------------------------------------

    @torch.compiler.disable(reason=NOT_TRACED)  # type: ignore[untyped-decorator, no-untyped-call]
    def step(
        self, closure: Callable[[], Any] | None = None, *, history: History | None = None, loss: Any = None
    ) -> Any:
        """Take a step of every parameter that has a gradient; return what closure, called first, returns.

        history: a recorder that gets this step if its turn has come, with the loss, if it is given or closure returns
        it. Paths are the names of named parameters, else their places, from "0".

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
            return _step_with_hooks(self, closure, history, loss)
        return self._step(closure, history, loss)

    step.hooked = True  # torch wraps the step of other optimizers, which takes longer than a step of small parameters

    def _step(self, closure: Callable[[], Any] | None = None, history: History | None = None, loss: Any = None) -> Any:
        returned = None
        if closure is not None:
            with torch.enable_grad():
                returned = closure()
        if self._unscaled():
            kinds = [self._kind(group) for group in self.param_groups]
            if kinds != self._kinds or self.options.changed:
                self._parts, self._kinds = [self._learned(kind, kinds) for kind in dict.fromkeys(kinds)], kinds
                self._staged = self.options.with_options(Stages(), 1) != Stages() or self.options.scheduled
                self._needs_norm = self.options.needs_norm
                self.options.changed = False
            others: list[list[tuple[int, torch.Tensor]]] = []
            try:
                for i in range(len(self._parts)):
                    others.append(self._read(i))
                factor = self._factor(others) if self._needs_norm else 1.0
                if factor is not None:
                    watch = None if history is None else self._watch(history)
                    for part, grads in zip(self._parts, others, strict=True):
                        self._run(part, grads, factor, None if watch is None else watch.seen)
                    if watch is not None:
                        self._record(watch, returned if loss is None else loss, factor)
            except BaseException:
                self._drop(len(others))  # not what another thread may have read
                raise
        return returned

    def _read(self, i: int) -> list[tuple[int, torch.Tensor]]:
        """Check all parameters of a part, and learn them anew if something about them is new.

        Returns those that the engine does not step: place among the entries, gradient.
        """
        part = self._parts[i]
        if part.plan is not None and not part.others and part.plan.read(self.param_groups, self.state, self._numbers):
            return NOTHING
        assert self._kinds is not None
        if part.plan is None:  # nothing else would find what is new
            self._parts[i] = self._learned(self._parts[i].kind, self._kinds)
        for _ in range(2):
            part = self._parts[i]
            others = [(k, grad) for k in part.others if (grad := part.entries[k].param.grad) is not None]
            for k, grad in others:
                self._check(part.entries[k].group, part.entries[k].param, grad)
            if part.plan is None or part.plan.read(self.param_groups, self.state, self._numbers):
                return others
            self._parts[i] = self._learned(part.kind, self._kinds)
        raise RuntimeError("the optimizer's parameters were changed by another thread during the step")

    def _factor(self, others: list[list[tuple[int, torch.Tensor]]]) -> float | None:
        """Return what the gradients that were read are to be multiplied by, None if the step is not to be taken."""
        norms = [part.plan.norm() for part in self._parts if part.plan is not None]
        norms.append(norm_of([grad for grads in others for _, grad in grads]))
        norm, finite = math.hypot(*(length for length, _ in norms)), all(ok for _, ok in norms)
        t = self._taken() + 1
        self.grad_norm = norm / self.options.number("grad_scale", t)
        self.nonfinite_steps += not finite
        factor = self.options.factor(norm, finite, t)
        if factor is None:
            self._drop(len(others))
            self._skipped()
        return factor

    def _taken(self) -> int:
        """Return how many steps the parameters that were stepped most often have seen."""
        return max((int(part.counts.max()) for part in self._parts if len(part.counts)), default=0)

    def _watch(self, history: History) -> Watch | None:
        """Return what watches the step that is about to be taken, None if it is not to be recorded."""
        params = list(self._params())
        if elsewhere := [i for i, p in enumerate(params) if type(p) not in PLAIN]:
            kind = type(params[elsewhere[0]]).__name__
            raise TypeError(f"history records plain tensors, but parameter {elsewhere[0]} is a {kind}: leave it out")
        grads = (None if p.grad is None else numbers_of(p.grad) for p in params)
        watch = history.watch(self._taken() + 1, map(numbers_of, params), grads)
        if watch is not None:
            watch.begin()
        return watch

    def _record(self, watch: Watch, loss: Any, factor: float) -> None:
        """Finish the record of the step that was just taken."""
        named_params = chain.from_iterable(group.get("param_names", ()) for group in self.param_groups)
        paths = list(named_params) or [str(place) for place, _ in enumerate(self._params())]
        numbers = {
            "learning_rate": float(self.param_groups[0]["lr"]),
            "clip_factor": factor,
            "skips": self.nonfinite_steps if self.options.nonfinite != "propagate" else 0,
        }
        scale = self.options.number("grad_scale", self._taken())
        watch.finish(loss, self._stepped(watch.owners), numbers, paths, scale)

    def _stepped(self, places: Sequence[int]) -> list[Stepped]:
        """Return some of the parameters as they are after the last step."""
        found = {}
        for part in self._parts:
            rule, names = (
                RULES[part.kind.rule],
                [(self.names[name], name) for name in RULES[part.kind.rule].state_names],
            )
            for k, entry in enumerate(part.entries):
                if entry.place in places:
                    t, p, known = float(part.counts[k]), entry.param, entry.state or {}
                    c = named(
                        *self._numbers(entry.group, max(t, 1.0), tuple(part.carries[k].tolist()))
                    )  # a rate needs no carry
                    state = [coded(known[key], p, name in rule.nonnegative) for key, name in names if t]
                    found[entry.place] = Stepped(numbers_of(p), rule, state, c)
        return [found[place] for place in places]

    def _run(self, part: Part, others: list[tuple[int, torch.Tensor]], factor: float, seen: list[Any] | None) -> None:
        """Take the step of a part that was read."""
        if part.plan is not None:
            stepped = part.plan.run(factor, seen)
            torch.autograd.graph.increment_version(stepped)  # a backward pass that needs the old values must fail
            if self.options.zero_grads:
                torch.autograd.graph.increment_version([p.grad for p in stepped])
        if others:
            with torch.set_grad_enabled(part.kind.differentiable):
                for i, grad in others:
                    self._step_tensor(part, i, grad, factor, seen)

    def _drop(self, count: int) -> None:
        """Forget what was read of the first parts."""
        for part in self._parts[:count]:
            if part.plan is not None:
                part.plan.drop()

    def _skipped(self) -> None:
        """Do what a step does whose gradients are not finite, and which is not taken."""
        grads = {f"parameter {i}": p.grad for i, p in enumerate(self._params()) if p.grad is not None}
        if self.options.nonfinite == "raise":
            bad = [name for name, grad in grads.items() if not bool(grad.isfinite().all())]
            more = f" (and of {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise FloatingPointError(
                f"the gradient of {bad[0]}{more} has numbers that are not finite: nothing was changed. Lower the "
                "learning rate, clip, or pass nonfinite='skip' to go on without such steps"
            )
        if self.options.zero_grads:
            torch._foreach_zero_(list(grads.values()))

    def _step_tensor(self, part: Part, i: int, grad: torch.Tensor, factor: float, seen: list[Any] | None) -> None:
        """Step one parameter by the specification on torch tensors."""
        entry, options = part.entries[i], self.options
        assert entry.state is not None, "made when the gradient was first seen"
        rule, t = RULES[part.kind.rule], int(part.counts[i]) + 1
        coefficients, stages = self._numbers(entry.group, float(t), tuple(part.carries[i].tolist()))
        c = named(coefficients, stages._replace(scale=stages.scale * factor))
        keys = [self.names[name] for name in rule.state_names]
        if part.kind.differentiable:  # the graph needs the old values
            entry.state.update({key: entry.state[key].clone() for key in keys})
        grad = grad if grad.layout == torch.strided else grad.to_dense()
        tensors = [grad, entry.param, *(entry.state[key] for key in keys)]
        extras = {name: entry.state[name] for name in options.extra_names}
        place = Place(options.seed, t, entry.first, entry.place)
        step_tensor(rule, c, tensors, extras, options, place, part.kind.differentiable, seen)
        part.counts[i] += 1
        for k, name in enumerate(rule.first_carry):
            part.carries[i, k] = coefficients[name]

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


_step_with_hooks = Optimizer.profile_hook_step(Stepper._step)
