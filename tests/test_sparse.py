"""Sparse gradients: the trajectory of dense steps, to rounding in closed form, to the bit step by step; or lazily."""

import copy
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import RowSparse, _lapses, _sparse, schedules
from adamas._backend import Lapses
from adamas._native import engine
from adamas.rules import RULES, Stages, named, step

CLOSED = [*_lapses.FORMS, "AdamW"]
EXACT = {
    "AdamW": {"weight_decay": 0.02},
    "Adam": {"learning_rate": schedules.Warmup(20, schedules.Cosine(0.02, 60))},
    "Momentum": {"nesterov": True, "weight_decay": 0.1, "decoupled": True},
}


# --- one lapse, against every step in float64 -------------------------------------------------------------------------

BETAS = [(0.9, 0.999), (0.9, 0.99), (0.9, 0.95), (0.95, 0.999), (0.0, 0.999), (0.99, 0.999)]
GAPS = (1, 2, 3, 8, 30, 100, 300, 1000, 3000, 10_000)


def warm_cosine(t):
    """From above 0 up in 1,000 steps, then down."""
    return 1e-3 * min(1.0, (t + 1) / 1000) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, t / 120_000)))


def lapse_errors(rule, start, longest, size=64, **h):
    """Return the errors in spacings after each gap, of closed forms and of dense float32 steps: largest of elements."""
    rng = np.random.default_rng(start)
    opt = getattr(adamas, rule)(**h)
    scale = 10.0 ** rng.uniform(-6, 2, size)
    m = (scale * rng.uniform(-1, 1, size)).astype(np.float32)
    v = (scale**2 * rng.uniform(0.01, 1, size)).astype(np.float32)
    kept = [m, v, v * np.float32(1.5)][: len(opt.rule.state_names)]
    first = rng.standard_normal(size).astype(np.float32)
    lapses = Lapses(_sparse.kernel_name(opt.rule), _sparse.CAPACITY)
    p, *state = (x.astype(np.float64) for x in (first, *kept))
    errors = []
    for gap in range(longest + 1):
        c, stages = opt.rule.numbers_at(opt._hyperparameters[0], start + gap)
        lapses.record(c, stages, start + gap)  # the first one is that in which the row was stepped
        if gap:
            p, *state = step(opt.rule, np, named(c, stages), p, np.zeros(size), *state)
        if gap in GAPS:
            unit = np.spacing(np.maximum(abs(p), abs(p - first)).astype(np.float32))
            pair = []
            for exact in (True, False):
                q, *arrays = ([x.copy()] for x in (first, *kept))
                q, *arrays = (np.array(x) for x in (q, *arrays))
                last = np.ones(1, np.int32)
                lapses.catch_up(q, tuple(arrays), last, None, exact)
                assert last == gap + 1
                pair.append(float((abs(q[0] - p) / unit).max()))
            errors.append(pair)
    return np.array(errors)


def check_lapses(rule, betas, epsilon, decay, schedule, starts):
    """At most 6 spacings; over all gaps from a start no more than dense float32 steps have, or 1.5.

    After single gaps of few steps both have made a few roundings, and either may be ahead: 1.9 beside 1.5 occurs.
    """
    rate = warm_cosine if schedule else 1e-3
    h = {"learning_rate": rate, "beta1": betas[0], "beta2": betas[1], "epsilon": epsilon}
    for start, longest in starts.items():
        with np.errstate(all="ignore"):
            found = lapse_errors(rule, start, longest, weight_decay=decay, decoupled=True, **h)
        assert found[:, 0].max() <= 6, (start, found)
        assert found[:, 0].max() <= max(1.5, found[:, 1].max()), (start, found)


@pytest.mark.parametrize(
    ("epsilon", "decay", "schedule"), [(1e-8, 0.0, False), (1e-3, 0.01, True), (0.0, 0.01, False), (1e-8, 0.01, True)]
)
@pytest.mark.parametrize("betas", BETAS)
def test_a_lapse_is_its_steps_to_rounding(betas, epsilon, decay, schedule):
    check_lapses("Adam", betas, epsilon, decay, schedule, {1: 1000, 10: 300, 1000: 300, 100_000: 3000})


@pytest.mark.parametrize("betas", BETAS[:3])
def test_a_lapse_of_amsgrad_is_its_steps_to_rounding(betas):
    check_lapses("AMSGrad", betas, 1e-8, 0.01, True, {1: 1000, 1000: 300})


@pytest.mark.stress
@pytest.mark.parametrize("rule", ["Adam", "AMSGrad"])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-3, 0.0])
@pytest.mark.parametrize("betas", BETAS)
def test_a_lapse_of_any_length_is_its_steps_to_rounding(betas, epsilon, rule):
    for decay in (0.0, 0.01):
        for schedule in (False, True):
            check_lapses(
                rule, betas, epsilon, decay, schedule, dict.fromkeys((1, 3, 10, 30, 100, 1000, 100_000), 10_000)
            )


@pytest.mark.parametrize("betas", [(0.9, 0.8), (0.99, 0.95), (0.95, 0.5)])
def test_means_that_fade_after_their_squares(betas):
    """Where beta1**2 > beta2 quotients grow until epsilon stops them: the pieces are many."""
    rng = np.random.default_rng(0)
    p = rng.standard_normal((40, 3)).astype(np.float32)
    m, v = (rng.uniform(0.1, 1, p.shape).astype(np.float32) for _ in range(2))
    results = []
    for make in {Lapses, _lapses.Lapses}:
        q, state, last = p.copy(), (m.copy(), v.copy()), np.arange(1, 41, dtype=np.int32)
        lapses = make("Adam", 1000)
        for t in range(1, 500):
            lapses.record(*adamas.Adam(1e-6, *betas).rule.numbers_at(vars(adamas.Adam(1e-6, *betas)), t), t)
        lapses.catch_up(q, state, last, None, True)
        results.append(q)
    assert_allclose(results[0], results[-1], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("rule", _lapses.FORMS)
def test_the_engine_is_the_specification_to_rounding(rule):
    """Also in how the state fades; rows that were never stepped only decay."""
    rng = np.random.default_rng(0)
    opt = getattr(adamas, rule)(0.01, weight_decay=0.1, decoupled=True)
    p = rng.standard_normal((60, 7)).astype(np.float32)
    state = tuple(abs(rng.standard_normal(p.shape)).astype(np.float32) for _ in opt.rule.state_names)
    last = rng.integers(0, 80, 60).astype(np.int32)
    for array in state:
        array[last == 0] = 0
    rows = rng.permutation(60)[:50]
    results = []
    for lapses in (Lapses(rule, 100), _lapses.Lapses(rule, 100)):
        for t in range(1, 81):
            lapses.record(*opt.rule.numbers_at(opt._hyperparameters[0], t), t)
        q, arrays, steps = p.copy(), tuple(x.copy() for x in state), last.copy()
        lapses.catch_up(q, arrays, steps, rows, True)
        assert_array_equal(steps[rows], 80)
        assert_array_equal(q[np.setdiff1d(np.arange(60), rows)], p[np.setdiff1d(np.arange(60), rows)])
        results.append((q, *arrays))
    for ours, wanted in zip(*results, strict=True):
        assert_allclose(ours, wanted, rtol=1e-6, atol=1e-6)


# --- any sequence of steps --------------------------------------------------------------------------------------------

HEIGHT, WIDTH = 12, 5


def play(optimizer, script, *, dense=False, dtype=np.float32, path=None):
    """Return the parameters after a script of steps, and the optimizer."""
    rng = np.random.default_rng(0)
    params = {"table": rng.standard_normal((HEIGHT, WIDTH)).astype(dtype), "bias": np.ones(3, dtype)}
    for what, rows in script:
        values = (rng.standard_normal((len(rows), WIDTH)) * 10.0 ** rng.integers(-4, 2)).astype(np.float32)
        whole, bias = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32), rng.standard_normal(3).astype(dtype)
        sparse = RowSparse(rows, values)
        if what in ("prepare", "flush", "save"):
            if dense:
                continue
            if what == "prepare":
                params = optimizer.prepare(params, {"table": rows, "bias": None})
            elif what == "flush":
                params = optimizer.flush(params)
            elif path is not None:
                optimizer.save(path, params)
                optimizer = type(optimizer).load(path)
                with adamas.Checkpoint(path) as saved:
                    params = saved.params()
            continue
        given = {"sparse": sparse, "dense": whole, "none": None}[what]
        if dense and what == "sparse":
            given = sparse.dense(HEIGHT)
        elif what == "sparse":
            params = optimizer.prepare(params, {"table": rows, "bias": None})
        elif what == "dense":
            given = whole
        params = optimizer.update(params, {"table": given, "bias": bias})
    return (params if dense else optimizer.flush(params)), optimizer


ROWS = st.one_of(
    st.lists(st.integers(0, HEIGHT - 1), max_size=6), st.just(list(range(HEIGHT))), st.just([3, 3, 3]), st.just([])
)
WHAT = st.sampled_from(["sparse"] * 6 + ["dense", "none", "prepare", "flush", "save"])
SCRIPTS = st.lists(st.tuples(WHAT, ROWS.map(lambda rows: np.array(rows, np.int64))), max_size=40)


@given(SCRIPTS, st.sampled_from(CLOSED), st.sampled_from([16, 65_536]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_steps_are_those_on_dense_gradients(tmp_path_factory, script, rule, capacity):
    """In closed form to rounding, saved and loaded to the bit; one by one to the bit."""
    h = EXACT.get(rule, {})
    exact = play(getattr(adamas, rule)(**h), script, dense=True, dtype=np.float64)[0]["table"]
    dense, dense_opt = play(getattr(adamas, rule)(**h), script, dense=True)
    path = tmp_path_factory.mktemp("sparse") / "x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sparse, "CAPACITY", capacity)
        replayed, opt = play(getattr(adamas, rule)(sparse="replay", **h), script, path=path)
        closed, _ = play(getattr(adamas, rule)(**h), script)
        resumed, _ = play(getattr(adamas, rule)(**h), script, path=path)
    for name in ("table", "bias"):
        assert_array_equal(replayed[name], dense[name])
        assert_array_equal(resumed[name], closed[name])
    for name, state in dense_opt.state.items():
        for key, array in state.items():
            assert_array_equal(opt.state[name][key], array)
    own = float(abs(dense["table"] - exact).max())
    unit = float(np.spacing(np.float32(abs(exact).max() + 1)))
    assert abs(closed["table"] - exact).max() <= 4 * own + 32 * unit


@pytest.mark.parametrize("rule", [name for name in RULES if not RULES[name].trust_ratio])
def test_replay_has_the_bits_of_every_rule(rule):
    rng = np.random.default_rng(1)
    script = [("sparse", rng.integers(0, HEIGHT, rng.integers(0, 4))) for _ in range(60)]
    h = {"weight_decay": 0.1, "learning_rate": schedules.Warmup(9, schedules.Cosine(0.01, 50))}
    dense, _ = play(getattr(adamas, rule)(**h), script, dense=True)
    replayed, _ = play(getattr(adamas, rule)(sparse="replay", **h), script)
    assert_array_equal(replayed["table"], dense["table"])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("state_format", ["float32", "bfloat16"])
def test_replay_has_the_bits_of_every_format(dtype, state_format):
    rng = np.random.default_rng(2)
    script = [("sparse", rng.integers(0, HEIGHT, 3)) for _ in range(30)]
    dense, _ = play(adamas.AdamW(0.1, state_format=state_format), script, dense=True, dtype=dtype)
    replayed, _ = play(adamas.AdamW(0.1, state_format=state_format, sparse="replay"), script, dtype=dtype)
    assert_array_equal(replayed["table"], dense["table"])


def test_state_in_bfloat16_fades_in_closed_form():
    rng = np.random.default_rng(3)
    script = [("sparse", rng.integers(0, HEIGHT, 3)) for _ in range(50)]
    wide, _ = play(adamas.AdamW(0.01), script)
    short, opt = play(adamas.AdamW(0.01, state_format="bfloat16"), script)
    assert opt.state["table"]["m"].dtype == ml_dtypes.bfloat16
    assert_allclose(short["table"], wide["table"], atol=0.01)


def test_betas_and_epsilon_may_change():
    rng = np.random.default_rng(4)
    h = {"beta1": lambda t: 0.9 if t < 20 else 0.8, "epsilon": lambda t: 1e-8 if t < 30 else 1e-2}
    script = [("sparse", rng.integers(0, HEIGHT, 2)) for _ in range(60)]
    exact, _ = play(adamas.Adam(0.01, **h), script, dense=True, dtype=np.float64)
    closed, _ = play(adamas.Adam(0.01, **h), script)
    assert_allclose(closed["table"], exact["table"], rtol=2e-6, atol=2e-6)


def test_a_rate_that_grows_late_is_not_missed():
    """What later steps add is judged by the largest rate so far, which may come after a row was looked at."""
    rate = lambda t: 1e-9 if t < 100 else 0.5  # noqa: E731
    script = [("sparse", [0]), *[("sparse", [1])] * 60, ("prepare", [0]), *[("sparse", [1])] * 100]
    script = [(what, np.array(rows)) for what, rows in script]
    h = {"beta1": 0.99, "beta2": 0.9999}
    exact, _ = play(adamas.Adam(rate, **h), script, dense=True, dtype=np.float64)
    closed, _ = play(adamas.Adam(rate, **h), script)
    assert_allclose(closed["table"], exact["table"], rtol=2e-6, atol=2e-6)


@pytest.mark.skipif(engine is None or adamas.engine == "specification", reason="the engine is not in use")
def test_the_bits_depend_neither_on_threads_nor_on_the_instruction_set():
    rng = np.random.default_rng(5)
    first = rng.standard_normal((3000, 40)).astype(np.float32)
    steps = [rng.integers(0, 3000, 2500) for _ in range(6)]
    values = rng.standard_normal((2500, 40)).astype(np.float32)
    before, found = engine.isa(), []
    try:
        for isa in engine.isa_levels():
            for threads in (1, 2, 3):
                engine.use_isa(isa)
                adamas.set_num_threads(threads)
                opt, p = adamas.AdamW(0.01, clip_norm=5.0), first.copy()
                for rows in steps:
                    p = opt.update(opt.prepare(p, rows[:700]), RowSparse(rows[:700], values[:700]))
                found.append((opt.flush(p), opt.grad_norm))
    finally:
        engine.use_isa(before)
        adamas.set_num_threads(None)
    for p, norm in found[1:]:
        assert_array_equal(p, found[0][0])
        assert norm == found[0][1]


def test_many_rows_go_through_the_dense_kernel():
    rng = np.random.default_rng(6)
    p, q = (np.ones((100, 4), np.float32) for _ in range(2))
    opt, dense = adamas.AdamW(0.01), adamas.AdamW(0.01)
    for share in (5, 90, 5, 50, 5):
        rows = rng.permutation(100)[:share]
        g = RowSparse(rows, rng.standard_normal((share, 4)).astype(np.float32))
        p, q = opt.update(opt.prepare(p, rows), g), dense.update(q, g.dense(100))
        if share >= 20:
            assert (opt._memory.tables[""].last == opt._memory.tables[""].lapses.count).all()
    assert_allclose(opt.flush(p), q, rtol=3e-7)


# --- the norm, lazy steps, other libraries ----------------------------------------------------------------------------


def test_the_norm_is_of_the_sums():
    """Of rows that come twice the gradients are added before they are squared."""
    rows, values = [2, 5, 2], np.array([[3.0], [1.0], [-2.0]], np.float32)
    opt, dense = (adamas.SGD(1.0, clip_norm=0.5) for _ in range(2))
    p = opt.update(np.zeros((9, 1), np.float32), RowSparse(rows, values))
    q = dense.update(np.zeros((9, 1), np.float32), RowSparse(rows, values).dense(9))
    assert_array_equal(p, q)
    assert opt.grad_norm == dense.grad_norm == math.sqrt(2)


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_a_step_that_is_not_taken_changes_nothing(nonfinite):
    opt = adamas.AdamW(0.1, nonfinite=nonfinite)
    p = opt.update(np.ones((6, 2), np.float32), RowSparse([1], np.ones((1, 2), np.float32)))
    before, last = p.copy(), opt._memory.tables[""].last.copy()
    bad = RowSparse([1, 1], np.array([[1, np.nan], [1, 1]], np.float32))
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError, match=r"grads has 1 number"):
            opt.update(p, bad)
    else:
        opt.update(p, bad)
    assert_array_equal(p, before)
    assert_array_equal(opt._memory.tables[""].last, last)
    assert opt.t == 1


def test_lazy_steps_leave_the_other_rows_alone():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    p = rng.standard_normal((20, 3)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(p))
    opt, other = adamas.Adam(0.01, sparse="lazy"), torch.optim.SparseAdam([theirs], lr=0.01)
    for _ in range(50):
        rows, values = rng.integers(0, 20, 4), rng.standard_normal((4, 3)).astype(np.float32)
        p = opt.update(p, RowSparse(rows, values))
        with torch.sparse.check_sparse_tensor_invariants():
            theirs.grad = torch.sparse_coo_tensor(torch.tensor(rows)[None], torch.tensor(values), (20, 3))
        other.step()
    assert_allclose(p, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    untouched = np.setdiff1d(np.arange(20), rows)
    before = p.copy()
    opt.update(p, RowSparse(rows, values))
    assert_array_equal(p[untouched], before[untouched])


@pytest.mark.parametrize("library", ["csr", "coo", "csc array", "torch"])
def test_sparse_gradients_of_other_libraries(library):
    rows = np.array([4, 1, 4])
    values = np.array([[1.0, 0, 2], [0, 3, 0], [1, 1, 1]], np.float32)
    ours = RowSparse(rows, values)
    if library == "torch":
        torch = pytest.importorskip("torch")
        with torch.sparse.check_sparse_tensor_invariants():
            theirs = torch.sparse_coo_tensor(torch.tensor(rows)[None], torch.tensor(values), (6, 3))
    else:
        sparse = pytest.importorskip("scipy.sparse")
        make = {"csr": sparse.csr_matrix, "coo": sparse.coo_matrix, "csc array": sparse.csc_array}[library]
        theirs = make(ours.dense(6))
    p, q = (adamas.AdamW(0.1).update(np.ones((6, 3), np.float32), g) for g in (ours, theirs))
    assert_allclose(p, q, rtol=1e-6)


def test_columns_and_deep_tables():
    """A vector is a table of numbers; rows may be arrays."""
    for shape in ((7,), (7, 2, 3), (7, 0)):
        rows, values = [1, 5], np.ones((2, *shape[1:]), np.float32)
        p = adamas.Adam(0.5).update(np.zeros(shape, np.float32), RowSparse(rows, values))
        assert_allclose(p, -0.5 * RowSparse(rows, values).dense(7), rtol=1e-6)


def test_a_copy_of_the_optimizer_has_its_own_rows():
    opt = adamas.AdamW(0.1)
    p = opt.update(np.ones((6, 2), np.float32), RowSparse([1], np.ones((1, 2), np.float32)))
    other, q = copy.deepcopy(opt), p.copy()
    opt.update(opt.prepare(p, [2]), RowSparse([2], np.ones((1, 2), np.float32)))
    other.update(other.prepare(q, [2]), RowSparse([2], np.ones((1, 2), np.float32)))
    assert_array_equal(opt.flush(p), other.flush(q))


# --- bad input --------------------------------------------------------------------------------------------------------

ONE = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    ("rows", "values", "error", "words"),
    [
        ([6], ONE, ValueError, "grads has the row 6, but params has rows 0 to 5"),
        ([-1], ONE, ValueError, "grads has the row -1"),
        ([1, 2], ONE, ValueError, r"values has shape \(1, 2\), and there are 2 rows"),
        ([0.5], ONE, TypeError, "rows is float64: row numbers are integers"),
        ([[1]], ONE, ValueError, r"rows has shape \(1, 1\)"),
        ([True], ONE, TypeError, "rows is bool"),
        ([1], np.ones((1, 2), int), TypeError, "values is int64"),
        ([1], np.ones((1, 2), complex), TypeError, "values is complex128"),
        ([1], np.ones((1, 3), np.float32), ValueError, r"grads has rows of shape \(3,\), but params has rows of shape"),
    ],
)
def test_wrong_rows_change_nothing(rows, values, error, words):
    opt = adamas.AdamW(0.1)
    p = opt.update(np.ones((6, 2), np.float32), RowSparse([1], ONE))
    before = p.copy()
    with pytest.raises(error, match=words):
        opt.update(p, RowSparse(rows, values))
    assert_array_equal(p, before)
    assert opt.t == 1
    if len(np.shape(rows)) == 1 and "values" not in words and "shape" not in words:
        with pytest.raises(error, match=words.replace("grads", "rows")):
            opt.prepare(p, rows)


def test_rows_that_are_behind_are_refused():
    opt = adamas.AdamW(0.1)
    p = {"t": np.ones((6, 2), np.float32)}
    opt.update(p, {"t": RowSparse([1], ONE)})
    opt.update(opt.prepare(p, {"t": [2]}), {"t": RowSparse([2], ONE)})
    with pytest.raises(ValueError, match=r"row 1 of params\['t'\] is behind.* call opt.prepare\(params, rows\)"):
        opt.update(p, {"t": RowSparse([1], ONE)})
    opt.prepare(p, {"t": [1, 1]})
    opt.update(p, {"t": RowSparse([1], ONE)})
    assert opt.t == 3


@pytest.mark.parametrize(
    ("opt", "p", "words"),
    [
        (adamas.Adam(weight_decay=0.1), np.ones((6, 2), np.float32), "weight_decay is coupled.*sparse='replay'"),
        (adamas.SGD(10.0, weight_decay=0.1, decoupled=True), np.ones((6, 2), np.float32), "must be below 1"),
        (adamas.Adam(beta1=0.9, beta2=0.5, epsilon=0.0), np.ones((6, 2), np.float32), "grow without end"),
        (adamas.Lion(), np.ones((6, 2), np.float32), "Lion without a gradient have no closed form"),
        (adamas.Adam(), np.ones((6, 2)), "float64: sparse='exact' is for float32"),
        (adamas.Adam(), np.ones((2, 6), np.float32).T, "not in C order"),
        (adamas.Adam(ema=0.9), np.ones((6, 2), np.float32), "ema is for all numbers"),
        (adamas.Adam(zero_grads=True), np.ones((6, 2), np.float32), "zero_grads is for all"),
        (adamas.Adam(state_format="q8"), np.ones((6, 2), np.float32), "q8.* keeps 256 numbers together"),
        (adamas.Adam(cautious=True), np.ones((6, 2), np.float32), "cautious, update_clip and trust_ratio look"),
        (adamas.Adam(sparse="replay"), np.ones((6, 2), complex), "complex128"),
    ],
)
def test_what_cannot_be_sparse_is_refused(opt, p, words):
    before = p.copy()
    with pytest.raises(ValueError, match=words):
        opt.update(p, RowSparse([1], ONE))
    assert_array_equal(p, before)
    assert opt.t == 0


def test_a_gradient_of_a_float_is_not_sparse():
    with pytest.raises(TypeError, match=r"grads is given, but params is a float: only arrays have rows"):
        adamas.Adam().update(1.0, RowSparse([0], ONE))


def test_a_history_is_refused():
    opt, p = adamas.AdamW(0.1), np.ones((6, 2), np.float32)
    for _ in range(2):  # of the first step, and of a table
        with pytest.raises(ValueError, match="history records whole arrays"):
            opt.update(p, RowSparse([1], ONE), history=adamas.History())
        opt.update(opt.prepare(p, [1]), RowSparse([1], ONE))


def test_other_parameters_are_refused():
    opt = adamas.AdamW(0.1)
    p = {"t": np.ones((6, 2), np.float32)}
    opt.update(p, {"t": RowSparse([1], ONE)})
    with pytest.raises(ValueError, match=r"params has no 't'"):
        opt.flush({"u": p["t"]})
    with pytest.raises(
        ValueError, match=r"params\['t'\] is an array of shape \(6, 3\), but an array of float32, shape"
    ):
        opt.flush({"t": np.ones((6, 3), np.float32)})
    with pytest.raises(ValueError, match="sparse must be 'exact' or 'replay' or 'lazy', got 'dense'"):
        adamas.Adam(sparse="dense")
    with pytest.raises(AttributeError, match="sparse cannot change"):
        opt.sparse = "lazy"


def test_stages_have_nothing_to_do_with_it():
    """A step whose rate is 0 moves nothing, and the means fade all the same."""
    rate = lambda t: 0.0 if t % 2 else 0.1  # noqa: E731
    script = [("sparse", np.array([0]))] + [("sparse", np.array([1]))] * 9
    exact, _ = play(adamas.Adam(rate), script, dense=True, dtype=np.float64)
    closed, _ = play(adamas.Adam(rate), script)
    assert_allclose(closed["table"], exact["table"], rtol=1e-6, atol=1e-6)
    assert Stages().scale == 1
