"""The younger rules take the steps of their papers, and of whoever has them in the same form, in float64 to 1e-12."""

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from harness import make
from numpy.testing import assert_allclose

STEPS = 200

# --- the papers' algorithms, written out anew -------------------------------------------------------------------------
# Each takes steps of p, in the usual arithmetic and with its paper's symbols, one for each gradient that it is sent.

Steps = Iterator[Any]


def adamax(p: Any, lr: float = 2e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Steps:
    m, u, t = 0 * p, 0 * p, 0
    while True:
        g, t = (yield p), t + 1
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        p = p - lr / (1 - b1**t) * m / u


def radam(p: Any, lr: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Steps:
    m, v, t, rho_inf = 0 * p, 0 * p, 0, 2 / (1 - b2) - 1
    while True:
        g, t = (yield p), t + 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, rho = m / (1 - b1**t), rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            p = p - lr * r * m_hat / (np.sqrt(v / (1 - b2**t)) + eps)
        else:
            p = p - lr * m_hat


def adabelief(p: Any, lr: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16) -> Steps:
    m, s, t = 0 * p, 0 * p, 0
    while True:
        g, t = (yield p), t + 1
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        p = p - lr * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps)


def yogi(p: Any, lr: float = 1e-2, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3) -> Steps:
    m, v, t = 0 * p, 0 * p, 0
    while True:
        g, t = (yield p), t + 1
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        p = p - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


def adopt(p: Any, lr: float = 1e-3, b1: float = 0.9, b2: float = 0.9999, eps: float = 1e-6) -> Steps:
    m, v, t = 0 * p, (yield p) ** 2, 0
    while True:
        g, t = (yield p), t + 1
        m = b1 * m + (1 - b1) * np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        p = p - lr * m
        v = b2 * v + (1 - b2) * g**2


def ademamix(
    p: Any,
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 5.0,
    eps: float = 1e-8,
) -> Steps:
    m1, m2, nu, t = 0 * p, 0 * p, 0 * p, 0
    while True:
        g, t = (yield p), t + 1
        m1, m2 = b1 * m1 + (1 - b1) * g, b3 * m2 + (1 - b3) * g
        nu = b2 * nu + (1 - b2) * g**2
        p = p - lr * (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(nu / (1 - b2**t)) + eps)


def adan(p: Any, lr: float = 1e-3, b1: float = 0.02, b2: float = 0.08, b3: float = 0.01, eps: float = 1e-8) -> Steps:
    """With the paper's betas, which are 1 minus ours."""
    m, v, n, last, t = 0 * p, 0 * p, 0 * p, None, 0
    while True:
        g, t = (yield p), t + 1
        d = 0 * g if last is None else g - last
        m, v = (1 - b1) * m + b1 * g, (1 - b2) * v + b2 * d
        n = (1 - b3) * n + b3 * (g + (1 - b2) * d) ** 2
        m_hat, v_hat, n_hat = (x / (1 - (1 - b) ** t) for x, b in ((m, b1), (v, b2), (n, b3)))
        p, last = p - lr * (m_hat + (1 - b2) * v_hat) / (np.sqrt(n_hat) + eps), g


PAPERS: dict[str, Callable[..., Steps]] = {
    "Adamax": adamax,
    "RAdam": radam,
    "AdaBelief": adabelief,
    "Yogi": yogi,
    "ADOPT": adopt,
    "AdEMAMix": ademamix,
    "Adan": adan,
}


def trajectories(case: str, gradient: Callable[[Any, int], Any], start: Any, **hyperparameters: Any) -> Iterator[Any]:
    """Yield our parameters after each of some steps, and the gradient of that step."""
    p, opt = start.copy(), make(case, **hyperparameters)
    for t in range(1, STEPS + 1):
        g = gradient(p, t)
        opt.update(p, g)
        yield p, g


def noisy(p: Any, t: int) -> Any:
    """The gradient of a bowl, with noise."""
    return p + np.random.default_rng(t).standard_normal(p.shape)


START = np.random.default_rng(3).standard_normal(300)


@pytest.mark.parametrize("name", PAPERS)
def test_the_steps_are_the_papers(name):
    steps = PAPERS[name](START)
    next(steps)
    for p, g in trajectories(name, noisy, START):
        expected = steps.send(g)
        assert_allclose(p, expected, rtol=1e-12, atol=1e-13)


# --- other libraries --------------------------------------------------------------------------------------------------

IN_TORCH: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Adamax": ("Adamax", {}, {}),
    "Adamax, L2": ("Adamax", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "RAdam": ("RAdam", {"eps": 0.0}, {"epsilon": 0.0}),  # where epsilon is before or after the correction
    "RAdam, decoupled": (
        "RAdam",
        {"eps": 0.0, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"epsilon": 0.0, "weight_decay": 0.1, "decoupled": True},
    ),
}


@pytest.mark.parametrize("case", IN_TORCH)
def test_the_steps_are_torchs(case):
    theirs, options, hyperparameters = IN_TORCH[case]
    q = torch.tensor(START, requires_grad=True)
    optimizer = getattr(torch.optim, theirs)([q], **options)
    for p, g in trajectories(case.split(",")[0], noisy, START, **hyperparameters):
        q.grad = torch.tensor(g)
        optimizer.step()
        assert_allclose(p, q.detach().numpy(), rtol=1e-12, atol=1e-13)


IN_OPTAX: dict[str, Callable[[Any], Any]] = {
    "Adamax": lambda optax: optax.adamax(2e-3),
    "RAdam": lambda optax: optax.radam(1e-3),
    "AdaBelief": lambda optax: optax.adabelief(1e-3),
    "Yogi": lambda optax: optax.chain(optax.scale_by_yogi(initial_accumulator_value=0.0), optax.scale(-1e-2)),
    "ADOPT": lambda optax: optax.contrib.adopt(1e-3),
    "AdEMAMix": lambda optax: optax.contrib.ademamix(1e-3),
}


@pytest.mark.parametrize("name", IN_OPTAX)
def test_the_steps_are_optaxs(name):
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    importlib.import_module("optax.contrib")
    with jax.enable_x64(True):
        optimizer, q = IN_OPTAX[name](optax), jax.numpy.array(START)
        state, update = optimizer.init(q), jax.jit(optimizer.update)
        for p, g in trajectories(name, noisy, START):
            change, state = update(jax.numpy.array(g), state, q)
            q = optax.apply_updates(q, change)
            assert_allclose(p, np.asarray(q), rtol=1e-12, atol=1e-13)


IN_PYTORCH_OPTIMIZER: dict[str, tuple[str, dict[str, Any]]] = {
    "AdaBelief": ("AdaBelief", {"rectify": False}),
    "AdEMAMix": ("AdEMAMix", {}),
    "Adan": ("Adan", {}),
}


@pytest.mark.parametrize("name", IN_PYTORCH_OPTIMIZER)
def test_the_steps_are_those_of_pytorch_optimizer(name):
    library: Any = pytest.importorskip("pytorch_optimizer")
    theirs, options = IN_PYTORCH_OPTIMIZER[name]
    q = torch.tensor(START, requires_grad=True)
    optimizer = getattr(library, theirs)([q], **options)
    for p, g in trajectories(name, noisy, START):
        q.grad = torch.tensor(g)
        optimizer.step()
        assert_allclose(p, q.detach().numpy(), rtol=1e-12, atol=1e-13)
