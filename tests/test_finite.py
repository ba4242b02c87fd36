"""Finite in, finite out: no gradient up to a format's largest number makes a NaN, or leaves infinity in the state."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from harness import DECAYS, RULES, WHOLE, make
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FORMATS = [np.dtype(dtype) for dtype in (np.float64, np.float32, BFLOAT16, np.float16)]
ADAPTIVE = [case for case in RULES if "epsilon" in make(case).ranges]
CASES = 10_000


def finite(array):
    return bool(np.isfinite(np.asarray(array, np.float64)).all())


@st.composite
def numbers(draw, dtype, n):
    """n numbers of a format: of one magnitude, of all, or the special ones: 0, the least, the largest."""
    info = ml_dtypes.finfo(dtype)
    kind = draw(st.sampled_from(["zero", "largest", "least", "one size", "all sizes", "special"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    signs = rng.choice([-1.0, 1.0], n)
    largest, tiny, least = float(info.max), float(info.tiny), float(info.smallest_subnormal)
    if kind == "zero":
        x = np.zeros(n)
    elif kind in ("largest", "least"):
        x = np.full(n, {"largest": largest, "least": least}[kind])
    elif kind == "special":
        x = rng.choice([0.0, least, tiny, 1.0, largest / 2, largest], n)
    else:
        low, high = np.log10(tiny), np.log10(largest)
        x = 10.0 ** rng.uniform(low, high, 1 if kind == "one size" else n) * rng.uniform(0.1, 1, n)
    return (signs * x).astype(dtype)


@st.composite
def runs(draw):
    """An optimizer with extreme settings, a parameter, and gradients of changing magnitudes."""
    case = draw(st.sampled_from(sorted(RULES)))
    settings_ = dict(DECAYS[draw(st.sampled_from(sorted(DECAYS)))])
    settings_["learning_rate"] = draw(st.sampled_from([0.0, 1e-8, 1e-3, 1.0]))
    for name, values in {
        "epsilon": [0.0, 1e-300, 1e-38, 1e-8],
        "beta1": [0.0, 0.9, 0.999999],
        "beta2": [0.0, 0.5, 0.999, 0.9999999],
        "momentum": [0.0, 0.9, 0.9999],
    }.items():
        if name in make(case).ranges:
            settings_[name] = draw(st.sampled_from(values))
    settings_ |= draw(
        st.sampled_from(
            [
                {},
                {"clip_norm": 1.0},
                {"clip_value": 0.5},
                {"state_format": "bfloat16"},
                {"state_format": "bfloat16", "stochastic_rounding": True},
                {"clip_norm": 1.0, "ema": 0.9, "weight_copy": "bfloat16"},
                {"cautious": True},
                {"update_clip": 0.1, "trust_ratio": True},
            ]
        )
    )
    dtype, grad_dtype = draw(st.sampled_from(FORMATS)), draw(st.sampled_from(FORMATS))
    n = draw(st.sampled_from([1, 3, 20]))
    p = np.clip(draw(numbers(dtype, n)).astype(float), -1e4, 1e4).astype(dtype)
    return make(case, **settings_), p, [draw(numbers(grad_dtype, n)) for _ in range(draw(st.integers(1, 4)))]


def check(run):
    optimizer, p, gradients = run
    work = np.float64 if p.dtype == np.float64 else np.float32
    for g in gradients:
        with np.errstate(over="ignore"):
            if not finite(p) or not finite(g.astype(work)):  # a gradient may be too large for the arithmetic
                return
        optimizer.update(p, g)
        assert not np.isnan(p.astype(np.float64)).any(), (optimizer, p, gradients)
        for name, array in optimizer.state[""].items():
            assert finite(array), (optimizer, name, array, gradients)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
@example((make("Adam"), np.ones(2, np.float16), [np.zeros(2, np.float16)] * 3))
@example((make("Adam", epsilon=0.0), np.ones(2, np.float32), [np.zeros(2, np.float32)] * 3))
@example(
    (
        make("CenteredRMSProp", learning_rate=1.0, beta2=0.9999999, epsilon=0.0, update_clip=0.1, trust_ratio=True),
        np.full(2, 1e4, np.float32),
        [np.array([-380, 297], np.float32), np.array([2e-38, -1e-38], np.float32)],
    )
)
def test_finite_in_finite_out(run):
    check(run)


@pytest.mark.stress
@settings(max_examples=1_000_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_finite_in_finite_out_a_million_times(run):
    check(run)


@pytest.mark.parametrize(("dtype", "case"), [*itertools.product(FORMATS, ADAPTIVE)], ids=str)
def test_a_zero_gradient_moves_nothing(dtype, case):
    """In float16 an epsilon of 1e-8 is 0: torch and optax return NaN."""
    for epsilon in (1e-8, 0.0):
        p = np.ones(3, dtype)
        optimizer = make(case, epsilon=epsilon, weight_decay=0.0)
        for _ in range(3):
            optimizer.update(p, np.zeros(3, dtype))
        assert (p == 1).all()


@pytest.mark.parametrize("case", RULES)
def test_what_is_infinite_is_not_hidden(case):
    """An infinite gradient shows in the parameter, or, where only its sign counts, in the state."""
    for dtype in FORMATS:
        p = np.ones(2, dtype)
        optimizer = make(case)
        optimizer.update(p, np.array([np.inf, 1], dtype))
        shown = optimizer.state[""]["m"] if case == "Lion" else p
        assert not np.isfinite(float(shown[0]))
        assert case in WHOLE or np.isfinite(float(p[1]))
