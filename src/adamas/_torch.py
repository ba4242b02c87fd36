"""The step of the classes of `adamas.torch`, which is the table of them."""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch.optim import optimizer as base
from torch.optim.optimizer import Optimizer

from adamas._history import History
from adamas._tensors import Place, coded, norm_of, numbers_of, step_tensor
from adamas._torch_parts import PLAIN, Learner, Part
from adamas._watch import Stepped, Watch
from adamas.rules import RULES, Stages, named

NOTHING: list[tuple[int, torch.Tensor]] = []

NOT_TRACED = "the step runs in a compiled engine of its own: compile without fullgraph=True"


class Stepper(Learner):
    """A class of torch.optim whose step is one of ours."""

    _needs_norm = False  # options.needs_norm, which takes longer to ask

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
            rule = RULES[part.kind.rule]
            for k, entry in enumerate(part.entries):
                if entry.place in places:
                    t, known = float(part.counts[k]), entry.state or {}
                    state = [
                        coded(known[self.names[name]], entry.param, name in rule.nonnegative)
                        for name in rule.state_names
                        if t
                    ]
                    c = named(*self._numbers(entry.group, max(t, 1.0), tuple(part.carries[k].tolist())))
                    found[entry.place] = Stepped(numbers_of(entry.param), rule, state, c)
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


_step_with_hooks = Optimizer.profile_hook_step(Stepper._step)
