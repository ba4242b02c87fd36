"""State that goes to adamas and back: the next steps are those of an optimizer that never moved."""

import os
import warnings
from pathlib import Path

import h5py
import jax
import numpy as np
import optax
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import adamas
import adamas.torch
from adamas import convert, schedules
from adamas.errors import CheckpointError, CheckpointWarning

os.environ["KERAS_BACKEND"] = "jax"  # read when it is imported

SHAPES = {"hidden.weight": (3, 4), "hidden.bias": (4,), "out": (4, 1)}


def start():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def gradients(step):
    rng = np.random.default_rng(step + 1)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


# --- PyTorch ----------------------------------------------------------------------------------------------------------

IN_TORCH = {
    "Adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.99), eps=1e-6),
    "AMSGrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01, momentum_decay=0.01),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "RMSProp": lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.9),
    "AdaGrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "Lion": lambda p: adamas.torch.Lion(p, 0.01),
}


def run_torch(tensors, optimizer, first, last):
    for step in range(first, last):
        for tensor, g in zip(tensors, gradients(step).values(), strict=True):
            tensor.grad = torch.tensor(g)
        optimizer.step()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("rule", IN_TORCH)
def test_from_torch_and_back(rule, named, tmp_path):
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start().values()]
    optimizer = IN_TORCH[rule](list(zip(SHAPES, tensors, strict=True)) if named else tensors)
    run_torch(tensors, optimizer, 0, 10)
    torch.save({"optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "torch.pt")
    state = convert.read(tmp_path / "torch.pt", "torch")
    assert (state.rule, state.t) == (rule, 10)
    assert [path for path, _ in state.by_path()] == (list(SHAPES) if named else ["0", "1", "2"])
    convert.write(state, tmp_path / "ours", "adamas")
    convert.write(convert.read(tmp_path / "ours", "adamas"), tmp_path / "back.pt", "torch")

    optimizer = IN_TORCH[rule](list(zip(SHAPES, tensors, strict=True)) if named else tensors)  # torch rounds mu_product
    optimizer.load_state_dict(torch.load(tmp_path / "torch.pt", weights_only=True)["optimizer"])
    others = [torch.nn.Parameter(tensor.detach().clone()) for tensor in tensors]
    again = IN_TORCH[rule](list(zip(SHAPES, others, strict=True)) if named else others)
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    ours = getattr(adamas, rule).load(tmp_path / "ours")
    arrays = [tensor.detach().numpy().copy() for tensor in tensors]
    tree = arrays if not named else {"hidden": {"weight": arrays[0], "bias": arrays[1]}, "out": arrays[2]}
    run_torch(tensors, optimizer, 10, 30)
    run_torch(others, again, 10, 30)
    for step in range(10, 30):
        g = list(gradients(step).values())
        ours.update(tree, {"hidden": {"weight": g[0], "bias": g[1]}, "out": g[2]} if named else g)
    for p, q, array in zip(tensors, others, arrays, strict=True):
        assert_array_equal(p.detach().numpy(), q.detach().numpy())
        assert_allclose(array, p.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (torch.optim.RAdam, "may be RAdam's"),
        (lambda p: torch.optim.Adam(p, maximize=True), "maximize=True is not converted"),
        (lambda p: torch.optim.Adagrad(p, lr_decay=0.1), "lr_decay=0.1 is not converted"),
    ],
)
def test_what_would_be_taken_for_another_is_refused(make, words):
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start().values()]
    optimizer = make(tensors)
    run_torch(tensors, optimizer, 0, 2)
    with pytest.raises(CheckpointError, match=words):
        convert.from_torch(optimizer.state_dict())
    run_torch(tensors, adam := torch.optim.AdamW(tensors), 0, 2)
    old = adam.state_dict()
    del old["param_groups"][0]["decoupled_weight_decay"]
    with pytest.raises(CheckpointError, match="name the rule, Adam or AdamW"):
        convert.from_torch(old)
    assert convert.from_torch(old, "AdamW").hyperparameters["weight_decay"] == 0.01


def test_groups_of_torch_become_groups():
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start().values()]
    optimizer = torch.optim.AdamW([{"params": tensors[:1]}, {"params": tensors[1:], "weight_decay": 0.0, "lr": 0.1}])
    run_torch(tensors, optimizer, 0, 3)
    ours = convert.to_optimizer(convert.from_torch(optimizer.state_dict()))
    assert [pattern for pattern, _ in ours.groups] == ["1", "2"]
    assert all(values["learning_rate"] == 0.1 for _, values in ours.groups)
    arrays = [tensor.detach().numpy().copy() for tensor in tensors]
    run_torch(tensors, optimizer, 3, 9)
    for step in range(3, 9):
        ours.update(arrays, list(gradients(step).values()))
    for array, p in zip(arrays, tensors, strict=True):
        assert_allclose(array, p.detach().numpy(), rtol=1e-12, atol=1e-14)
    with pytest.warns(CheckpointWarning, match="groups of hyper-parameters are not converted"):
        convert.to_torch(convert.from_optimizer(ours))


def weights_then_biases():
    """Return the parameters of two layers, and AdamW that decays the weights alone, as it is mostly used."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).double()
    named = dict(model.named_parameters())
    groups = [
        {"params": [(name, p) for name, p in named.items() if name.endswith("weight")], "weight_decay": 0.1},
        {"params": [(name, p) for name, p in named.items() if name.endswith("bias")], "weight_decay": 0.0},
    ]
    return named, torch.optim.AdamW(groups, 0.01)


def step_layers(named, optimizer, first, last):
    for step in range(first, last):
        rng = np.random.default_rng(step)
        for name in sorted(named):
            named[name].grad = torch.tensor(rng.standard_normal(named[name].shape))
        optimizer.step()


def test_groups_of_torch_come_back(tmp_path):
    named, optimizer = weights_then_biases()
    step_layers(named, optimizer, 0, 5)
    torch.save(optimizer.state_dict(), tmp_path / "torch.pt")
    state = convert.read(tmp_path / "torch.pt", "torch")
    assert list(state.tree) == ["0.weight", "1.weight", "0.bias", "1.bias"]
    convert.write(state, tmp_path / "ours", "adamas")
    ours = adamas.AdamW.load(tmp_path / "ours")
    arrays = {name: p.detach().numpy().copy() for name, p in named.items()}  # in the order of the model
    for step in range(5, 10):
        rng = np.random.default_rng(step)
        drawn = {name: rng.standard_normal(named[name].shape) for name in sorted(named)}
        ours.update(arrays, {name: drawn[name] for name in arrays})
    ours.save(tmp_path / "ours")
    state = convert.read(tmp_path / "ours", "adamas")
    convert.write(state, tmp_path / "back.pt", "torch", like=tmp_path / "torch.pt")

    step_layers(named, optimizer, 5, 10)
    moved, again = weights_then_biases()
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    with torch.no_grad():
        for name, p in moved.items():
            p.copy_(torch.from_numpy(arrays[name]))
    assert [group["weight_decay"] for group in again.param_groups] == [0.1, 0.0]
    step_layers(named, optimizer, 10, 30)
    step_layers(moved, again, 10, 30)
    for name, p in named.items():
        assert_allclose(moved[name].detach().numpy(), p.detach().numpy(), rtol=1e-12, atol=1e-14)
    like = optimizer.state_dict()
    for change, words in (
        (like["param_groups"].pop, "of 4 parameters, and the one to fill of 2"),
        (lambda: like.update(param_groups=[{"params": [0, 1, 2, 3], "lr": 0.1}]), "are not of torch's optimizer for"),
    ):
        change()
        with pytest.raises(CheckpointError, match=words):
            convert.to_torch(state, like)
    with pytest.raises(CheckpointError, match="another amsgrad="):
        convert.to_torch(state, torch.optim.AdamW(list(named.values()), amsgrad=True).state_dict())
    three = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW(three)
    for p in three:
        p.grad = torch.ones(3)
    optimizer.step()
    state = convert.State("AdamW", 1, [convert.Moments({"m": np.ones(2), "v": np.ones(2)})] * 2)
    with pytest.raises(CheckpointError, match=r"parameter 0 has shape \(3,\) there and \(2,\)"):
        convert.to_torch(state, optimizer.state_dict())


# --- optax ------------------------------------------------------------------------------------------------------------

IN_OPTAX = {
    "Adam": lambda: optax.adam(optax.cosine_decay_schedule(0.01, 100)),
    "AdamW": lambda: optax.adamw(0.01, weight_decay=0.1),
    "Adamax": lambda: optax.adamax(0.01),
    "Lion": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.lion(0.01)),
}


def nested(values):
    return {"hidden": [values["hidden.weight"], values["hidden.bias"]], "out": values["out"]}


def run_optax(optimizer, params, state, first, last):
    for step in range(first, last):
        change, state = optimizer.update(jax.tree.map(jax.numpy.asarray, nested(gradients(step))), state, params)
        params = optax.apply_updates(params, change)
    return params, state


@pytest.mark.parametrize("rule", IN_OPTAX)
def test_from_optax_and_back(rule, tmp_path):
    with jax.enable_x64(True):
        optimizer, params = IN_OPTAX[rule](), jax.tree.map(jax.numpy.asarray, nested(start()))
        params, state = run_optax(optimizer, params, optimizer.init(params), 0, 10)
        ours = convert.from_optax(state, rule)
        assert ours.t == 10
        assert [path for path, _ in ours.by_path()] == ["hidden.0", "hidden.1", "out"]
        convert.write(ours, tmp_path / "optax", "optax")
        convert.write(convert.read(tmp_path / "optax", "optax"), tmp_path / "ours", "adamas")
        back = convert.to_optax(convert.read(tmp_path / "ours", "adamas"), optimizer.init(params))
        assert jax.tree.structure(back) == jax.tree.structure(state)
        one, _ = run_optax(optimizer, params, state, 10, 30)
        two, _ = run_optax(optimizer, params, back, 10, 30)
    for p, q in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert_array_equal(p, q)
    if rule != "Lion":  # clipped there
        rate = schedules.Cosine(0.01, 100) if rule == "Adam" else 0.01
        decay = 0.1 if rule == "AdamW" else 0.0
        opt = convert.to_optimizer(ours, learning_rate=rate, weight_decay=decay)
        arrays = jax.tree.map(np.array, params)
        for step in range(10, 30):
            arrays = opt.update(arrays, nested(gradients(step)))
        for p, q in zip(jax.tree.leaves(one), jax.tree.leaves(arrays), strict=True):
            assert_allclose(p, q, rtol=1e-12, atol=1e-14)


def test_dicts_go_to_optax_by_their_keys():
    params = {"b": np.zeros(2), "a": np.zeros(2)}
    opt = adamas.Adam()
    opt.update(params, {"b": np.full(2, 1.0), "a": np.full(2, 2.0)})
    back = convert.to_optax(convert.from_optimizer(opt), optax.adam(0.1).init(jax.tree.map(np.asarray, params)))
    assert_allclose(back[0].mu["a"], 0.2)
    assert_allclose(back[0].mu["b"], 0.1)


def test_states_of_optax_that_do_not_fit():
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    with pytest.raises(CheckpointError, match="of optax's ScaleByBeliefState, and that of Adam of ScaleByAdamState"):
        convert.from_optax(optax.adabelief(0.1).init(params), "Adam")
    state = optax.adam(0.1).init(params)
    broken = (state[0]._replace(nu={"a": np.zeros(2)}), *state[1:])
    with pytest.raises(CheckpointError, match=r"trees of the state differ: nu has no 'b', which params has"):
        convert.from_optax(broken, "Adam")


# --- Keras ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras  # noqa: PLC0415 - takes long

        return keras


IN_KERAS = {
    "Adam": lambda k: k.optimizers.Adam(0.01),
    "AdamW": lambda k: k.optimizers.AdamW(0.01),
    "AMSGrad": lambda k: k.optimizers.Adam(0.01, amsgrad=True),
    "Adamax": lambda k: k.optimizers.Adamax(0.01),
    "Lion": lambda k: k.optimizers.Lion(0.01),
}


def keras_model(keras, rule, dtype="float32"):
    layers = [keras.layers.Input((3,)), keras.layers.Dense(4, dtype=dtype), keras.layers.Dense(1, dtype=dtype)]
    model = keras.Sequential(layers)
    model.compile(IN_KERAS[rule](keras), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def run_keras(model, first, last):
    for step in range(first, last):
        rng = np.random.default_rng(step)
        pairs = [(rng.standard_normal(v.shape).astype(v.dtype), v) for v in model.trainable_variables]
        model.optimizer.apply_gradients(pairs)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rule", IN_KERAS)
def test_from_keras_and_back(rule, dtype, keras, tmp_path):
    model = keras_model(keras, rule, dtype)
    run_keras(model, 0, 10)
    file = tmp_path / "model.weights.h5"
    model.save_weights(file)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        state = convert.read(file, "keras", None if rule != "AMSGrad" else rule)
        convert.write(state, tmp_path / "ours", "adamas")
        convert.write(convert.read(tmp_path / "ours", "adamas"), tmp_path / "back.weights.h5", "keras", like=file)
    told = [str(warning.message) for warning in seen if warning.category is CheckpointWarning]
    assert len(told) == (0 if rule == "Lion" else 2)
    assert all("Keras adds epsilon" in text for text in told)
    assert (state.rule, state.t) == (rule, 10)
    assert {array.dtype for _, moments in state.by_path() for array in moments.arrays.values()} == {np.dtype(dtype)}
    other = keras_model(keras, rule, dtype)
    other.load_weights(tmp_path / "back.weights.h5")
    run_keras(model, 10, 30)
    run_keras(other, 10, 30)
    for p, q in zip(model.trainable_variables, other.trainable_variables, strict=True):
        assert_array_equal(np.asarray(p), np.asarray(q))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = convert.to_keras(convert.from_keras(model.optimizer.variables, rule))
    for v, array in zip(model.optimizer.variables, arrays, strict=True):
        assert_array_equal(np.asarray(v), array)


def test_files_of_weights_that_reach_elsewhere(tmp_path):
    secret, file = tmp_path / "secret.h5", tmp_path / "some.weights.h5"
    with h5py.File(secret, "w") as other:
        other["x"] = np.ones(3, np.float32)
    (tmp_path / "raw").write_bytes(bytes(64))

    def huge(group):
        group.create_dataset("2", (10**12,), np.float32)

    def words(group):
        group["2"] = np.array([b"text"])

    def external(group):
        group.create_dataset("2", (4,), np.float32, external=[(str(tmp_path / "raw"), 0, 16)])

    def virtual(group):
        layout = h5py.VirtualLayout((3,), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "x", (3,))
        group.create_virtual_dataset("2", layout)

    def link(group):
        group["2"] = h5py.ExternalLink(str(secret), "x")

    def soft(group):
        group["2"] = h5py.SoftLink("/optimizer/vars/1")

    for attack, says in (
        (huge, "says that it holds 4,000,000,000,000 bytes"),
        (words, "not numbers"),
        (external, "which are not there"),
        (virtual, "which are not there"),
        (link, "'2' is a link"),
        (soft, "'2' is a link"),
    ):
        with h5py.File(file, "w") as made:
            group = made.create_group("optimizer/vars")
            group["0"], group["1"] = np.int64(1), np.float32(0.1)
            attack(group)
        with pytest.raises(CheckpointError, match=says):
            convert.read(file, "keras", "Lion")
    with h5py.File(file, "w") as made:
        made["optimizer"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(CheckpointError, match="'optimizer' is a link"):
        convert.read(file, "keras", "Lion")


def test_a_learning_rate_of_keras_that_is_none():
    with pytest.warns(CheckpointWarning, match="the learning rate of the file is nan: the default stands"):
        state = convert.from_keras([np.int64(1), np.float32(np.nan), np.ones(3)], "Lion")
    assert convert.to_optimizer(state).learning_rate == adamas.Lion().learning_rate


# --- what is not converted --------------------------------------------------------------------------------------------


def stepped(rule="Adam", **options):
    opt = getattr(adamas, rule)(**options)
    opt.update([np.ones(3), np.ones((2, 2))], [np.ones(3), np.ones((2, 2))])
    return opt


@pytest.mark.parametrize(
    ("rule", "library", "words"),
    [
        ("AMSGrad", "optax", "takes the maximum of the corrected v"),
        ("NAdam", "optax", "has a constant beta1"),
        ("NAdam", "keras", "has another schedule of beta1"),
        ("RAdam", "keras", "Adam, AdamW, AMSGrad, Adamax, Lion are"),
        ("Yogi", "torch", "the state of Yogi is not converted to or from torch"),
    ],
)
def test_rules_that_others_compute_otherwise_are_refused(rule, library, words, tmp_path):
    state = convert.from_optimizer(stepped(rule))
    with pytest.raises(CheckpointError, match=words):
        convert.write(state, tmp_path / "x", library)
    assert not list(tmp_path.iterdir())


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_files_that_are_not_what_they_should_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "evil.pt")
    torch.save({"model": {"w": torch.ones(2)}}, "model.pt")
    torch.save([1, 2], "list.pt")
    Path("noise").write_bytes(b"noise")
    stepped().save("ours")
    for name, library, words in (
        ("evil.pt", "torch", "no file of tensors and numbers"),
        ("noise", "torch", "no file of tensors and numbers"),
        ("model.pt", "torch", "no state of torch.optim: KeyError: 'param_groups'"),
        ("list.pt", "torch", "holds list, not the state of an optimizer"),
        ("noise", "keras", "no file of weights of Keras"),
        ("noise", "optax", "noise"),
        ("ours", "optax", "description has KeyError"),
        ("noise", "adamas", "noise"),
    ):
        with pytest.raises(CheckpointError, match=words):
            convert.read(name, library)
    assert not Path("pwned").exists()
    with pytest.raises(CheckpointError, match="holds the state of Adam, not of Lion"):
        convert.read("ours", "adamas", "Lion")
    with pytest.raises(FileNotFoundError):
        convert.read("missing", "torch")
    with pytest.raises(ValueError, match="library must be 'adamas' or 'torch'"):
        convert.read("ours", "tensorflow")
    with pytest.raises(CheckpointError, match="pass like="):
        convert.write(convert.from_optimizer(stepped("Lion")), "x", "keras")


def test_states_that_do_not_fit():
    one = torch.nn.Parameter(torch.ones(2))
    two = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.Adam([one, two])
    one.grad = torch.ones(2)
    opt.step()
    with pytest.raises(CheckpointError, match="KeyError"):
        convert.from_torch(opt.state_dict())
    two.grad = torch.ones(2)
    opt.step()
    with pytest.raises(CheckpointError, match="parameters were stepped 1, 2 times"):
        convert.from_torch(opt.state_dict())
    state = convert.from_optimizer(stepped())
    with pytest.raises(CheckpointError, match="there are 1 names for 2 parameters"):
        state.named(["a"])
    with pytest.raises(CheckpointError, match="goes through another parameter"):
        state.named(["a", "a.b"])
    four = convert.State("Adam", 1, [convert.Moments({"m": np.ones(2), "v": np.ones(2)}) for _ in range(4)])
    assert list(four.named(["l1.w", "l2.w", "l1.b", "l2.b"]).tree) == ["l1.w", "l2.w", "l1.b", "l2.b"]
    assert list(four.named(["l1.w", "l1.b", "l2.w", "l2.b"]).tree["l2"]) == ["w", "b"]
    with pytest.raises(CheckpointError, match="is there twice"):
        state.named(["a", "a"])
    with pytest.raises(CheckpointError, match=r"'0' has shape \(4,\) there and \(3,\) in the state"):
        convert.to_optax(state, optax.adam(0.1).init([np.ones(4), np.ones((2, 2))]))
    with pytest.raises(CheckpointError, match="is of 2 parameters, and the one to fill of 1"):
        convert.to_optax(state, optax.adam(0.1).init([np.ones(3)]))
    with pytest.raises(CheckpointError, match="has no state"):
        convert.from_optimizer(adamas.Adam())
    with pytest.raises(CheckpointError, match="3 variables are not those of Adam"):
        convert.from_keras([np.int64(1), np.float32(0.1), np.ones(3)], "Adam")
    with pytest.raises(CheckpointError, match=r"m of shape \(3,\), v of shape \(2,\), but Adam remembers m, v"):
        convert.from_keras([np.int64(1), np.float32(0.1), np.ones(3), np.ones(2)], "Adam")
    for count in (-1, 1.5, np.nan, np.inf):
        with pytest.raises(CheckpointError, match="is no count of steps"):
            convert.from_keras([np.float64(count), np.float32(0.1), np.ones(3)], "Lion")
    bad = convert.State("Lion", 1, [convert.Moments({"m": np.ones(2)})], {"beta1": 2.0})
    with pytest.raises(CheckpointError, match="that Lion does not take: beta1 must be"):
        convert.to_optimizer(bad)
    with pytest.raises(ValueError, match="beta2 must be"):
        convert.to_optimizer(bad, beta1=0.9, beta2=2.0)
    opt = adamas.AdamW()
    p = np.ones((6, 2), np.float32)
    for row in (1, 2):
        opt.update(opt.prepare(p, [row]), adamas.RowSparse([row], np.ones((1, 2), np.float32)))
    with pytest.raises(CheckpointError, match=r"call opt.flush\(params\)"):
        convert.from_optimizer(opt)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(adamas_, tmp_path):
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start().values()]
    optimizer = torch.optim.AdamW(tensors, 0.01)
    run_torch(tensors, optimizer, 0, 5)
    torch.save(optimizer.state_dict(), tmp_path / "opt.pt")
    (tmp_path / "names.txt").write_text("\n".join(SHAPES) + "\n\n")
    done = adamas_("convert", "opt.pt", "ours", "--from", "torch", "--to", "adamas", "--names", "names.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ours: AdamW after 5 steps, of 3 parameters\n"
    opt = adamas.AdamW.load(tmp_path / "ours")
    assert list(opt.state) == list(SHAPES)
    assert opt.learning_rate == 0.01
    done = adamas_("convert", "ours", "opt.optax", "--from", "adamas", "--to", "optax")
    assert done.stdout == "opt.optax: AdamW after 5 steps, of 3 parameters\n"
    for line, words in (
        ("missing x --from torch --to adamas", "No such file"),
        ("ours x --from torch --to adamas", "no file of tensors and numbers"),
        ("ours x --from adamas --to keras", "pass like="),
        ("opt.pt x --from torch --to adamas --rule Yogi", "Yogi is not converted"),
    ):
        done = adamas_("convert", *line.split())
        assert done.returncode == 2, line
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
