"""Checkpoints: resuming gives the same bits, a file is whole or refused, and nothing is changed by a refusal."""

import copy
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from harness import RULES, make
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import load_file
from strategies import SHAPES, layouts, trees

import adamas
from adamas import Adam, AdamW, Checkpoint, Momentum, _tensorfile, _tree, schedules
from adamas._formats import COMPLEX, REALS
from adamas._options import FORMATS
from adamas.errors import CheckpointError, CheckpointWarning

ALL_DTYPES = (*REALS, *COMPLEX)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


def random_array(rng, shape, dtype):
    values = rng.standard_normal(shape)
    return np.asarray(values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def random_gradients(params, seed):
    rng = np.random.default_rng(seed)
    leaves = (
        random_array(rng, np.shape(value), getattr(value, "dtype", np.float64)) for _, value in _tree.leaves(params)
    )
    values = (
        g if isinstance(p, np.ndarray) else float(g)
        for g, (_, p) in zip(list(leaves), list(_tree.leaves(params)), strict=True)
    )
    return _tree.replace(params, values, in_place=False)


def assert_same_bits(a, b):
    left, right = list(_tree.leaves(a)), list(_tree.leaves(b))
    assert [keys for keys, _ in left] == [keys for keys, _ in right]
    for (_, x), (_, y) in zip(left, right, strict=True):
        assert type(x) is type(y)
        assert np.asarray(x).dtype == np.asarray(y).dtype
        assert np.shape(x) == np.shape(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def assert_same_optimizer(a, b):
    assert repr(a) == repr(b)
    assert a.t == b.t
    assert a.nonfinite_steps == b.nonfinite_steps
    assert repr(a.grad_norm) == repr(b.grad_norm)
    assert_same_bits(
        {path: dict(state) for path, state in a.state.items()}, {path: dict(state) for path, state in b.state.items()}
    )
    for name in a.extra_names:
        assert_same_bits(getattr(a, name), getattr(b, name))


# --- resuming is bit-exact --------------------------------------------------------------------------------------------


def mixed_params():
    rng = np.random.default_rng(7)
    arrays = {dtype.name: random_array(rng, (3, 5), dtype) for dtype in ALL_DTYPES}
    arrays["float32"] = np.asfortranarray(arrays["float32"])
    arrays["bfloat16"] = random_array(rng, (4, 7, 5), ml_dtypes.bfloat16).transpose(2, 0, 1)
    return {**arrays, "numbers": [0.5, (np.float64(1.5), np.float32(-2)), {"a.b": 1, 0: 2.0}]}


CASES = [
    (case, name) for case in RULES for name in FORMATS["state_format"] if name != "q8" or make(case).rule.state_names
]


@pytest.mark.filterwarnings("ignore:state_format='q8' rounds the state")  # of those whose state should not be rounded
@pytest.mark.parametrize(("case", "state_format"), CASES)
def test_interrupted_at_any_step_equals_never_interrupted(case, state_format, path):
    options = {
        "state_format": state_format, "stochastic_rounding": True, "seed": 3, "ema": schedules.AverageWarmup(0.99),
        "weight_copy": "bfloat16", "clip_norm": 1.0, "nonfinite": "skip", "weight_decay": 0.01,
        "learning_rate": schedules.Warmup(3, schedules.Cosine(0.01, 20)),
        "groups": [("numbers*", {"weight_decay": 0.0})],
    }  # fmt: skip
    try:
        through, resumed = make(case, **options), make(case, **options)
        p, q = mixed_params(), mixed_params()
        through.update(copy.deepcopy(p), random_gradients(p, 0))
    except (TypeError, ValueError):
        if state_format != "q8":
            raise
        p, q = (
            {"w": p["float32"], "large": np.linspace(0, 1, 5000, dtype=np.float32)}
            for p in (mixed_params(), mixed_params())
        )
        options["groups"] = ()
        through, resumed = make(case, **options), make(case, **options)
    else:
        through.reset()
    for step in range(6):
        g = random_gradients(p, step)
        if step == 2:
            next(iter(g.values()))[...] = np.nan
        p, q = through.update(p, copy.deepcopy(g)), resumed.update(q, copy.deepcopy(g))
        resumed.save(path, q, step=step)
        with Checkpoint(path) as saved:
            assert saved.t == through.t
            assert saved.metadata == {"step": step}
            q = saved.params()
        resumed = type(through).load(path)
        assert_same_bits(p, q)
        assert_same_optimizer(through, resumed)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_trees_and_layouts_of_any_kind_come_back(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("trees") / "x"
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)

    def leaf():
        dtype = data.draw(st.sampled_from(ALL_DTYPES))
        array = data.draw(layouts(data.draw(SHAPES), dtype))
        array[...] = random_array(rng, array.shape, dtype)
        return array

    p = data.draw(trees(st.one_of(st.floats(-2, 2), st.builds(leaf))))
    options = {"stochastic_rounding": True, "clip_norm": 0.5, "state_format": "bfloat16"}
    through, resumed = Adam(**options), Adam(**options)
    p = through.update(p, random_gradients(p, 0))
    through.save(path, p)
    resumed.load(path)
    with Checkpoint(path) as saved:
        q = saved.params()
    assert_same_bits(p, q)
    p, q = through.update(p, random_gradients(p, 1)), resumed.update(q, random_gradients(p, 1))
    assert_same_bits(p, q)
    assert_same_optimizer(through, resumed)


@given(st.data(), st.sampled_from(ALL_DTYPES), SHAPES)
@settings(max_examples=60, deadline=None)
def test_safetensors_own_loader_reads_arrays_of_any_layout(tmp_path_factory, data, dtype, shape):
    path = tmp_path_factory.mktemp("layouts") / "x"
    array = data.draw(layouts(shape, dtype))
    array[...] = random_array(np.random.default_rng(0), shape, dtype)
    opt = Adam(ema=0.5)
    array = opt.update(array, np.ones_like(array))
    opt.save(path, array)
    stored = load_file(path)
    expected = {"params/": array, "ema/": opt.ema, "state.m/": opt.state[""]["m"], "state.v/": opt.state[""]["v"]}
    for name, wanted in expected.items():
        found = stored[name]
        found = found[..., 0] + 1j * found[..., 1] if wanted.dtype.kind == "c" else found
        assert_array_equal(np.asarray(wanted), found, strict=wanted.dtype != np.complex64)


def test_the_names_in_the_file_are_the_paths(path):
    params = {"layer": {"weight": np.ones((2, 3)), "bias": np.ones(2)}, "scale": 1.0}
    opt = Adam()
    opt.update(params, random_gradients(params, 0))
    opt.save(path, params, note="ok")
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {
            f"{section}/{name}" for section in ("params", "state.m", "state.v")
            for name in ("layer.weight", "layer.bias", "scale")
        }  # fmt: skip
        about = json.loads(file.metadata()["optimizer"])
    assert (about["rule"], about["t"], about["metadata"]) == ("Adam", 1, {"note": "ok"})


def test_without_any_step_the_parameters_and_the_optimizer_come_back(path):
    opt = AdamW(0.1, ema=0.5)
    opt.save(path, {"w": np.ones(3)})
    again = AdamW.load(path)
    assert_same_optimizer(opt, again)
    with Checkpoint(path) as saved:
        q = saved.params()
    assert_same_bits(opt.update({"w": np.ones(3)}, [np.ones(3)]), again.update(q, [np.ones(3)]))


def test_parameters_are_put_into_what_is_there(path):
    opt, params = Adam(), {"w": np.ones((2, 3)), "x": [1.0]}
    opt.update(params, random_gradients(params, 0))
    opt.save(path, params)
    target = {"w": np.asfortranarray(np.zeros((2, 3))), "x": [0.0]}
    w = target["w"]
    with Checkpoint(path) as saved:
        assert saved.params(target) is target
    assert target["w"] is w
    assert_same_bits(target, params)


# --- hyper-parameters -------------------------------------------------------------------------------------------------

SCHEDULES = st.recursive(
    st.one_of(
        st.builds(schedules.Constant, st.floats(0, 1)),
        st.builds(schedules.Linear, st.floats(0, 1), st.floats(0, 1), st.integers(1, 9)),
        st.builds(schedules.Exponential, st.floats(0, 1), st.floats(0.1, 2)),
        st.builds(schedules.Cosine, st.floats(0, 1), st.integers(1, 9)),
    ),
    lambda inner: st.builds(schedules.Warmup, st.integers(1, 9), inner),
    max_leaves=3,
)


@given(SCHEDULES)
@settings(max_examples=30, deadline=None)
def test_schedules_are_stored_by_name_and_arguments(tmp_path_factory, schedule):
    path = tmp_path_factory.mktemp("schedules") / "x"
    Adam(schedule, groups=[("*", {"beta1": schedules.Constant(0.5)})]).save(path)
    again = Adam.load(path)
    assert again.learning_rate == schedule
    assert again.groups == (("*", {"beta1": schedules.Constant(0.5)}),)


def test_a_function_of_your_own_must_be_given_again(path):
    def rate(step):
        return 0.1 / (1 + step)

    opt = Adam(rate, ema=0.5)
    opt.update(np.ones(3), np.ones(3))
    opt.save(path)
    with pytest.raises(
        CheckpointError, match=r"learning_rate was a function, .*rate.*load\(path, learning_rate=\.\.\.\)"
    ):
        Adam.load(path)
    assert Adam.load(path, learning_rate=rate).learning_rate is rate
    assert Adam(rate).load(path).option("ema") == 0.5
    Adam(groups=[("*", {"beta1": rate})]).save(path)
    with pytest.raises(CheckpointError, match="groups was a function"):
        Adam.load(path)
    assert Adam.load(path, groups=[]).groups == ()


def test_metadata_must_be_json(path):
    with pytest.raises(TypeError, match="seen must be of what JSON holds"):
        Adam().save(path, seen={1, 2})
    assert not path.exists()


# --- what does not fit is refused and changes nothing -----------------------------------------------------------------


def stepped(params, cls=Adam, **options):
    opt = cls(**options)
    opt.update(params, random_gradients(params, 0))
    return opt


def refused(opt, path, match, params=None):
    before = copy.deepcopy(opt)
    with pytest.raises(CheckpointError, match=match):
        opt.load(path, params)
    assert_same_optimizer(before, opt)


def test_another_rule_is_refused(path):
    stepped({"w": np.ones(3)}, Momentum).save(path)
    refused(stepped({"w": np.ones(3)}), path, "holds the state of Momentum, not of Adam")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"w": np.ones((3, 2)), "b": np.ones(2)},
            r"'w' is an array of float64, shape \(2, 3\), not an array of float64, shape \(3, 2\)",
        ),
        ({"w": np.ones((2, 3), np.float32), "b": np.ones(2)}, "'w' is an array of float64.*not an array of float32"),
        ({"w": np.ones((2, 3)), "bias": np.ones(2)}, "'bias' is missing, but there is 'b', which is like it"),
        ({"w": np.ones((2, 3))}, "'b' is not expected"),
        ({"w": np.ones((2, 3)), "b": np.ones(2), "c": 1.0}, "'c' is missing"),
        ({"w": np.ones((2, 3)), "b": 1.0}, "'b' is an array of float64, shape .2,., not a float"),
    ],
)
def test_other_parameters_are_refused_and_listed(other, words, path):
    params = {"w": np.ones((2, 3)), "b": np.ones(2)}
    stepped(params).save(path, params)
    refused(stepped(other), path, words)
    refused(Adam(), path, words, other)
    kept = copy.deepcopy(other)
    with Checkpoint(path) as saved, pytest.raises(CheckpointError, match=words):
        saved.params(other)
    assert_same_bits(kept, other)
    with pytest.raises(ValueError, match="params is not what the optimizer steps"):
        stepped(params).save(path, other)


def test_what_matches_is_loaded_and_the_rest_reported(path):
    opt = stepped({"w": np.ones(3), "old": np.ones(2)})
    opt.save(path)
    with pytest.warns(CheckpointWarning, match="loaded in part: 'new' is missing.*'old' is not expected"):
        again = Adam.load(path, {"w": np.ones(3), "new": np.ones(4)}, strict=False)
    assert again.t == 1
    assert_same_bits(dict(again.state["w"]), dict(opt.state["w"]))
    assert not again.state["new"]["m"].any()
    with pytest.warns(CheckpointWarning, match=r"'state.v_max/old' is missing"):
        again = adamas.AMSGrad.load(path, strict=False)
    assert_same_bits(again.state["w"]["v"], opt.state["w"]["v"])


def test_a_later_format_is_refused(path):
    opt = Adam()
    opt.save(path)
    rewritten(path, lambda about, arrays: about.update(format=2))
    with pytest.raises(CheckpointError, match="has the format 2, and this adamas reads those up to 1: get a newer one"):
        Adam.load(path)


def test_without_parameters_none_come_back(path):
    stepped({"w": np.ones(3)}).save(path)
    with Checkpoint(path) as saved, pytest.raises(CheckpointError, match="holds no parameters"):
        saved.params()


def test_a_scale_that_no_block_has_is_refused(path):
    stepped({"w": np.ones(5000, np.float32)}, state_format="q8").save(path)

    def damage(about, arrays):
        arrays["state.v/w"][-1] = 255

    rewritten(path, damage)
    opt = Adam()
    with pytest.raises(CheckpointError, match=r"state.v/w is not q8 state: block 19 of 20 has the scale 255"):
        opt.load(path)
    assert opt.t == 0


@pytest.mark.parametrize("carry", [[{}], [{"mu_product": "1"}], [{"mu_product": 0.5}] * 2, [{"other": 1.0}], 3, [3]])
def test_what_is_not_carried_is_refused(path, carry):
    stepped({"w": np.ones(3)}, adamas.NAdam).save(path)
    rewritten(path, lambda about, arrays: about.update(carry=carry))
    with pytest.raises(CheckpointError, match="damaged"):
        adamas.NAdam.load(path)


def rewritten(path, change):
    """Change the description in a checkpoint, or its arrays; all checksums are right afterwards."""
    with _tensorfile.TensorFile(path) as file:
        arrays = {name: np.empty(entry.shape, entry.dtype) for name, entry in file.entries.items()}
        for name, array in arrays.items():
            file.read(name, array)
        metadata = {k: v for k, v in file.metadata.items() if not k.startswith("checksum")}
    about = json.loads(metadata["optimizer"])
    change(about, arrays)
    _tensorfile.write(path, arrays, {**metadata, "optimizer": json.dumps(about)})


@pytest.mark.stress
def test_a_gibibyte_is_saved_and_loaded_without_a_copy(path):
    """What saving takes beside the state, and loading beside the new one, is at most 64 MiB."""
    code = f"""
import resource, numpy as np, adamas

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

opt, p, g = adamas.AdamW(), np.ones(2**27, np.float32), np.ones(2**27, np.float32)
opt.update(p, g)
before = most()
opt.save({str(path)!r})
print(most() - before)
"""
    load = f"""
import resource, adamas
opt = adamas.AdamW()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
opt.load({str(path)!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before - 2**30)
"""
    for text in (code, load):
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=300)
        assert int(done.stdout) <= 64 << 20, done.stdout
