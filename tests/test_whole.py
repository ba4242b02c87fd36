"""The stages that look at whole arrays: what they do, by independent formulas, and that threads change no bit."""

import itertools
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from harness import DTYPES, ISA_LEVELS, make, wild_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import rules
from adamas._native import engine

STEPS = 100
START = np.random.default_rng(3).standard_normal(300)


def gradient(p: Any, t: int) -> Any:
    return p + 3 * np.random.default_rng(t).standard_normal(p.shape)


def adam(lr: float, b1: float, b2: float, eps: float) -> Any:
    """Adam's change, g -> (change, g / (sqrt(v_hat) + eps)), in the usual arithmetic."""
    m = v = 0.0
    t = 0

    def change(g: Any) -> tuple[Any, Any]:
        nonlocal m, v, t
        t += 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        denominator = np.sqrt(v / (1 - b2**t)) + eps
        return lr * m / (1 - b1**t) / denominator, g / denominator

    return change


# --- what they do -----------------------------------------------------------------------------------------------------


def test_lamb_is_the_papers():
    change_of, q = adam(1e-2, 0.9, 0.999, 1e-6), START.copy()
    p, opt = START.copy(), adamas.LAMB(1e-2)
    for t in range(1, STEPS + 1):
        g = gradient(p, t)
        opt.update(p, g)
        u = change_of(g)[0] / 1e-2 + 0.01 * q
        q = q - 1e-2 * np.linalg.norm(q) / np.linalg.norm(u) * u
        assert_allclose(p, q, rtol=1e-12, atol=1e-13)


def test_lamb_is_optaxs():
    params = {"w": START[:200].copy(), "b": START[200:].copy()}
    opt = adamas.LAMB(1e-2)
    with jax.enable_x64(True):
        q = {name: jax.numpy.array(x) for name, x in params.items()}
        theirs = optax.lamb(1e-2, weight_decay=0.01)
        state, update = theirs.init(q), jax.jit(theirs.update)
        for t in range(1, STEPS + 1):
            g = {name: gradient(x, t) for name, x in params.items()}
            opt.update(params, g)
            change, state = update({name: jax.numpy.array(x) for name, x in g.items()}, state, q)
            q = optax.apply_updates(q, change)
            for name, x in params.items():
                assert_allclose(x, np.asarray(q[name]), rtol=1e-12, atol=1e-13)


def test_update_clipping_is_stable_adamws():
    change_of, q = adam(1e-2, 0.9, 0.99, 1e-8), START.copy()
    p, opt, clipped = START.copy(), adamas.AdamW(1e-2, beta2=0.99, update_clip=1.0, weight_decay=0.1), 0
    for t in range(1, STEPS + 1):
        g = gradient(p, t) * (10 if t % 10 == 0 else 1)
        opt.update(p, g)
        change, unit = change_of(g)
        rms = np.sqrt(np.mean(unit**2))
        clipped += rms > 1
        q = q - (change + 1e-2 * 0.1 * q) / max(1, rms)
        assert_allclose(p, q, rtol=1e-12, atol=1e-13)
    assert 10 < clipped < STEPS


def test_update_clipping_is_that_of_optimi():
    """Its denominator is the larger of root and epsilon, so epsilon must not matter."""
    optimi: Any = pytest.importorskip("optimi")
    q = torch.tensor(START, requires_grad=True)
    theirs = optimi.StableAdamW([q], lr=1e-2, betas=(0.9, 0.99), eps=1e-30, weight_decay=0.0, foreach=False)
    p, opt = START.copy(), adamas.AdamW(1e-2, beta2=0.99, epsilon=1e-30, update_clip=1.0, weight_decay=0.0)
    for t in range(1, STEPS + 1):
        g = gradient(p, t) * (10 if t % 10 == 0 else 1)
        opt.update(p, g)
        q.grad = torch.tensor(g)
        theirs.step()
        assert_allclose(p, q.detach().numpy(), rtol=1e-11, atol=1e-13)


def test_update_clipping_of_a_rule_without_rates_is_of_its_change():
    p = adamas.SGD(0.5, update_clip=1.0).update(np.zeros(2), np.array([3.0, 4.0]))
    assert_allclose(p, -0.5 * np.array([3.0, 4.0]) / np.sqrt(12.5), rtol=1e-15)


def test_a_cautious_change_is_the_papers_one_line():
    change_of, q = adam(1e-2, 0.9, 0.999, 1e-8), START.copy()
    p, opt = START.copy(), adamas.AdamW(1e-2, cautious=True, weight_decay=0.1)
    for t in range(1, STEPS + 1):
        g = gradient(p, t)
        opt.update(p, g)
        change, _ = change_of(g)
        mask = (change * g > 0).astype(float)
        mask /= max(mask.mean(), 1e-3)
        q = q - (change * mask + 1e-2 * 0.1 * q)
        assert_allclose(p, q, rtol=1e-12, atol=1e-13)


def test_nothing_that_agrees_changes_nothing():
    p, opt = np.ones(3), adamas.Momentum(0.1, cautious=True)
    opt.update(p, np.array([1.0, 1.0, 0.0]))
    before = p.copy()
    opt.update(p, np.array([-0.5, -0.5, 0.0]))  # the ball still rolls the other way
    assert_array_equal(p, before)


def test_the_ratio_is_1_where_a_norm_is_0():
    opt = adamas.LAMB(0.1, weight_decay=0.0)
    assert_allclose(opt.update(np.zeros(3), np.ones(3)), -0.1 * np.ones(3), rtol=1e-5)
    assert_array_equal(adamas.LAMB(0.1, weight_decay=0.0).update(np.ones(3), np.zeros(3)), np.ones(3))


# --- what counts as an array ------------------------------------------------------------------------------------------

WHOLE: list[dict[str, Any]] = [{"cautious": True}, {"update_clip": 0.1}, {"trust_ratio": True}]
WHOLE.append({name: value for each in WHOLE for name, value in each.items()})


@pytest.mark.parametrize("stages", WHOLE, ids=str)
def test_each_float_is_an_array_of_its_own(stages):
    """As in the specification alone, and as arrays of one element."""
    rng = np.random.default_rng(0)
    floats, arrays = make("Adam", 0.1, **stages), make("Adam", 0.1, **stages)
    scratch = rules.RULES["Adam"](0.1, **stages)
    x = rng.standard_normal(4).tolist()
    y, z = [np.array([v]) for v in x], list(x)
    for _ in range(10):
        g = rng.standard_normal(4).tolist()
        x = floats.update(x, g)
        y = arrays.update(y, [np.array([v]) for v in g])
        z = scratch.update(z, g)
    assert x == [float(v[0]) for v in y] == z


def test_stages_may_be_assigned_between_steps():
    opt, x = adamas.Adam(0.1), [1.0, -1.0, np.ones(2)]
    g = [1.0, 1.0, np.ones(2)]
    opt.update(x, g)
    m = opt.state["0"]["m"]
    opt.trust_ratio = True
    opt.update(x, g)
    opt.trust_ratio = False
    opt.update(x, g)
    assert opt.state["0"]["m"] == pytest.approx(0.271)
    assert m == pytest.approx(0.1)
    assert opt.t == 3


def test_groups_choose_the_stages():
    params = {"w": np.full(4, 2.0), "bias": np.full(4, 2.0)}
    grads = {"w": np.ones(4), "bias": np.ones(4)}
    opt = adamas.LAMB(0.1, weight_decay=0.0, groups=[("bias", {"trust_ratio": False})])
    opt.update(params, grads)
    assert_allclose(params["w"], 2 - 0.2, rtol=1e-6)
    assert_allclose(params["bias"], 2 - 0.1, rtol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("update_clip", -1.0), ("cautious", 1.0), ("trust_ratio", "yes")])
def test_wrong_stages_are_refused(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        adamas.Adam(**{name: value})


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(engine is None, reason="adamas was installed without its engine")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stages", WHOLE, ids=str)
@pytest.mark.parametrize("case", ["SGD", "Adam", "Lion", "AdEMAMix"])
def test_bits_of_sums_over_many_blocks_and_threads(case, stages, dtype):
    """Three arrays, cut inside and between by the threads, against the specification one array at a time."""
    rng = np.random.default_rng(2)
    ends = [3, 50_004, 58_196]
    start = np.split(rng.standard_normal(ends[-1] + 40_000).astype(dtype), ends)
    steps = [np.split(g, ends) for g in wild_gradients(rng, 3, ends[-1] + 40_000, dtype)]
    expected = []
    optimizer = make(case, weight_decay=0.01, decoupled=True, **stages)
    for i, p in enumerate(start):
        state = [np.zeros_like(p) for _ in optimizer.rule.state_names]
        with adamas.flush_denormals(), np.errstate(all="ignore"):
            for t, grads in enumerate(steps, start=1):
                p, *state = rules.step(optimizer.rule, np, optimizer.at(t), p, grads[i], *state)  # noqa: PLW2901
        expected.append([p, *state])
    before = engine.isa()
    try:
        for level, threads in itertools.product(ISA_LEVELS, (1, 2, 8)):
            engine.use_isa(level)
            adamas.set_num_threads(threads)
            opt, params = make(case, weight_decay=0.01, decoupled=True, **stages), [p.copy() for p in start]
            for grads in steps:
                opt.update(params, grads)
            for i, p in enumerate(params):
                for actual, wanted in zip((p, *opt.state[str(i)].values()), expected[i], strict=True):
                    assert_array_equal(actual, wanted, err_msg=f"{level}, {threads} threads")
    finally:
        engine.use_isa(before)
        adamas.set_num_threads(None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 100))
def test_a_total_is_the_sum(n, seed):
    x = np.random.default_rng(seed).standard_normal(n)
    assert rules.total(np, x) == pytest.approx(x.sum(), abs=1e-9)
    assert rules.total(torch, torch.tensor(x)) == rules.total(np, x)
