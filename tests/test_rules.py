"""The specification is right: against exact arithmetic, float64 and torch, on every kind of value, and alone."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from harness import DECAYS, ELEMENTWISE, RULES, make, reference
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import rules

# --- one step against 100 digits --------------------------------------------------------------------------------------


def exact_step(optimizer, t, p, g, m, v, v_max):
    """Return p after a step of the Adam family, and the scale of its rounding errors, in mpmath."""
    mpf = mpmath.mpf
    lr, beta1, beta2 = mpf(optimizer.learning_rate), mpf(optimizer.beta1), mpf(optimizer.beta2)
    p, g, m, v = mpf(p), mpf(g), mpf(m), mpf(v)
    decay = mpf(optimizer.weight_decay) if optimizer.decoupled else 0
    size = beta1 * abs(m) + (1 - beta1) * abs(g)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v = max(v, mpf(v_max))
    denominator = mpmath.sqrt(v / (1 - beta2**t)) + mpf(optimizer.epsilon)
    step = lr / (1 - beta1**t)
    change = step * m / denominator if denominator else mpf(0)
    return p - change - lr * decay * p, max(abs(p), step * size / denominator if denominator else 0)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-8, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("t", [1, 2, 10, 10**6])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "AMSGrad"])
def test_one_float32_step_is_within_4_spacings_of_exact(name, t, epsilon):
    """Random states of magnitudes 1e-15 to 1e15 (v: their squares), some of them zero."""
    rng = np.random.default_rng(t)
    n = 500
    optimizer = getattr(adamas, name)(epsilon=epsilon)
    p, g, m, root, root_max = (10.0 ** rng.uniform(-15, 15, (5, n)) * rng.choice([-1, 1], (5, n))).astype(np.float32)
    v, v_max = root * root, root_max * root_max
    if t == 1:
        m, v, v_max = np.zeros_like(m), np.zeros_like(v), np.zeros_like(v)
    g[:5], m[:3], v[:3], v_max[:3] = 0, 0, 0, 0
    state = (m, v, v_max)[: len(optimizer.rule.state_names)]
    with adamas.flush_denormals(), np.errstate(all="ignore"):
        new, *_ = rules.step(optimizer.rule, np, optimizer.at(t), p, g, *state)
    assert np.isfinite(new).all()
    worst = 0.0
    with mpmath.workdps(100):
        for k in range(n):
            maximum = v_max[k] if len(state) == 3 else 0
            exact, scale = exact_step(optimizer, t, *(float(x[k]) for x in (p, g, m, v)), float(maximum))
            spacing = np.spacing(np.float32(scale))
            worst = max(worst, float(abs(mpmath.mpf(float(new[k])) - exact) / mpmath.mpf(float(spacing))))
    assert worst <= 4


def test_special_cases_at_epsilon_0():
    """A parameter without any gradient stays; infinity and NaN in one element touch no other."""
    for case in ELEMENTWISE:
        if "epsilon" not in make(case).ranges:
            continue
        p = np.array([1.5, 1.5, 1.5], np.float32)
        new = reference(make(case, epsilon=0.0, weight_decay=0.0), p, [np.array([0, np.nan, 1], np.float32)] * 3)[0]
        assert new[0] == 1.5, case
        assert np.isnan(new[1]), case
        assert np.isfinite(new[2]), case
        assert new[2] < 1.5, case


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_finite_gradient_leaves_a_finite_state(dtype):
    largest = np.finfo(dtype).max
    gradients = [
        np.array([largest, -largest, largest, 0], dtype),
        np.array([-largest, -largest, 0, largest], dtype),
    ] * 3
    for case in RULES:
        if case.startswith("Momentum"):
            continue  # its sum is of the gradients themselves
        p, *state = reference(make(case), np.ones(4, dtype), gradients)
        if case.startswith("Centered"):  # where v saturates no variance is left: the change is infinite
            assert np.isfinite(state[:2]).all(), case
            continue
        assert np.isfinite(state).all(), case
        assert not np.isnan(p).any(), case


# --- many steps -------------------------------------------------------------------------------------------------------


def test_the_second_moment_keeps_its_accuracy_over_6000_steps(capsys):
    rng = np.random.default_rng(0)
    opt, p = adamas.Adam(), np.zeros(2000, np.float32)
    exact = np.zeros(2000)
    usual = np.zeros(2000, np.float32)
    for _ in range(6000):
        g = rng.standard_normal(2000).astype(np.float32)
        opt.update(p, g)
        exact = 0.999 * exact + (1 - 0.999) * g.astype(np.float64) ** 2
        usual = np.float32(0.999) * usual + np.float32(1 - 0.999) * g * g
    spacing = np.spacing(exact.astype(np.float32)).astype(np.float64)
    ours, theirs = (np.median(np.abs(v - exact) / spacing) for v in (opt.state[""]["v"], usual))
    with capsys.disabled():
        print(f"\nv after 6,000 steps, spacings off (median): {ours:.1f}; by beta*v + (1 - beta)*g*g: {theirs:.0f}")
    assert ours <= 100


def test_decoupled_decay_keeps_its_accuracy_over_10000_steps(capsys):
    start = np.linspace(0.5, 2, 500, dtype=np.float32)
    p, zero = start.copy(), np.zeros_like(start)
    opt = adamas.AdamW(learning_rate=3e-4, weight_decay=0.1)
    theirs = torch.tensor(start, requires_grad=True)
    theirs.grad = torch.zeros_like(theirs)
    fused = torch.optim.AdamW([theirs], lr=3e-4, weight_decay=0.1, fused=True)
    for _ in range(10_000):
        opt.update(p, zero)
        fused.step()
    exact = start.astype(np.float64) * math.exp(10_000 * math.log1p(-3e-4 * 0.1))
    spacing = np.spacing(exact.astype(np.float32)).astype(np.float64)
    off = [(np.abs(q - exact) / spacing).max() for q in (p, theirs.detach().numpy())]
    with capsys.disabled():
        print(f"\n10,000 steps of decay alone, spacings off (largest): {off[0]:.0f}; torch fused: {off[1]:.0f}")
    assert off[0] <= 64


TORCH = {
    "SGD": (torch.optim.SGD, {"lr": 0.05}, {"learning_rate": 0.05}),
    "Momentum": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}, {"learning_rate": 0.01}),
    "Momentum, nesterov": (
        torch.optim.SGD,
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"learning_rate": 0.01},
    ),
    "Momentum, damped": (
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.5},
        {"learning_rate": 0.05},
    ),
    "AdaGrad": (torch.optim.Adagrad, {}, {}),
    "RMSProp": (torch.optim.RMSprop, {}, {}),
    "RMSPropMomentum": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.9}, {"learning_rate": 1e-3}),
    "CenteredRMSProp": (torch.optim.RMSprop, {"centered": True}, {}),
    "CenteredRMSPropMomentum": (
        torch.optim.RMSprop,
        {"lr": 1e-3, "momentum": 0.9, "centered": True},
        {"learning_rate": 1e-3},
    ),
    "Adam": (torch.optim.Adam, {}, {}),
    "AdamW": (torch.optim.AdamW, {}, {}),
    "AMSGrad": (torch.optim.Adam, {"amsgrad": True}, {}),
}
DECOUPLED = ("Adam", "AdamW", "AMSGrad")  # where torch has both kinds


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("case", TORCH)
def test_trajectories_are_torchs(case, decay):
    """200 float64 steps with noisy gradients, every hyper-parameter at torch's default where none is given."""
    theirs, their_options, our_options = TORCH[case]
    kind = DECAYS[decay]
    if kind["decoupled"] and case not in DECOUPLED:
        return
    if theirs is torch.optim.AdamW and not kind["decoupled"]:
        theirs = torch.optim.Adam
    their_options = {**their_options, "weight_decay": kind["weight_decay"]}
    if theirs is torch.optim.Adam:
        their_options["decoupled_weight_decay"] = kind["decoupled"]
    rng = np.random.default_rng(3)
    start = rng.standard_normal(300)
    parameter = torch.tensor(start, requires_grad=True)
    optimizer = theirs([parameter], **their_options)
    p, ours = start.copy(), make(case, **our_options, **kind)
    for _ in range(200):
        noise = rng.standard_normal(300)
        parameter.grad = parameter.detach() + torch.tensor(noise)
        optimizer.step()
        ours.update(p, p + noise)
    assert_allclose(p, parameter.detach().numpy(), rtol=1e-12, atol=1e-13)


# --- one specification for every kind of value ------------------------------------------------------------------------


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("case", RULES)
def test_floats_and_numpy_give_the_same_bits_and_torch_nearly(case, decay):
    """Torch's square root is not correctly rounded: of float64 1 in 70 is a spacing off."""
    rng = np.random.default_rng(4)
    start = rng.standard_normal(5)
    gradients = list(rng.standard_normal((20, 5)) * 10.0 ** rng.uniform(-5, 5, 5))
    optimizer = make(case, **DECAYS[decay])
    whole, *_ = reference(optimizer, start, gradients)
    expected = [reference(optimizer, start[i : i + 1], [g[i : i + 1] for g in gradients])[0][0] for i in range(5)]

    floats = make(case, **DECAYS[decay])
    values = start.tolist()
    from_scratch = rules.RULES[optimizer.rule.__name__](**{name: getattr(optimizer, name) for name in optimizer.ranges})
    scratch = start.tolist()
    tensor, state = torch.tensor(start), [torch.zeros(5, dtype=torch.float64) for _ in optimizer.rule.state_names]
    carry = {}
    for t, g in enumerate(gradients, start=1):
        values = floats.update(values, g.tolist())
        scratch = from_scratch.update(scratch, g.tolist())
        c = optimizer.at(t, carry)
        carry = {name: getattr(c, name) for name in optimizer.rule.first_carry}
        tensor, *state = rules.step(optimizer.rule, torch, c, tensor, torch.tensor(g), *state)
    assert_array_equal(values, expected)
    assert_array_equal(scratch, expected)
    assert_allclose(tensor.numpy(), whole, rtol=1e-13)


def test_the_file_alone_is_adam_from_scratch():
    """With nothing but the standard library: no package, no NumPy."""
    path = Path(rules.__file__)
    code = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("rules", {str(path)!r})
rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rules)
adam = rules.Adam(0.1, 0.9, 0.999, 1e-8)
x, y = 5.0, -3.0
for _ in range(1000):
    x, y = adam.update([x, y], [2 * x, 2 * y])
assert abs(x) + abs(y) < 1e-4, (x, y)
network = {{"w": [[0.1, 0.2], [0.3, 0.4]], "b": (0.5,)}}
assert rules.AMSGrad().update(network, {{"b": (1.0,), "w": [[1.0, -1.0], [0.0, 2.0]]}}) is network
assert network["w"][1][0] == 0.3 and network["b"][0] < 0.5
assert not any(name in sys.modules for name in ("numpy", "adamas", "optree"))
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)


def test_the_scalar_namespace_treats_nan_as_numpy_does():
    for a in (1.0, 2.0, math.nan):
        for b in (1.0, 2.0, math.nan):
            assert_array_equal(rules.scalars.maximum(a, b), np.maximum(a, b))
    assert rules.scalars.where(True, 1.0, 2.0) == np.where(True, 1.0, 2.0)
    assert rules.scalars.finfo(float).max == np.finfo(np.float64).max


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 0.999, 0.999999])
def test_a_lerp_stays_where_it_is_and_ends_where_it_should(beta):
    x = np.random.default_rng(5).standard_normal(1000).astype(np.float32)
    assert_array_equal(rules.lerp(x, x, beta), x)
    assert_array_equal(rules.lerp(x[::-1], x, 0.0), x)
    a, b = x[:500], x[500:]
    assert_allclose(rules.lerp(a, b, beta), beta * a.astype(float) + (1 - beta) * b.astype(float), atol=3e-7)


def test_a_rule_of_ones_own_needs_a_stanza_only():
    """In an environment of its own, as `adamas.rules` registers what it sees."""
    spec = importlib.util.spec_from_file_location("own_rules", rules.__file__)
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)

    @own.rule
    class SignDescent(own.Rule):
        """Descent by the sign of the gradient."""

        learning_rate: own.NonNegative = 0.5

        def coefficients(self, t):
            return {"learning_rate": self.learning_rate}

        @staticmethod
        def change(xp, c, p, g):
            return (c.learning_rate * xp.where(g > 0, 1.0, -1.0),)

    assert own.RULES["SignDescent"](0.25).update([1.0, 1.0], [3.0, -3.0]) == [0.75, 1.25]
    with pytest.raises(ValueError, match="learning_rate must be finite and at least 0, got -1"):
        SignDescent(-1)
