"""Optimizers on arrays: any tree and layout gives the specification's bits; bad input changes nothing."""

import collections
import copy
import pickle
import sys
import threading
import warnings

import numpy as np
import pytest
from harness import ELEMENTWISE, RULES, make, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import DTYPES, SHAPES, layouts, trees

import adamas
from adamas import Adam, AdamW, Momentum, _tree, schedules

# --- properties -------------------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(sorted(RULES)), SHAPES, DTYPES, DTYPES)
def test_any_layout_gives_the_bits_of_a_contiguous_array(data, case, shape, dtype, gradient_dtype):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    start = rng.standard_normal(shape).astype(dtype)
    gradients = [rng.standard_normal(shape).astype(gradient_dtype) for _ in range(3)]
    optimizer = make(case, weight_decay=0.1)
    p = data.draw(layouts(shape, dtype))
    p[...] = start
    # Steps that look at whole arrays add in the order of memory, so that the last bit of their sums depends on it.
    in_memory = sorted(range(p.ndim), key=lambda axis: -abs(p.strides[axis]))
    new = reference(optimizer, start.transpose(in_memory), [g.transpose(in_memory) for g in gradients])
    expected, *state = (x.transpose(np.argsort(in_memory)) for x in new)
    for g in gradients:
        layout = data.draw(layouts(shape, gradient_dtype))
        layout[...] = g
        assert optimizer.update(p, layout) is p
        assert_array_equal(layout, g)
    assert_array_equal(p, expected)
    for name, wanted in zip(optimizer.rule.state_names, state, strict=True):
        assert_array_equal(optimizer.state[""][name], wanted)


@given(trees(st.floats(-10, 10)), st.sampled_from(sorted(ELEMENTWISE)), st.booleans())
def test_any_tree_gives_the_bits_of_its_leaves(tree, case, copied):
    """Floats as floats, and as arrays; in place and copied."""
    values = [value for _, value in _tree.leaves(tree)]
    gradients = [np.cos(np.arange(len(values)) + step) for step in range(3)]
    expected = reference(make(case), np.array(values, float), gradients)[0].tolist()

    def grown(leaves):
        return _tree.replace(tree, iter(leaves), in_place=False)

    floats, of_floats = make(case), grown(values)
    arrays, of_arrays = make(case), grown([np.full(3, value) for value in values])
    before = copy.deepcopy(of_floats)
    for step, g in enumerate(gradients):
        new = floats.update(of_floats, grown(g.tolist()), copy=copied)
        if copied and step == 0:
            assert of_floats == before
        if isinstance(tree, list | dict):
            assert (new is of_floats) != copied
        of_floats = new
        of_arrays = arrays.update(of_arrays, grown([np.full(3, value) for value in g]), copy=copied)
    assert [value for _, value in _tree.leaves(of_floats)] == expected
    assert all(type(value) is float for _, value in _tree.leaves(of_floats))
    for (_, array), value in zip(_tree.leaves(of_arrays), expected, strict=True):
        assert_array_equal(array, np.full(3, value))
    assert floats.t == arrays.t == 3


@given(trees(st.just(0.0)))
def test_paths_tell_all_leaves_apart(tree):
    paths = [_tree.path(keys) for keys, _ in _tree.leaves(tree)]
    assert len(set(paths)) == len(paths)


@given(st.lists(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.none()), max_size=3).map(tuple))
def test_different_keys_have_different_paths(keys):
    others = [tuple(str(key) for key in keys), (*keys, 0), ("0", *keys), (".".join(map(str, keys)),)]
    for other in others:
        assert (_tree.path(keys) == _tree.path(other)) == (repr(keys) == repr(other))


def test_paths():
    assert _tree.path(("layer", 0, "w.x", "0", "", (1, 2))) == "layer.0.w\\.x.'0'.''.<(1, 2)>"


# --- what the tutorial writes -----------------------------------------------------------------------------------------


def test_two_variables():
    adam = Adam(0.001, 0.9, 0.999, 1e-8)
    x, y = 1.0, -2
    x, y = adam.update([x, y], [0.5, -3])
    assert [x, y] == pytest.approx([0.999, -1.999], abs=1e-9)


def test_dicts_of_floats():
    params = {"w": 0.1, "b": 0.2}
    assert Adam(0.1).update(params, {"b": 1.0, "w": -1.0}) is params
    assert params == pytest.approx({"w": 0.2, "b": 0.1})
    adam = Adam(0.1)
    for _ in range(2):  # the second step is the engine's own walk
        adam.update(params, [1.0, -1.0])
    assert params == pytest.approx({"w": 0.0, "b": 0.3}, abs=1e-6)


def test_a_list_of_gradients_follows_the_order_of_the_dict_at_hand():
    adam = Adam(0.1)
    adam.update({"w": 0.0, "b": 0.0}, [1.0, -1.0])
    assert adam.update({"b": 0.0, "w": 0.0}, [-1.0, 1.0]) == pytest.approx({"b": 0.1, "w": -0.1})


def test_weights_as_lists_of_rows_and_dicts_keyed_by_integers():
    weights = {2: [[0.1, 0.2], [0.3, 0.4]], 1: [0.5]}
    adam = Adam(0.1)
    for _ in range(2):
        adam.update(weights, {1: [1.0], 2: [[1.0, -1.0], [1.0, -1.0]]})
    assert weights[2][0] == pytest.approx([-0.1, 0.4])
    assert weights[2][1] == pytest.approx([0.1, 0.6])
    assert weights[1] == pytest.approx([0.3])


# --- the parts of the interface ---------------------------------------------------------------------------------------


def test_numpy_scalars_come_back_as_they_were():
    adam = Adam(0.1)
    params = [np.float32(1), np.float64(2), 3, np.array(4.0)]
    for _ in range(2):
        params = adam.update(params, [1.0, np.float32(1), np.array(1.0), np.array(1.0)])
        assert [type(value) for value in params] == [np.float32, np.float64, float, np.ndarray]
    assert np.array(params) == pytest.approx([0.8, 1.8, 2.8, 3.8])


def test_a_gradient_of_none_leaves_its_parameter_and_state_alone():
    def tree():
        return {"a": np.ones(3), "b": 1.0, "c": 2.0, "d": np.float32(1)}

    adam, params = Adam(), tree()
    full = {"a": np.full(3, 2.0), "b": 3.0, "c": 4.0, "d": 1.0}
    adam.update(params, full)
    was, state = copy.deepcopy(params), copy.deepcopy({path: dict(s) for path, s in adam.state.items()})
    adam.update(params, dict.fromkeys(full))
    assert_array_equal(params.pop("a"), was.pop("a"))
    assert params == was
    for path, values in state.items():
        for name, value in values.items():
            assert_array_equal(adam.state[path][name], value)
    params["a"] = np.ones(3)
    adam.update(params, {**full, "b": None})
    assert params["b"] == was["b"]
    assert params["c"] != was["c"]
    assert adam.t == 3


def test_named_tuples_and_other_registered_nodes():
    Weights = collections.namedtuple("Weights", "w b")
    adam = Adam(0.1)
    params = Weights(np.zeros(2), collections.deque([1.0]))
    for _ in range(2):
        params = adam.update(params, Weights(np.ones(2), collections.deque([1.0])))
    assert isinstance(params, Weights)
    assert params.w == pytest.approx([-0.2, -0.2])
    assert list(params.b) == pytest.approx([0.8])
    assert list(adam.state) == ["0", "1.0"]
    ordered = collections.OrderedDict(b=1.0, a=2.0)
    assert Adam(0.1).update(ordered, [1.0, -1.0]) is ordered
    assert ordered == pytest.approx({"b": 0.9, "a": 2.1})


def test_state_is_visible_and_cannot_be_written():
    opt = adamas.AMSGrad()
    assert opt.state == {}
    params = {"w": np.ones((2, 3), np.float32), "b": 1.0}
    opt.update(params, {"w": np.ones((2, 3), np.float32), "b": 2.0})
    assert list(opt.state) == ["w", "b"]
    assert list(opt.state["w"]) == ["m", "v", "v_max"]
    assert opt.state["w"]["m"].shape == (2, 3)
    assert opt.state["w"]["m"].dtype == np.float32
    assert opt.state["b"]["m"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="read-only"):
        opt.state["w"]["m"][0, 0] = 5
    with pytest.raises(TypeError):
        opt.state["b"]["m"] = 5


def test_hyperparameters_may_be_functions_of_the_step_and_be_assigned():
    seen = []

    def rate(step):
        seen.append(step)
        return [0.1, 0.2, 0.4][step]

    sgd = adamas.SGD(rate)
    assert [sgd.update(1.0, 1.0) for _ in range(3)] == [0.9, 0.8, 0.6]
    assert seen == [0, 1, 2]
    sgd.learning_rate = 0.5
    assert sgd.update(1.0, 1.0) == 0.5
    momentum = Momentum(1.0, momentum=schedules.Linear(0.0, 0.5, 1))
    assert [momentum.update(0.0, 1.0) for _ in range(3)] == [-1.0, -1.5, -1.75]
    decayed = adamas.SGD(0.0, weight_decay=lambda step: step, decoupled=False)
    decayed.learning_rate = 1.0
    assert [decayed.update(1.0, 0.0), decayed.update(1.0, 0.0)] == [1.0, 0.0]


def test_a_constant_schedule_is_the_number():
    gradients = np.random.default_rng(0).standard_normal((5, 10))
    for case in RULES:
        constant, scheduled = make(case), make(case, learning_rate=schedules.Constant(make(case).learning_rate))
        p, q = np.ones(10), np.ones(10)
        for g in gradients:
            constant.update(p, g)
            scheduled.update(q, g)
        assert_array_equal(p, q)


def test_groups_change_hyperparameters_by_path_and_the_first_match_wins():
    opt = adamas.SGD(
        1.0, groups=[("*.bias", {"learning_rate": 0.5}), ("out.*", {"learning_rate": lambda step: 0.25 * (step + 1)})]
    )
    params = {"in": {"weight": np.zeros(2), "bias": 0.0}, "out": {"weight": 0.0, "bias": np.zeros(1)}}
    grads = {"in": {"weight": -np.ones(2), "bias": -1.0}, "out": {"weight": -1.0, "bias": -np.ones(1)}}
    for _ in range(2):
        opt.update(params, grads)
    assert params["in"]["weight"].tolist() == [2.0, 2.0]
    assert params["in"]["bias"] == 1.0
    assert params["out"]["weight"] == 0.75
    assert params["out"]["bias"].tolist() == [1.0]


def test_groups_may_be_assigned_between_steps_and_the_state_stays():
    opt, plain = Momentum(1.0), Momentum(1.0)
    params, others = {"a": 0.0, "b": 0.0, "c": np.zeros(2)}, {"a": 0.0, "b": 0.0, "c": np.zeros(2)}
    grads = {"a": 1.0, "b": 2.0, "c": np.ones(2)}
    opt.update(params, grads)
    plain.update(others, grads)
    opt.groups = [("a", {"momentum": 0.9})]  # as before
    opt.update(params, grads)
    plain.update(others, grads)
    assert params.pop("c").tolist() == others.pop("c").tolist()
    assert params == others


def test_a_pattern_that_matches_nothing_warns():
    opt = Adam(groups=[("*.offset", {"weight_decay": 0.0})])
    with pytest.warns(UserWarning, match=r"no parameter matches '\*\.offset'; paths are 'layer.bias'"):
        opt.update({"layer": {"bias": 1.0}}, {"layer": {"bias": 1.0}})


def test_reset_forgets():
    adam = Adam()
    first = adam.update([1.0], [2.0])[0]
    adam.update([1.0], [-1.0])
    adam.reset()
    assert (adam.t, dict(adam.state)) == (0, {})
    assert adam.update([1.0], [2.0])[0] == first
    adam.reset()
    adam.update({"other": np.ones(3)}, {"other": np.ones(3)})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda opt: pickle.loads(pickle.dumps(opt))])
@pytest.mark.parametrize("case", RULES)
def test_copies_are_independent_and_continue_with_the_same_bits(case, duplicate):
    rng = np.random.default_rng(0)
    params = {"w": np.asfortranarray(rng.standard_normal((3, 4))), "b": 0.5}
    opt = make(case, groups=[("b", {"weight_decay": 0.1})])

    def grads():
        return {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal()}

    opt.update(params, grads())
    twin, others = duplicate(opt), copy.deepcopy(params)
    for _ in range(3):
        g = grads()
        opt.update(params, g)
        twin.update(others, g)
    assert_array_equal(params["w"], others["w"])
    assert params["b"] == others["b"]
    assert opt.t == twin.t == 4
    twin.update(others, grads())
    assert opt.t == 4


def test_copy_leaves_the_parameters():
    params = {"w": np.ones(3), "inner": [1.0, (2.0, np.ones(2))]}
    kept = copy.deepcopy(params)
    grads = {"w": np.ones(3), "inner": [1.0, (2.0, np.ones(2))]}
    opt, other = Adam(), Adam()
    best, new = params, params
    for _ in range(3):
        new = opt.update(new, grads, copy=True)
        other.update(kept, grads)
    assert best is params
    assert params["inner"][0] == 1.0
    assert params["w"].tolist() == [1, 1, 1]
    assert_array_equal(new["w"], kept["w"])
    assert new["inner"][0] == kept["inner"][0]
    with pytest.raises(ValueError, match="the same array"):
        Adam().update([params["w"], params["w"]], [np.ones(3), np.ones(3)], copy=True)


def test_new_parameter_arrays_at_each_step():
    """The plan follows arrays that move, as long as their shapes stay."""
    opt, p = Adam(), np.linspace(0, 1, 5)
    still = p.copy()
    other = Adam()
    for _ in range(4):
        p = opt.update({"w": p.copy()}, {"w": np.ones(5)})["w"]
        other.update(still, np.ones(5))
    assert_array_equal(p, still)


def test_views_whose_extents_interleave_do_not_share_memory():
    table = np.zeros((5, 2))
    opt = adamas.SGD(1.0)
    for _ in range(2):
        opt.update([table[:, 0], table[:, 1]], [-np.ones(5), np.ones(5)])
    assert_array_equal(table, np.tile([2.0, -2.0], (5, 1)))


def test_an_optimizer_that_is_in_an_update_refuses_another_thread():
    inside, leave = threading.Event(), threading.Event()

    def rate(step):
        inside.set()
        assert leave.wait(30)
        return 1.0

    opt, p, result = adamas.SGD(rate), np.zeros(3), []
    thread = threading.Thread(target=lambda: result.append(opt.update(p, np.ones(3))))
    thread.start()
    assert inside.wait(30)
    with pytest.raises(RuntimeError, match="in an update already"):
        opt.update(p, np.ones(3))
    leave.set()
    thread.join()
    assert result[0] is p
    assert opt.t == 1
    assert p.tolist() == [-1, -1, -1]


@pytest.fixture
def restless():
    """Threads of Python change places whenever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("size", [10] * 60 + [300_000])  # large arrays are stepped while other threads run
def test_threads_that_share_an_optimizer_take_whole_steps_or_none(size, restless):
    opt, p, g = adamas.SGD(1.0), np.zeros(size), np.full(size, -1.0)
    refused, together = [], threading.Barrier(3)

    def work():
        together.wait()
        for _ in range(50):
            try:
                opt.update(p, g)
            except RuntimeError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opt.t == 150 - len(refused)
    assert (p == opt.t).all()


def test_two_optimizers_in_two_threads_give_the_bits_of_serial_runs():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((20, 200_000)).astype(np.float32)
    results = [np.zeros(200_000, np.float32) for _ in range(4)]

    def work(p):
        opt = Adam()
        for g in gradients:
            opt.update(p, g)

    threads = [threading.Thread(target=work, args=(p,)) for p in results[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(results[3])
    for p in results[:3]:
        assert_array_equal(p, results[3])


# --- bad input --------------------------------------------------------------------------------------------------------

ones = np.ones(3)
shared = np.ones(4)
frozen = np.ones(3)
frozen.flags.writeable = False

BAD_TREES = {
    "missing key": ({"w": 1.0, "b": 2.0}, {"w": 1.0}, ValueError, r"grads has no 'b', which params has"),
    "extra key": ({"w": 1.0}, {"w": 1.0, "c": 2.0}, ValueError, r"grads has 'c', which params has not"),
    "short list": ([1.0, 2.0], [1.0], ValueError, r"grads has 1 entries but params has 2"),
    "list for inner dict": ([{"w": 1.0}], [[1.0]], ValueError, r"grads\[0\] is a list but params\[0\] is a dict"),
    "array for list": ([1.0, 2.0], np.ones(2), ValueError, r"grads is an array of shape \(2,\) but params is a list"),
    "dict for list": ([1.0], {0: 1.0}, ValueError, r"grads is a dict but params is a list"),
    "shape": (
        {"w": ones},
        {"w": np.ones(4)},
        ValueError,
        r"grads\['w'\] has shape \(4,\), but params\['w'\] has shape",
    ),
    "broadcastable": ([ones], [np.ones((1, 3))], ValueError, r"grads\[0\] has shape \(1, 3\)"),
    "list for array": (ones, [1.0, 2.0, 3.0], TypeError, r"grads is \[1.0, 2.0, 3.0\], a list, but params is an array"),
    "integers": ({"w": np.ones(3, int)}, {"w": ones}, TypeError, r"params\['w'\] is int64: .*astype\('float32'\)"),
    "objects": ([np.ones(3, object)], [ones], TypeError, r"params\[0\] is object: .*astype\('float64'\)"),
    "booleans": ([np.ones(3, bool)], [ones], TypeError, r"params\[0\] is bool"),
    "integer gradient": ([ones], [np.ones(3, int)], TypeError, r"grads\[0\] is int64"),
    "longdouble": ([np.ones(3, np.longdouble)], [ones], TypeError, r"params\[0\] is .*: float64, float32, bfloat16"),
    "complex": ([np.ones(3, complex)], [ones], TypeError, r"params\[0\] is complex128: both must be complex"),
    "byte order": ([np.ones(3, ">f8")], [ones], TypeError, r"params\[0\] is float64 in foreign byte order"),
    "gradient's byte order": ([ones], [np.ones(3, ">f8")], TypeError, r"grads\[0\] is float64 in foreign byte order"),
    "read-only": ([frozen], [ones], ValueError, r"params\[0\] is read-only, .*params\[0\].copy\(\)"),
    "broadcast": ([np.lib.stride_tricks.as_strided(shared, (3,), (0,))], [ones], ValueError, r"elements that share"),
    "bool": ([True], [1.0], TypeError, r"params\[0\] is True, a bool"),
    "bool gradient": ([1.0], [True], TypeError, r"grads\[0\] is True, a bool, but params\[0\] is a float"),
    "string": (["a"], [1.0], TypeError, r"params\[0\] is 'a', a str"),
    "string gradient": ([1.0], ["a"], TypeError, r"grads\[0\] is 'a', a str"),
    "none": ([None], [1.0], TypeError, r"params\[0\] is None"),
    "twice": (
        {"a": shared, "b": shared},
        {"a": np.ones(4), "b": np.ones(4)},
        ValueError,
        r"\['b'\] are the same array",
    ),
    "overlap": ([shared[1:], shared[:-1]], [ones, np.ones(3)], ValueError, r"params\[1\] and params\[0\] share memory"),
    "own gradient": ([shared], [shared], ValueError, r"params\[0\] and grads\[0\] are the same array"),
    "gradient in parameter": ([shared[:3]], [shared[1:]], ValueError, r"params\[0\] and grads\[0\] share memory"),
    "another's gradient": ([shared, ones], [np.ones(4), shared[:3]], ValueError, r"params\[0\] and grads\[1\] share"),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_bad_trees_at_the_first_step_and_later(name):
    """Each beside a good parameter, which must stay as it is, as must the state and the count."""
    bad, bad_grad, error, message = BAD_TREES[name]
    before = copy.deepcopy(bad)
    opt, good = Adam(), np.ones(2)
    with pytest.raises(error, match=message.replace("params", r"params\[1\]").replace("grads", r"grads\[1\]")):
        opt.update([good, bad], [np.ones(2), bad_grad])
    with pytest.raises(error, match=message):
        opt.update(bad, bad_grad)
    assert opt.t == 0
    assert dict(opt.state) == {}
    assert good.tolist() == [1, 1]
    assert_equal_trees(bad, before)


def assert_equal_trees(a, b):
    for (keys, x), (others, y) in zip(_tree.leaves(a), _tree.leaves(b), strict=True):
        assert keys == others
        assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["missing key", "shape", "twice", "own gradient", "gradient in parameter"])
def test_bad_trees_after_good_steps(name):
    """The engine's own walk must decline them, and the state must stay."""
    bad, bad_grad, error, message = BAD_TREES[name]
    good = _tree.replace(bad, (np.array(v) if np.ndim(v) else v for _, v in _tree.leaves(bad)), in_place=False)
    grads = _tree.replace(good, (v * 0.5 for _, v in _tree.leaves(good)), in_place=False)
    opt = Adam()
    for _ in range(2):
        opt.update(good, grads)
    was, kept = copy.deepcopy(good), {path: copy.deepcopy(dict(state)) for path, state in opt.state.items()}
    with pytest.raises(error, match=message):
        opt.update(bad, bad_grad)
    assert opt.t == 2
    assert_equal_trees(good, was)
    assert_equal_trees({path: dict(state) for path, state in opt.state.items()}, kept)
    opt.update(good, grads)
    assert opt.t == 3


def test_parameters_that_differ_from_the_first_step():
    opt = Adam()
    opt.update({"w": np.ones(3), "b": 1.0}, {"w": np.ones(3), "b": 1.0})
    cases = {
        "'w' was an array of float64, shape .3,. and is an array of float64, shape .4,.": {"w": np.ones(4), "b": 1.0},
        "is an array of float32": {"w": np.ones(3, np.float32), "b": 1.0},
        "'b' is gone": {"w": np.ones(3)},
        "'c' is new": {"w": np.ones(3), "b": 1.0, "c": 1.0},
        "'b' was a float and is an array": {"w": np.ones(3), "b": np.ones(())},
    }
    for message, params in cases.items():
        kept = copy.deepcopy(params)
        with pytest.raises(ValueError, match=message) as raised:
            opt.update(params, copy.deepcopy(params))
        assert "reset()" in str(raised.value)
        assert_equal_trees(params, kept)
    assert opt.t == 1


BAD_HYPERPARAMETERS = [
    ({"learning_rate": -1.0}, ValueError, "learning_rate must be finite and at least 0, got -1.0"),
    ({"learning_rate": float("nan")}, ValueError, "learning_rate must be finite and at least 0, got nan"),
    ({"learning_rate": float("inf")}, ValueError, "learning_rate must be finite and at least 0, got inf"),
    ({"learning_rate": "0.1"}, TypeError, "learning_rate must be a number or a function of the step, got '0.1'"),
    ({"learning_rate": True}, TypeError, "learning_rate must be a number"),
    ({"beta1": 1.0}, ValueError, r"beta1 must be in \[0, 1\), got 1.0"),
    ({"beta2": -0.1}, ValueError, r"beta2 must be in \[0, 1\), got -0.1"),
    ({"epsilon": -1e-8}, ValueError, "epsilon must be finite and at least 0, got -1e-08"),
    ({"weight_decay": float("nan")}, ValueError, "weight_decay must be finite"),
    ({"decoupled": 1}, TypeError, "decoupled must be True or False, got 1"),
    ({"groups": [("*", {"beta1": 2})]}, ValueError, r"beta1 must be in \[0, 1\), got 2.0 in groups\[0\]"),
    ({"groups": [("*", {"lr": 2})]}, ValueError, r"Adam has no 'lr' in groups\[0\]: use learning_rate, beta1"),
    ({"groups": ["*.bias"]}, TypeError, r"groups\[0\] must be a pattern and a dict, such as"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_HYPERPARAMETERS)
def test_bad_hyperparameters(bad, error, message):
    with pytest.raises(error, match=message):
        Adam(**bad)
    (name, value) = next(iter(bad.items()))
    adam = Adam()
    before = getattr(adam, name)
    with pytest.raises(error, match=message):
        setattr(adam, name, value)
    assert getattr(adam, name) == before


def test_a_schedule_that_leaves_the_range():
    opt, p = AdamW(lambda step: 0.1 - step), np.ones(2)
    opt.update(p, np.ones(2))
    was = p.copy()
    with pytest.raises(
        ValueError, match=r"learning_rate must be finite and at least 0, got -0\.9 from its schedule at step 1"
    ):
        opt.update(p, np.ones(2))
    assert_array_equal(p, was)
    assert opt.t == 1


def test_misspelt_hyperparameters():
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        Adam(lr=0.1)
    with pytest.raises(AttributeError, match="no hyper-parameter 'learningrate': did you mean 'learning_rate'"):
        Adam().learningrate = 0.1
    with pytest.raises(AttributeError, match="Adam has no hyper-parameter 'foo': it has learning_rate, beta1"):
        Adam().foo = 0.1


def test_numpy_numbers_are_kept_as_floats():
    opt = Adam(np.float32(0.25), beta1=np.float64(0.5), epsilon=1)
    assert [type(value) for value in (opt.learning_rate, opt.beta1, opt.epsilon)] == [float] * 3
    p = np.ones(3, np.float32)
    opt.update(p, np.ones(3, np.float32))
    assert p.dtype == np.float32


def test_empty_trees_and_arrays():
    for params in ([], {}, (), {"a": []}, [np.zeros(0)], np.zeros((3, 0))):
        opt = Adam()
        for _ in range(2):
            assert_equal_trees(opt.update(params, copy.deepcopy(params)), params)
        assert opt.t == 2


def test_a_gradient_may_be_read_only_and_broadcast():
    p = np.zeros((2, 3))
    adamas.SGD(1.0).update(p, np.broadcast_to(np.array([1.0, 2.0, 3.0]), (2, 3)))
    assert_array_equal(p, [[-1, -2, -3]] * 2)


def test_overflow_and_invalid_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = Adam().update(np.ones(3, np.float32), np.array([3e38, np.inf, np.nan], np.float32))
    assert np.isfinite(p[0])


@settings(max_examples=20)
@given(st.integers(1, 40))
def test_the_order_of_a_dict_may_change_between_steps(n):
    keys = [str(i) for i in range(n)]
    opt = adamas.SGD(1.0)
    for order in (keys, keys[::-1], keys):
        params = opt.update({key: float(key) for key in order}, dict.fromkeys(keys, 1.0))
        assert params == {key: float(key) - 1 for key in keys}
