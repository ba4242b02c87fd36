"""The engine returns the bits of the specification for every stage, format and layout, on every instruction set."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import DECAYS, ISA_LEVELS, RULES, Watching, make, wild_gradients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import layouts

import adamas
from adamas import _fallback, _formats, _norm
from adamas._memory import Memory
from adamas._native import engine

pytestmark = pytest.mark.skipif(engine is None, reason="adamas was installed without its engine")

BFLOAT16 = _formats.BFLOAT16
REALS = [np.dtype(dtype) for dtype in (np.float64, np.float32, BFLOAT16, np.float16)]
COMPLEX = [np.dtype(dtype) for dtype in (np.complex128, np.complex64)]
STAGES: dict[str, dict[str, Any]] = {
    "clip_norm": {"clip_norm": 0.5},
    "clip_value": {"clip_value": 1e-3},
    "grad_scale": {"grad_scale": 3.0},
    "ema": {"ema": 0.99},
    "weight_copy": {"weight_copy": "bfloat16"},
    "half_copy": {"weight_copy": "float16"},
    "zero_grads": {"zero_grads": True},
    "state_format": {"state_format": "bfloat16"},
    "random": {"stochastic_rounding": True, "seed": 7},
    "cautious": {"cautious": True},
    "update_clip": {"update_clip": 0.1},
    "trust_ratio": {"trust_ratio": True},
}


@pytest.fixture(autouse=True)
def as_before():
    """Put back the instruction set and the number of threads that a test changes."""
    before = engine.isa()
    yield
    engine.use_isa(before)
    adamas.set_num_threads(None)


def assert_array_equal(actual: Any, wanted: Any, err_msg: str = "") -> None:
    """The same format and numbers; NumPy does not see that NaN of bfloat16 are NaN."""
    assert actual.dtype == wanted.dtype
    if wanted.dtype == BFLOAT16:
        actual, wanted = actual.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(actual, wanted, err_msg=err_msg)


def remembered(optimizer: Any, params: list[Any]) -> list[tuple[Any, ...]]:
    return [Memory(optimizer.rule)._first_state(p, optimizer) for p in params]


def run(
    plan_class: Any, optimizer: Any, params: list[Any], steps: list[list[Any]], observed: bool = False
) -> list[Any]:
    """Return all that a plan of one of the two kinds leaves after some steps: parameters, what it keeps, gradients.

    If they are observed, the statistics too.
    """
    params = [p.copy(order="K") for p in params]
    steps = [[g if g is None else g.copy(order="K") for g in grads] for grads in steps]
    slots = remembered(optimizer, params)
    kernel = next(cls.__name__ for cls in optimizer.rule.__mro__ if "change" in vars(cls))
    segments = [(0, p, s, False) for p, s in zip(params, slots, strict=True)]
    plan = plan_class(kernel, segments, None, 0, optimizer.plan_options)
    left = []
    for t, grads in enumerate(steps, start=1):
        coefficients, stages = optimizer._numbers_at(t)
        norms: list[tuple[float, bool]] = []

        def judge(norm: float, finite: bool, t: int = t, norms: Any = norms) -> float | None:
            norms.append((norm, finite))
            return optimizer.factor(norm, finite, t)

        watch = Watching(*params) if observed else None
        before = [p.copy() for p in params]
        taken = plan.run(params, grads, coefficients, stages, t, judge if optimizer.needs_norm else None, watch)
        left += [taken, *norms]
        if watch is not None:
            for begun in watch.begun:
                list(map(assert_array_equal, begun, before))
            assert len(watch.begun) == taken
            left += map(tuple, watch.seen)
    return [*left, *params, *itertools.chain.from_iterable(slots), *itertools.chain.from_iterable(steps)]


def assert_same_bits(
    optimizer: Any, params: list[Any], steps: list[list[Any]], levels: Any, threads: Any, observed: bool = False
) -> None:
    expected = run(_fallback.Plan, optimizer, params, steps, observed)
    for level, count in itertools.product(levels, threads):
        engine.use_isa(level)
        adamas.set_num_threads(count)
        for actual, wanted in zip(run(engine.Plan, optimizer, params, steps, observed), expected, strict=True):
            if not isinstance(wanted, np.ndarray):
                assert repr(actual) == repr(wanted), (level, count)
            else:
                assert_array_equal(actual, wanted, err_msg=f"{optimizer}, {level}, {count} threads")


def numbers(rng: np.random.Generator, n: int, dtype: Any) -> Any:
    """Numbers of all magnitudes that a dtype has, some of them zero, with the largest and denormal ones."""
    real = np.dtype(f"f{dtype.itemsize // 2}") if dtype in COMPLEX else dtype
    largest = 3e4 if real == np.float16 else 1e30
    x = rng.standard_normal(n) * 10.0 ** rng.uniform(-8, 4 if real == np.float16 else 8, n)
    x[::5] = rng.choice([0.0, -0.0, 1.0, -1.0, largest, -largest, 1e-40, 1e-7, 2.0**-133], len(x[::5]))
    return x.astype(real).view(dtype) if dtype not in COMPLEX else (x + 1j * x[::-1]).astype(dtype)


@st.composite
def steps_of(draw: Any) -> Any:
    """An optimizer with any stages, and some arrays of any formats and layouts with gradients for some steps."""
    stages = draw(st.lists(st.sampled_from(sorted(STAGES)), max_size=4, unique=True))
    options = {key: value for stage in stages for key, value in STAGES[stage].items()}
    optimizer = make(draw(st.sampled_from(sorted(RULES))), **DECAYS[draw(st.sampled_from(sorted(DECAYS)))], **options)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    params, gradients = [], []
    for _ in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from([*REALS, *REALS, *COMPLEX]))
        shape = draw(st.sampled_from([(), (0,), (1,), (7,), (300,), (3, 5), (2, 130), (4, 3, 9), (1025,)]))
        grad_dtype = draw(st.sampled_from(COMPLEX if dtype in COMPLEX else REALS))
        p, *grads = (draw(layouts(shape, d)) for d in (dtype, grad_dtype, grad_dtype))
        for array in (p, *grads):
            array[...] = numbers(rng, array.size, array.dtype).reshape(shape)
        params.append(p)
        gradients.append([*grads, grads[0] if draw(st.booleans()) else None])
    return optimizer, params, [list(grads) for grads in zip(*gradients, strict=True)]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    case=steps_of(),
    level=st.sampled_from(ISA_LEVELS or [None]),
    threads=st.sampled_from([1, 2, 8]),
    observed=st.booleans(),
)
def test_bits_of_stages_formats_and_layouts(case, level, threads, observed):
    assert_same_bits(*case, [level], [threads], observed)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize("state_format", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_bits_of_halves_of_any_length(dtype, state_format, at_random):
    """Without stages, so that the loop reads and writes them where they are."""
    rng = np.random.default_rng(6)
    optimizer = adamas.AdamW(0.01, state_format=state_format, stochastic_rounding=at_random)
    lengths = [*range(1, 40), 255, 256, 257, 511, 4097, 40_000]
    params, *steps = ([numbers(rng, n, dtype) for n in lengths] for _ in range(4))
    steps[1][-1][[7, 30_000, -1]] = np.nan, np.inf, -np.inf
    assert_same_bits(optimizer, params, steps, ISA_LEVELS, [1, 2])


MIXES = [
    (p, g, state)
    for p, g in itertools.product(REALS, REALS)
    for state in (["float32"] if p == np.float64 else ["float32", "bfloat16"])
]


@pytest.mark.stress
@pytest.mark.parametrize("stages", [(), *itertools.combinations(sorted(STAGES), 1), tuple(sorted(STAGES))])
@pytest.mark.parametrize("case", sorted(RULES))
def test_bits_of_every_rule_stage_and_mix(case, stages):
    """Every decay, mix of formats, instruction set and number of threads; enough elements for eight threads."""
    options = {key: value for stage in stages for key, value in STAGES[stage].items()}
    rng = np.random.default_rng(1)
    for decay, (p_dtype, g_dtype, state) in itertools.product(DECAYS, MIXES):
        optimizer = make(case, **DECAYS[decay], **{**options, "state_format": state})
        lengths = [1, 130, 65_537, 257]
        params = [numbers(rng, n, p_dtype) for n in lengths]
        steps = [[numbers(rng, n, g_dtype) for n in lengths] for _ in range(2)]
        assert_same_bits(optimizer, params, steps, ISA_LEVELS, (1, 2, 8))


@pytest.mark.parametrize("dtype", [*REALS, *COMPLEX], ids=str)
def test_bits_of_many_elements_and_threads(dtype):
    """Enough for eight threads, cut inside and between arrays, with all stages at once."""
    rng = np.random.default_rng(2)
    options = {key: value for stage in STAGES.values() for key, value in stage.items()}
    optimizer = make("Adam", **DECAYS["decoupled"], **options)
    lengths = [1, 100_003, 64, 65_537, 300]
    params = [numbers(rng, n, dtype) for n in lengths]
    steps = [[numbers(rng, n, dtype) for n in lengths] for _ in range(3)]
    assert_same_bits(optimizer, params, steps, ISA_LEVELS, (1, 2, 8))


def test_wild_gradients_in_bfloat16_state():
    rng = np.random.default_rng(3)
    for case in RULES:
        for random in (False, True):
            optimizer = make(case, state_format="bfloat16", stochastic_rounding=random)
            p = rng.standard_normal(1000).astype(np.float32)
            steps = [[g] for g in wild_gradients(rng, 20, 1000, np.float32)]
            assert_same_bits(optimizer, [p], steps, ISA_LEVELS, [1])


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(RULES))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_of_statistics_over_many_blocks(case, dtype):
    rng = np.random.default_rng(4)
    optimizer = make(case, clip_value=1e3, weight_decay=0.01)
    params = [rng.standard_normal(n).astype(dtype) for n in (50_001, 3, 8192)]
    steps = [[g[:50_001], g[50_001:50_004], g[50_004:]] for g in wild_gradients(rng, 3, 58_196, dtype)]
    steps[1][0][[5, 40_000]] = np.nan, np.inf
    assert_same_bits(optimizer, params, steps, ISA_LEVELS, [1, 2, 3], observed=True)


def test_statistics_are_what_they_say():
    rng = np.random.default_rng(5)
    p, g = rng.standard_normal((2, 10_000)).astype(np.float32)
    g[:3] = np.nan, np.inf, -100.0
    optimizer = adamas.Adam(0.1, clip_value=50.0)
    before, watch = p.astype(float), Watching()
    v = np.zeros_like(p)
    plan = engine.Plan("Adam", [(0, p, (np.zeros_like(p), v), False)], None, 0, optimizer.plan_options)
    plan.run([p], [g], *optimizer._numbers_at(1), 1, None, watch)
    ((place, size, g2, p2, change2, rates, least, most, nonfinite, clipped),) = watch.seen
    assert (place, size, nonfinite, clipped) == (0, 10_000, 2, 2)  # infinity is cut too
    assert np.isnan([g2, p2, change2, rates]).all()  # as their numbers are
    assert most > least > 0
    g[:3], watch = 1.0, Watching()
    p, v = rng.standard_normal(10_000).astype(np.float32), np.zeros_like(p)
    before = p.astype(float)
    plan = engine.Plan("Adam", [(0, p, (np.zeros_like(p), v), False)], None, 0, optimizer.plan_options)
    plan.run([p], [g], *optimizer._numbers_at(1), 1, None, watch)
    ((_, _, g2, p2, change2, rates, least, most, *_),) = watch.seen
    rate = 0.1 / (np.abs(g.astype(float)) + 1e-8)
    wanted = [np.sum(g.astype(float) ** 2), np.sum(p.astype(float) ** 2), np.sum((p - before) ** 2), rate.sum()]
    np.testing.assert_allclose([g2, p2, change2, rates], wanted, rtol=1e-5)
    np.testing.assert_allclose([least, most], [rate.min(), rate.max()], rtol=1e-5)


# --- the norm ---------------------------------------------------------------------------------------------------------


def norm_by_engine(arrays: list[Any]) -> tuple[float, bool]:
    plan = engine.Plan("SGD", [(0, a, (), False) for a in arrays], None, 0, (False, False, False, False, 0))
    seen: list[tuple[float, bool]] = []
    plan.run(
        [np.zeros_like(a) for a in arrays],
        arrays,
        ({"learning_rate": 0.0},),
        (adamas.rules.Stages(),),
        1,
        lambda norm, finite: seen.append((norm, finite)),
    )
    return seen[0]


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.integers(0, 70_000), max_size=8),
    dtype=st.sampled_from(REALS),
    level=st.sampled_from(ISA_LEVELS or [None]),
    threads=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 100),
)
def test_the_norm_depends_neither_on_threads_nor_on_cuts(cuts, dtype, level, threads, seed):
    x = np.random.default_rng(seed).standard_normal(70_000).astype(dtype)
    expected = _norm.norm(np, [x.astype(np.float64)])
    engine.use_isa(level)
    adamas.set_num_threads(threads)
    assert norm_by_engine(np.split(x, sorted(cuts))) == expected
    assert expected[0] == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-14)


@pytest.mark.parametrize("dtype", REALS, ids=str)
def test_the_norm_of_what_is_huge_or_not_finite(dtype):
    """Squares that overflow do not count as infinite."""
    largest = float(ml_dtypes.finfo(dtype).max)
    x = np.ones(5000, dtype)
    x[4321] = largest
    norm, finite = norm_by_engine([x])
    assert finite
    assert norm == pytest.approx(largest)
    for special in (np.inf, -np.inf, np.nan):
        x[17] = special
        norm, finite = norm_by_engine([x])
        assert not finite
        assert not np.isfinite(norm)


# --- the formats ------------------------------------------------------------------------------------------------------


def step_of_sgd(p: Any, g: Any, **options: Any) -> Any:
    """Return p - g by the engine, in the format of p."""
    return adamas.SGD(1.0, **options).update(p.copy(), g)


@pytest.mark.parametrize("level", ISA_LEVELS)
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_every_number_of_a_format_is_read_and_written_as_it_is(dtype, level):
    """All 65,536 of them; denormal numbers of bfloat16, which are such of float32 too, count as zero."""
    engine.use_isa(level)
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"), adamas.flush_denormals():
        read = every.astype(np.float32) - np.float32(0)
        negative = np.float32(0) - np.float32(1) * every.astype(np.float32)
    assert_array_equal(step_of_sgd(every, np.zeros(2**16, np.float32)), read.astype(dtype))
    assert_array_equal(step_of_sgd(np.zeros(2**16, np.float32), every), negative)


@pytest.mark.parametrize("level", ISA_LEVELS)
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_float32_is_rounded_as_numpy_rounds_it(dtype, level):
    """To the nearest, ties to even: numbers between, at and beside the middle of neighbours, beyond the largest."""
    engine.use_isa(level)
    every = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    finite = np.sort(every[np.isfinite(every)])
    middle = (finite[:-1].astype(np.float64) + finite[1:]) / 2
    middle = middle[np.abs(middle) > np.finfo(np.float32).tiny].astype(np.float32)
    x = np.concatenate([middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))])
    x = np.concatenate([x, np.array([65519.9, 65520, 65536, 1e30, 3.4e38, np.inf, np.nan], np.float32)])
    copies = adamas.SGD(0.0, weight_copy=dtype.name)
    copies.update(x.copy(), np.zeros_like(x))
    with np.errstate(over="ignore"):
        assert_array_equal(copies.weight_copy, x.astype(dtype))
