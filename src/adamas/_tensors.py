"""The specification on tensors of PyTorch, for what the engine does not step: devices, subclasses, sparse gradients."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from adamas import _q8
from adamas._formats import random_numbers
from adamas._norm import norm
from adamas._options import Options
from adamas._statistics import observe
from adamas.rules import Rule, average, step

LARGEST_BFLOAT16 = torch.finfo(torch.bfloat16).max


class Place(NamedTuple):
    """What the random numbers of a parameter depend on: the seed, the step and the number of its first block.

    array: its place among all parameters.
    """

    seed: int
    t: int
    first: int
    array: int


def real(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, if complex as pairs of real numbers: a view, or a copy of a lazy conjugate."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def write(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Write real numbers, or pairs if it is complex, to a tensor."""
    tensor.copy_(torch.view_as_complex(values.contiguous()) if tensor.is_complex() else values)


def state_dtype(dtype: torch.dtype, state_format: str) -> torch.dtype:
    """Return the dtype of the state of a parameter: of at least single precision, or bfloat16."""
    exact = torch.promote_types(dtype, torch.float32)
    return torch.bfloat16 if state_format == "bfloat16" and exact == torch.float32 else exact


def step_tensor(
    rule: type[Rule],
    c: SimpleNamespace,
    tensors: Sequence[torch.Tensor],
    extras: dict[str, torch.Tensor],
    options: Options,
    place: Place,
    differentiable: bool,
    seen: list[Any] | None = None,
) -> None:
    """Step one parameter and what is remembered of it.

    tensors: the gradient, the parameter and the rule's state. extras: its average and its copy, by the options' names.
    seen: None, or a list that gets its `Statistics` if it is not empty.
    """
    grad, *written = tensors
    work = torch.promote_types(real(written[0]).dtype, torch.float32)
    signs = [False, *(name in rule.nonnegative for name in rule.state_names)]
    numbers = [real(decoded(x, written[0], sign)) for x, sign in zip(written, signs, strict=True)]
    old = [x.to(work, copy=True) if differentiable else x.detach().to(work) for x in numbers]
    watched = seen if grad.numel() else None
    given = real(grad).to(work, copy=watched is not None)
    before = old[0] if watched is None else old[0].clone()
    new = step(rule, torch, c, old[0], given, *old[1:])
    for role, (tensor, value, sign) in enumerate(zip(written, new, signs, strict=True)):
        if tensor.dtype == torch.uint8:
            tensor.copy_(encoded(value, sign, _q8.randoms(*place[:3], role, value.numel())))
        else:
            write(tensor, _stored(value, tensor.dtype, role, place, options))
    if "ema" in extras:
        write(extras["ema"], average(c, real(extras["ema"]), real(written[0]).to(work)))
    if "weight_copy" in extras:
        extras["weight_copy"].copy_(written[0])
    if options.zero_grads:
        grad.zero_()
    if watched is not None:
        with torch.no_grad():
            after = real(written[0]).to(work)
            after, g, before, *state = (x.detach().reshape(-1) for x in (after, given, before, *new[1:]))
            watched.append(observe(rule, torch, c, place.array, (before, after), g, state))


def decoded(state: torch.Tensor, p: torch.Tensor, nonnegative: bool) -> torch.Tensor:
    """Return the state of a parameter as it is, but if it is in q8 as float32 numbers."""
    if state.dtype != torch.uint8:
        return state
    return torch.from_numpy(_q8.decode(state.numpy(), p.numel(), nonnegative)).reshape(p.shape)


def coded(state: torch.Tensor, p: torch.Tensor, nonnegative: bool) -> torch.Tensor | _q8.Coded:
    """Return the real numbers of the state of a parameter, but what is in q8 as it is."""
    return _q8.Coded(state.numpy(), p.numel(), nonnegative) if state.dtype == torch.uint8 else numbers_of(state)


def encoded(x: torch.Tensor, nonnegative: bool, random: Any = None) -> torch.Tensor:
    """Return numbers in q8; rounded at random, given numbers below 2**20, else to the nearest."""
    numbers = x.detach().to("cpu", torch.float32).reshape(-1).numpy()
    return torch.from_numpy(_q8.encode(numbers, nonnegative, random))


def _stored(x: torch.Tensor, dtype: torch.dtype, role: int, place: Place, options: Options) -> torch.Tensor:
    """Return numbers as they are stored; see `adamas._formats`, whose twin this is."""
    if dtype != torch.bfloat16:
        return x
    if role > 0:
        x = torch.where(x.isfinite(), x.clamp(-LARGEST_BFLOAT16, LARGEST_BFLOAT16), x)
    if not options.stochastic_rounding:
        return x
    random = torch.from_numpy(random_numbers(*place[:3], role, x.numel()).astype("int32")).to(x.device).reshape(x.shape)
    bits = x.contiguous().view(torch.int32)
    return torch.where(x.isfinite(), ((bits + random) & ~0xFFFF).view(torch.float32), x)


def norm_of(gradients: Sequence[torch.Tensor]) -> tuple[float, bool]:
    """Return the norm of gradients together, and whether all their numbers are finite."""
    plain = [g for g in gradients if type(g) is torch.Tensor]
    parts = [norm(torch, [_values(g) for g in plain])]
    for g in gradients:
        if type(g) is not torch.Tensor:  # sharded, perhaps: torch knows how to add what lies elsewhere
            length = torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float64))
            value = float(length.full_tensor() if hasattr(length, "full_tensor") else length)
            parts.append((value, math.isfinite(value)))
    return math.hypot(*(length for length, _ in parts)), all(finite for _, finite in parts)


def numbers_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the real numbers of a tensor, detached and dense."""
    return real(tensor if tensor.layout == torch.strided else tensor.to_dense()).detach()


def _values(g: torch.Tensor) -> torch.Tensor:
    dense = g if g.layout == torch.strided else g.coalesce().values()
    return real(dense).detach().reshape(-1).to("cpu", torch.float64)
