"""The engine returns the bits of the specification, on every instruction set, for any length and number of threads."""

import numpy as np
import pytest
from harness import DECAYS, DTYPES, ELEMENTWISE, ISA_LEVELS, RULES, EngineSteps, make, reference, wild_gradients
from numpy.testing import assert_array_equal

import adamas
from adamas import _fallback, rules
from adamas._memory import kernel_name
from adamas._native import engine

pytestmark = pytest.mark.skipif(engine is None, reason="adamas was installed without its engine")

STEPS = 50
LENGTHS = [*range(131), 10_007]


@pytest.fixture
def isa():
    """Put back the instruction set and the number of threads that a test changes."""
    before = engine.isa()
    yield engine.use_isa
    engine.use_isa(before)
    adamas.set_num_threads(None)


def test_the_engine_has_the_rules_of_the_specification_by_the_same_names():
    kernels = engine.rules()
    written = {name: rule for name, rule in rules.RULES.items() if "change" in vars(rule)}
    assert list(kernels) == list(written)
    for name, rule in written.items():
        assert kernels[name] == (list(rule.state_names), list(rule().coefficients(1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("case", ELEMENTWISE)
def test_bits_of_every_length_alone(isa, case, decay, dtype):
    """Each length in a call of its own, too short for a second thread: the prefix of one reference."""
    rng = np.random.default_rng(1)
    optimizer = make(case, **DECAYS[decay])
    p = rng.standard_normal(max(LENGTHS)).astype(dtype)
    gradients = wild_gradients(rng, STEPS, p.size, dtype)
    expected = reference(optimizer, p, gradients)
    for level in ISA_LEVELS:
        isa(level)
        for n in LENGTHS:
            run = EngineSteps(optimizer, [p[:n].copy()])
            for g in gradients:
                run.step([g[:n]])
            for actual, wanted in zip((run.params[0], *run.state[0]), expected, strict=True):
                assert_array_equal(actual, wanted[:n], err_msg=f"{level}, length {n}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("case", ELEMENTWISE)
def test_bits_of_many_arrays_in_one_call(isa, case, decay, dtype):
    """Enough elements for eight threads, cut inside and between arrays."""
    rng = np.random.default_rng(2)
    optimizer = make(case, **DECAYS[decay])
    lengths = [*LENGTHS, 60_000, 1, 65_537, *LENGTHS]
    ends = np.cumsum(lengths)
    p = rng.standard_normal(ends[-1]).astype(dtype)
    gradients = wild_gradients(rng, STEPS, p.size, dtype)
    expected = [np.split(whole, ends[:-1]) for whole in reference(optimizer, p, gradients)]
    for level in ISA_LEVELS:
        isa(level)
        for threads in (1, 2, 8):
            adamas.set_num_threads(threads)
            run = EngineSteps(optimizer, [part.copy() for part in np.split(p, ends[:-1])])
            for g in gradients:
                run.step(np.split(g, ends[:-1]))
            for i, (param, state) in enumerate(zip(run.params, run.state, strict=True)):
                for actual, wanted in zip((param, *state), expected, strict=True):
                    assert_array_equal(actual, wanted[i], err_msg=f"{level}, {threads} threads, array {i}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", RULES)
def test_bits_beyond_the_caches(isa, case, dtype):
    """More than a million elements per thread."""
    rng = np.random.default_rng(3)
    optimizer = make(case, weight_decay=0.01)
    p = rng.standard_normal(2_200_077, dtype)
    gradients = [rng.standard_normal(p.size, dtype) for _ in range(2)]
    expected = reference(optimizer, p, gradients)
    for level in ISA_LEVELS:
        isa(level)
        for threads in (1, 2):
            adamas.set_num_threads(threads)
            run = EngineSteps(optimizer, [p.copy()])
            for g in gradients:
                run.step([g])
            for actual, wanted in zip((run.params[0], *run.state[0]), expected, strict=True):
                assert_array_equal(actual, wanted, err_msg=f"{level}, {threads} threads")


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("case", ELEMENTWISE)
def test_bits_of_runs_side_by_side(isa, case, decay):
    """Each with coefficients of its own: the bits of the specification, and of each run alone."""
    rng = np.random.default_rng(5)
    for runs, size in ((1, 3), (2, 2), (7, 1), (8, 5), (19, 4)):
        rates = 10.0 ** rng.uniform(-4, 0, runs)
        each = [make(case, rate, **DECAYS[decay]) for rate in rates]
        rule, kernel = each[0].rule, kernel_name(each[0].rule)
        start = rng.standard_normal((size, runs))
        gradients = [g.reshape(size, runs) for g in wild_gradients(rng, 12, size * runs, np.float64)]
        alone = [reference(opt, start[:, i], [g[:, i] for g in gradients]) for i, opt in enumerate(each)]
        for level in (*ISA_LEVELS, None):
            p, *state = start.copy(), *(np.zeros_like(start) for _ in rule.state_names)
            carries = [dict[str, float]()] * runs
            for t, g in enumerate(gradients, 1):
                c = [vars(opt.at(t, carry)) for opt, carry in zip(each, carries, strict=True)]
                carries = [{name: numbers[name] for name in rule.first_carry} for numbers in c]
                names = (*rule().coefficients(1), "l2", "decay", "frozen")
                numbers = np.array([[of[name] for of in c] for name in names], float)
                if level is None:
                    _fallback.step_columns(kernel, numbers, p, g, tuple(state))
                else:
                    isa(level)
                    engine.step_columns(kernel, numbers, p, g, tuple(state))
            for i, expected in enumerate(alone):
                for actual, wanted in zip((p, *state), expected, strict=True):
                    assert_array_equal(actual[:, i], wanted, err_msg=f"{level}, run {i} of {runs}")


def test_runs_side_by_side_refuse_other_arrays():
    p, numbers = np.ones((2, 3)), np.ones((9, 3))
    for wrong in ((numbers[:8], p, p, (p, p)), (numbers, p, p[:1], (p, p)), (numbers, p, p, (p,)),
                  (numbers, p.astype(np.float32), p, (p, p)), (numbers, p.T, p, (p, p)), (numbers, p, p, (p, [1.0])),
                  (numbers[:, :0].T, p, p, (p, p)), (numbers, [1.0], p, (p, p))):  # fmt: skip
        with pytest.raises(ValueError, match="numbers"):
            engine.step_columns("Adam", *wrong)
    assert (p == 1).all()


@pytest.mark.parametrize("scale", [-1.0, 1 / 1024, 0.3])
@pytest.mark.parametrize("case", RULES)
def test_bits_of_a_scaled_gradient(isa, case, scale):
    """Maximization is a scale of -1."""
    rng = np.random.default_rng(4)
    optimizer = make(case, weight_decay=0.01)
    start = rng.standard_normal(1000).astype(np.float32)
    gradients = wild_gradients(rng, 5, start.size, np.float32)
    for level in ISA_LEVELS:
        isa(level)
        p, q = start.copy(), start
        state, expected = (tuple(np.zeros_like(p) for _ in optimizer.rule.state_names) for _ in range(2))
        kernel = next(cls.__name__ for cls in optimizer.rule.__mro__ if "change" in vars(cls))
        plan = engine.Plan(kernel, [(0, p, state, False)], None, 0, optimizer.plan_options)
        for t, g in enumerate(gradients, start=1):
            numbers, stages = optimizer.rule.numbers_at(optimizer._hyperparameters[0], t)
            stages = stages._replace(scale=scale)
            assert plan.run([p], [g], (numbers,), (stages,), t, None)
            with adamas.flush_denormals(), np.errstate(all="ignore"):
                q, *expected = rules.step(optimizer.rule, np, rules.named(numbers, stages), q, g, *expected)
            for actual, wanted in zip((p, *state), (q, *expected), strict=True):
                assert_array_equal(actual, wanted, err_msg=f"{level}, step {t}")


def test_wild_gradients_flush():
    """The bit tests are worth something only if results are flushed in them."""
    g = np.concatenate(wild_gradients(np.random.default_rng(1), STEPS, 1000, np.float32))
    with np.errstate(under="ignore"):
        squares = g * g
    assert ((squares > 0) & (squares < np.finfo(np.float32).tiny)).sum() > 1000
    assert np.ptp(np.log10(np.abs(g[g != 0]))) > 20


def test_special_numbers_have_the_same_bits(isa):
    """Infinities, NaN and the ends of the range, as parameters and as gradients."""
    for dtype in DTYPES:
        info = np.finfo(dtype)
        special = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, info.eps], dtype)
        p, g = (a.ravel() for a in np.meshgrid(special, special))
        for case in RULES:
            for decay in DECAYS.values():
                optimizer = make(case, **decay, **({"epsilon": 0.0} if "epsilon" in make(case).ranges else {}))
                expected = reference(optimizer, p, [g, -g, g])
                for level in ISA_LEVELS:
                    isa(level)
                    run = EngineSteps(optimizer, [p.copy()])
                    for gradient in (g, -g, g):
                        run.step([gradient])
                    for actual, wanted in zip((run.params[0], *run.state[0]), expected, strict=True):
                        assert_array_equal(actual, wanted, err_msg=f"{case} {level}")


def test_a_plan_that_does_not_fit_is_refused():
    p, options, stages = np.ones(3), (False, False, False, False, 0), (rules.Stages(),)
    with pytest.raises(ValueError, match="no rule 'Nadam'"):
        engine.Plan("Nadam", [(0, p, (), False)], [], 0, options)
    with pytest.raises(ValueError, match="options: "):
        engine.Plan("SGD", [(0, p, (), False)], [], 0, ())
    for state in (np.zeros((3, 2))[:, 0], np.zeros(4), np.zeros(3, np.float32), np.zeros(3, np.int64)):
        with pytest.raises(ValueError, match="state arrays that are dense"):
            engine.Plan("Momentum", [(0, p, (state,), False)], [], 0, options)
    with pytest.raises(ValueError, match="does not run 'x87'"):
        engine.use_isa("x87")
    plan = engine.Plan("SGD", [(0, p, (), False)], [], 0, options)
    with pytest.raises(ValueError, match="coefficients"):
        plan.run([p], [p], ({},), stages, 1, None)
    with pytest.raises(RuntimeError, match="already"):
        plan.run([p], [p.copy()], ({"learning_rate": 1.0},), stages, 2, None)


@pytest.mark.parametrize("level", ISA_LEVELS)
def test_traffic_leaves_memory_as_it_was(level):
    engine.use_isa(level)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, size, dtype=np.uint8) for size in (3_000_001, 750_000, 64, 7, 0)]
    before = [x.copy() for x in arrays]
    passes = [[[(x, False) for x in arrays]], [[(arrays[0], True), (arrays[1], True)], [(x, True) for x in arrays[2:]]]]
    for threads in (1, 2):
        adamas.set_num_threads(threads)
        engine.Traffic(passes).run()
    for x, unchanged in zip(arrays, before, strict=True):
        assert_array_equal(x, unchanged)


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros((4, 4), np.uint8).T[1:], b"abc"])
def test_traffic_refuses_other_arrays(wrong):
    with pytest.raises(ValueError, match="arrays of uint8"):
        engine.Traffic([[[(wrong, True)]]])
