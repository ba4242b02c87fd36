"""The younger rules take the steps of their papers, and of whoever has them in the same form, in float64 to 1e-12."""

import copy
import importlib
import json
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import mpmath
import numpy as np
import optax
import pytest
import torch
from harness import make
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import _golden, problems, rules
from adamas._compare import run_all
from adamas._rows import run_rows

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


def lion(p: Any, lr: float = 1e-4, b1: float = 0.9, b2: float = 0.99) -> Steps:
    m = 0 * p
    while True:
        g = yield p
        p, m = p - lr * np.sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g


def nadam(p: Any, lr: float = 2e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, psi: float = 4e-3) -> Steps:
    m, v, t, product = 0 * p, 0 * p, 0, 1.0

    def mu(t: int) -> float:
        return b1 * (1 - 0.5 * 0.96 ** (t * psi))

    while True:
        g, t = (yield p), t + 1
        m, v, product = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2, product * mu(t)
        m_hat = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        p = p - lr * m_hat / (np.sqrt(v / (1 - b2**t)) + eps)


def schedule_free_adamw(
    p: Any, lr: float = 2.5e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decay: float = 0.0
) -> Steps:
    """With its three sequences; y, where the gradient is taken, is yielded."""
    x, z, v, t, total = p.copy(), p.copy(), 0 * p, 0, 0.0
    while True:
        y = (1 - b1) * z + b1 * x
        g, t = (yield y), t + 1
        v = b2 * v + (1 - b2) * g**2
        z = z - lr * (g / (np.sqrt(v / (1 - b2**t)) + eps) + decay * y)
        total += lr**2
        x = (1 - lr**2 / total) * x + lr**2 / total * z


PAPERS: dict[str, Callable[..., Steps]] = {
    "Adamax": adamax,
    "RAdam": radam,
    "AdaBelief": adabelief,
    "Yogi": yogi,
    "ADOPT": adopt,
    "AdEMAMix": ademamix,
    "Adan": adan,
    "Lion": lion,
    "NAdam": nadam,
    "ScheduleFreeAdamW": schedule_free_adamw,
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
    "NAdam": ("NAdam", {}, {}),
    "NAdam, L2": ("NAdam", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
}


@pytest.fixture
def double():
    """What torch keeps as a scalar, such as NAdam's product, is float32 unless this is its default."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", IN_TORCH)
def test_the_steps_are_torchs(case, double):
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
    "Lion": lambda optax: optax.lion(1e-4, weight_decay=0.0),
    "ScheduleFreeAdamW": lambda optax: optax.contrib.schedule_free_adamw(
        2.5e-3, weight_decay=adamas.ScheduleFreeAdamW().weight_decay
    ),
}


@pytest.mark.parametrize("name", IN_OPTAX)
def test_the_steps_are_optaxs(name):
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
    "Lion": ("Lion", {"weight_decay": 0.0}),
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


# --- what lives across steps ------------------------------------------------------------------------------------------


def beta1_of(step: int) -> float:
    return 0.9 if step < 5 else 0.5


def test_the_carry_is_the_product_of_what_was():
    opt, p = adamas.NAdam(beta1=beta1_of), np.ones(3)
    assert opt.carry == ({"mu_product": 1.0},)
    product = 1.0
    for t in range(1, 11):
        opt.update(p, np.ones(3))
        product *= beta1_of(t - 1) * (1 - 0.5 * 0.96 ** (t * 4e-3))
        assert opt.carry == ({"mu_product": pytest.approx(product, rel=1e-15)},)
    opt.reset()
    assert opt.carry == ({"mu_product": 1.0},)


@pytest.mark.parametrize("case", ["NAdam", "ScheduleFreeAdamW"])
def test_the_carry_is_copied_pickled_and_its_groups_own(case):
    def of(step):
        return 1e-2 * 0.9**step

    opt, p = make(case, of, groups=[("b", {"learning_rate": 1.0})]), {"a": np.ones(2), "b": 1.0}
    g = {"a": np.ones(2), "b": 1.0}
    for _ in range(3):
        opt.update(p, g)
    assert len(opt.carry) == 2
    opt.learning_rate = 1e-3  # a function of a test cannot be pickled
    twin, q = pickle.loads(pickle.dumps(opt)), copy.deepcopy(p)
    assert twin.carry == opt.carry
    opt.update(p, g)
    twin.update(q, g)
    assert p["b"] == q["b"]
    assert_array_equal(p["a"], q["a"])
    assert twin.carry == opt.carry


def test_a_step_that_is_not_taken_leaves_the_carry():
    opt, p = adamas.NAdam(nonfinite="skip"), np.ones(3)
    opt.update(p, np.ones(3))
    before = opt.carry
    opt.update(p, np.full(3, np.nan))
    assert opt.carry == before
    assert opt.t == 1


# --- where to evaluate ------------------------------------------------------------------------------------------------


def test_eval_params_are_the_average_of_the_iterates():
    """The x of the paper's algorithm, of arrays, floats and what is in groups."""
    x, z = START.copy(), START.copy()
    v, total = 0 * x, 0.0
    opt = adamas.ScheduleFreeAdamW(0.01, weight_decay=0.1)
    params = {"w": START.copy(), "x": float(START[0])}
    assert_array_equal(opt.eval_params(params)["w"], START)
    for t in range(1, 50):
        g = noisy(params["w"], t)
        opt.update(params, {"w": g, "x": float(g[0])})
        y = 0.1 * z + 0.9 * x
        v = 0.999 * v + (1 - 0.999) * g**2
        z = z - 0.01 * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * y)
        total += 0.01**2
        x = x + 0.01**2 / total * (z - x)
        found = opt.eval_params(params)
        assert_allclose(found["w"], x, rtol=1e-11, atol=1e-13)
        assert found["x"] == pytest.approx(x[0], rel=1e-11)
        assert found["w"] is not params["w"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64", "bfloat16"])
def test_eval_params_have_the_format_of_the_parameters(dtype):
    opt = adamas.ScheduleFreeAdamW(0.1, state_format="bfloat16" if dtype == "float16" else "float32")
    p = np.ones(4, np.dtype(dtype))
    for _ in range(3):
        opt.update(p, np.ones(4, p.dtype))
    found = opt.eval_params(p)
    assert found.dtype == p.dtype
    assert abs(complex(found[0]) - 1) < abs(complex(p[0]) - 1)


def test_eval_params_of_other_rules_are_the_parameters():
    opt, p = adamas.Adam(0.1), [np.ones(2), 1.0]
    opt.update(p, [np.ones(2), 1.0])
    found = opt.eval_params(p)
    assert_array_equal(found[0], p[0])
    assert found[0] is not p[0]
    assert found[1] == p[1]


def test_eval_params_refuses_what_it_does_not_know():
    opt = adamas.ScheduleFreeAdamW()
    opt.update({"w": 1.0}, {"w": 1.0})
    with pytest.raises(ValueError, match=r"params\['v'\] is not a parameter that this optimizer has stepped"):
        opt.eval_params({"v": 1.0})
    opt.beta1 = 0.0
    with pytest.raises(ValueError, match=r"beta1 is 0: "):
        opt.eval_params({"w": 1.0})


# --- one step against 50 digits ---------------------------------------------------------------------------------------

SQUARES = {"v": 2, "s": 2, "u": 1, "AdEMAMix": {"n": 0}, "Adan": {"v": 0, "n": 2}}
"""Which state is of the gradient's magnitude, or its square, so not negative; else it is of either sign."""


def power_of(rule: str, state: str) -> Any:
    return SQUARES.get(rule, {}).get(state, SQUARES.get(state, 0))


@pytest.mark.parametrize("t", [1, 2, 10, 10**6])
@pytest.mark.parametrize("name", PAPERS)
def test_one_float32_step_is_within_2_spacings_of_exact(name, t):
    """Of the parameter, if it is 4 times as large as any term of its change; else within 4 of the largest of all.

    State is of the gradient's magnitude, or its square.
    """
    rng = np.random.default_rng(t)
    n = 300
    p, g = (10.0 ** rng.uniform(-6, 6, (2, n)) * rng.choice([-1, 1], (2, n))).astype(np.float32)
    opt = make(name, weight_decay=0.01, decoupled=True)
    state = []
    for key in opt.rule.state_names:
        power = power_of(name, key)
        x = np.abs(g).astype(float) ** (power or 1) * rng.uniform(0.1, 2, n)
        state.append((x * (1 if power else rng.choice([-1, 1], n)) * (t > 1)).astype(np.float32))
    c = opt.at(t)
    with adamas.flush_denormals(), np.errstate(all="ignore"):
        new = rules.step(opt.rule, np, c, p, g, *state)[0]
    with mpmath.workdps(50):
        for k in range(n):
            numbers = [mpmath.mpf(float(x[k])) for x in (p, g, *state)]
            exact = rules.step(opt.rule, _golden.exact, c, *numbers)[0]
            size, *sizes = map(abs, numbers)
            turned = [sizes[0], -sizes[1], *sizes[2:]]  # one of both is without cancellation
            terms = max(abs(rules.step(opt.rule, _golden.exact, c, size, *x)[0] - size) for x in (sizes, turned))
            off = abs(float(new[k]) - exact) / float(np.spacing(np.float32(max(size, terms))))
            assert off <= (2 if size >= 4 * terms else 4), (k, off)


@pytest.mark.stress
@pytest.mark.parametrize("name", [*PAPERS, "LAMB"])
def test_the_digits_are_learnt(name, adamas_, tmp_path):
    """At the learning rate that the command has for it."""
    done = adamas_("train", "digits", "--optimizer", name, "--out", "here", timeout=1200)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "here" / "results.json").read_text())["test_accuracy"] >= 0.96


# --- as rows of one array ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PAPERS, "LAMB"])
@pytest.mark.parametrize("hyperparameter", ["learning_rate", "beta2"])
def test_rows_are_the_runs_of_optimizers(name, hyperparameter):
    """Of the tuner, which steps many hyper-parameters at once where a rule can take a column of them."""
    problem = problems.get("booth")
    rows = [{"learning_rate": 0.01}, {"learning_rate": 0.03}]
    if hyperparameter == "beta2":
        rows = [{"learning_rate": 0.01, "beta2": 0.9}, {"learning_rate": 0.01, "beta2": 0.99}]
    starts = np.array([[-1.2, 1.0], [0.5, 2.0]])
    found = run_rows(problem, rules.RULES[name], rows, starts, 50).final
    for i, row in enumerate(rows):
        for j, start in enumerate(starts):
            opt, x = make(name, **row), start.copy()
            for _ in range(50):
                opt.update(x, problem.gradient(x))
            assert found[i, j] == pytest.approx(problem.value(x), rel=1e-9)
    if hyperparameter == "learning_rate":
        final = run_all(problem, name, 0.03, starts, 50, 0)[1]
        assert_allclose(final, found[1], rtol=1e-9)
