"""The optimizers of adamas.torch take the steps of torch's: every class, option and dtype, and their checkpoints."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

import adamas.torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.complex64]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD, L2": ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "SGD, maximize": ("SGD", {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "SGD, momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "SGD, dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "SGD, nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, L2": ("RMSprop", {"weight_decay": 0.1, "maximize": True}),
    "RMSprop, momentum": ("RMSprop", {"lr": 1e-3, "momentum": 0.9}),
    "RMSprop, centered": ("RMSprop", {"centered": True, "alpha": 0.9, "eps": 1e-4}),
    "RMSprop, centered momentum": ("RMSprop", {"lr": 1e-3, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    "Adagrad": ("Adagrad", {}),
    "Adagrad, L2": ("Adagrad", {"weight_decay": 0.1, "maximize": True}),
    "Adagrad, falling": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-6}),
    "Adam": ("Adam", {}),
    "Adam, L2": ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "Adam, decoupled": ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Adam, maximize": ("Adam", {"maximize": True}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {}),
    "AdamW, maximize": ("AdamW", {"maximize": True, "lr": 0.01, "weight_decay": 0.1}),
    "AdamW, amsgrad": ("AdamW", {"amsgrad": True, "betas": (0.5, 0.5)}),
    "Adamax": ("Adamax", {}),
    "Adamax, L2": ("Adamax", {"weight_decay": 0.1, "maximize": True, "betas": (0.8, 0.9), "eps": 1e-3}),
    "NAdam": ("NAdam", {}),
    "NAdam, decoupled": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    "RAdam": ("RAdam", {"eps": 1e-3}),
    "RAdam, decoupled": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.8, 0.9)}),
}
SCALARS = ("step", "mu_product")
"""State that is one number, of no parameter's type."""
SHAPES = [(3, 5), (7,), (), (2, 0), (2, 3, 4)]


def classes(case: str) -> tuple[Any, Any, dict[str, Any]]:
    name, options = CASES[case]
    return getattr(adamas.torch, name), getattr(torch.optim, name), options


def parameters(dtype: torch.dtype, seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def in_groups(params: list[torch.nn.Parameter], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Two groups that differ in learning rate and decay."""
    return [{"params": params[:3]}, {"params": params[3:], "lr": 2 * options.get("lr", 1e-3), "weight_decay": 0.05}]


def pair(case: str, dtype: torch.dtype) -> tuple[Any, Any]:
    ours, theirs, options = classes(case)
    a, b = parameters(dtype), parameters(dtype)
    return ours(in_groups(a, options), **options), theirs(in_groups(b, options), **options)


def params_of(optimizer: Any) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def give_gradients(step: int, *optimizers: Any) -> None:
    """The same gradients, spread over some decades, to each; at times a parameter has none."""
    for i, params in enumerate(zip(*map(params_of, optimizers), strict=True)):
        generator = torch.Generator().manual_seed(100 * step + i)
        g = torch.randn(params[0].shape, generator=generator, dtype=params[0].dtype)
        g = (g * 10 ** torch.empty(g.shape).uniform_(-3, 1, generator=generator)).to(g.dtype)
        for p in params:
            p.grad = None if (step + i) % 7 == 3 else g.to(p.dtype).clone()


def real(tensor: torch.Tensor) -> np.ndarray:
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.detach().to(torch.float64).numpy()


def exchange(optimizers: tuple[Any, Any]) -> tuple[Any, Any]:
    """Each optimizer anew, with the other's checkpoint."""
    new = tuple(
        type(optimizer)([{"params": group["params"]} for group in optimizer.param_groups]) for optimizer in optimizers
    )
    for optimizer, other in zip(new, reversed(optimizers), strict=True):
        optimizer.load_state_dict(other.state_dict())
    return new


@pytest.fixture
def double():
    """What torch keeps as a scalar, such as NAdam's product, is float32 unless this is its default."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_in_float64(case, double):
    """Groups, a schedule, closures, missing gradients, and half-way each goes on from the other's checkpoint."""
    optimizers = pair(case, torch.float64)
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.8) for optimizer in optimizers]
    for step in range(50):
        give_gradients(step, *optimizers)
        losses = [opt.step((lambda step=step: step) if step % 3 == 0 else None) for opt in optimizers]
        assert losses == [step if step % 3 == 0 else None] * 2
        for scheduler in schedulers:
            scheduler.step()
        for p, q in zip(*map(params_of, optimizers), strict=True):
            difference = np.abs(real(p) - real(q))
            assert (difference <= 1e-12 * np.maximum(np.abs(real(q)), 0.01)).all(), step
        if step == 25:
            optimizers = exchange(optimizers)
            schedulers = [torch.optim.lr_scheduler.StepLR(o, 5, 0.8, last_epoch=26) for o in optimizers]
    state, their_state = (optimizer.state_dict() for optimizer in optimizers)
    assert state["param_groups"] == their_state["param_groups"]
    assert state["state"].keys() == their_state["state"].keys()
    for mine, other in zip(state["state"].values(), their_state["state"].values(), strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            np.testing.assert_allclose(real(value), real(other[key]), rtol=1e-11, atol=1e-13)


def spacing(dtype: torch.dtype, *arrays: np.ndarray) -> np.ndarray:
    """The distance between neighbouring numbers of a type at the largest magnitude."""
    kind = dtype.to_real()
    largest = np.maximum.reduce([np.abs(array) for array in arrays])
    return 2.0 ** np.floor(np.log2(np.maximum(largest, 1e-30))) * torch.finfo(kind).eps


def linear(name: str) -> bool:
    """Whether a state is a sum of gradients, whose terms may cancel, not of squares."""
    return name in ("momentum_buffer", "exp_avg", "grad_avg")


def as_bfloat16(optimizer: Any) -> None:
    """Round the parameters of a float32 optimizer, and its state but for the count, to bfloat16."""
    with torch.no_grad():
        for p in params_of(optimizer):
            for name, tensor in [("p", p), *optimizer.state.get(p, {}).items()]:
                if name not in SCALARS:
                    tensor.copy_(tensor.bfloat16())


@pytest.mark.parametrize("kind", ["float32", "complex64", "bfloat16", "bfloat16, fused"])
@pytest.mark.parametrize("case", CASES)
def test_each_of_fifty_steps_from_equal_state(case, kind):
    """Parameters and state, which is of the parameter's type here, are at most 4 spacings apart, 1 in bfloat16.

    bfloat16 is compared with torch's class in float32, rounded after each step, and with torch's fused Adam, which does
    that itself. Torch's other bfloat16 steps round after each operation, which takes them up to 2 spacings off.
    """
    dtype = getattr(torch, kind.split(",", maxsplit=1)[0])
    rounded, limit = kind == "bfloat16", 1 if dtype == torch.bfloat16 else 4
    ours, theirs = pair(case, dtype)
    if rounded:
        _, theirs = pair(case, torch.float32)
        as_bfloat16(theirs)
    if "fused" in kind:
        if case.split(",", maxsplit=1)[0] not in ("Adam", "AdamW"):
            return
        for group in theirs.param_groups:
            group["fused"] = True
    for step in range(50):
        give_gradients(step, ours, theirs)
        checkpoint = deepcopy(theirs.state_dict())  # torch's is no copy
        if step:
            for state in checkpoint["state"].values() if rounded else ():
                state.update({name: value.bfloat16() for name, value in state.items() if name not in SCALARS})
            ours.load_state_dict(checkpoint)
        before = [real(q).copy() for q in params_of(theirs)]
        with torch.no_grad():
            for p, q in zip(params_of(ours), params_of(theirs), strict=True):
                p.copy_(q)
        ours.step()
        theirs.step()
        if rounded:
            as_bfloat16(theirs)
        for i, (p, q, old) in enumerate(zip(params_of(ours), params_of(theirs), before, strict=True)):
            off = np.abs(real(p) - real(q)) / spacing(dtype, real(q), old, real(q) - old)
            assert (off <= limit).all(), (step, off.max())
            state_before = checkpoint["state"].get(i, {"step": 0})
            if p.grad is None or state_before.get("step") == 0:
                continue  # the first state of a bfloat16 parameter is float32
            for name, state in state_before.items():
                mine, other = ours.state[p][name], theirs.state[q][name]
                if name == "step":
                    assert mine == other == state + 1
                    continue
                if name == "mu_product":  # torch's is float32
                    assert float(mine) == pytest.approx(float(other), rel=1e-6)
                    continue
                assert mine.dtype == dtype
                terms = [real(state), real(other)] + [real(p.grad), old] * linear(name)
                off = np.abs(real(mine) - real(other)) / spacing(dtype, *terms)
                assert (off <= limit).all(), (step, name, off.max())
