"""Networks in PyTorch under any optimizer: views, gradients, the CNN, and torch's own optimizers beside ours."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch import nn

import adamas
from adamas import _tree
from adamas.rules import RULES
from adamas.training import Epoch, Parts, Run, cnn, digits, mlp, network, peers, tasks, train
from adamas.training.cnn import CNN
from adamas.training.images import jiggle
from adamas.training.network import Network
from adamas.training.peers import TorchOptimizer, hyperparameters, optimizers
from adamas.training.scores import probabilities

GROUPS = [("*.bias", {"weight_decay": 0.0})]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are small: others would only wait
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    every_third = np.arange(0, 5000, 3)  # of each digit
    return digits().take(every_third)


def arrays(tree):
    return {".".join(map(str, keys)): array for keys, array in _tree.leaves(tree)}


def layers():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def batch(seed=0, n=7, shape=(6,), classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *shape)).astype(np.float32), rng.integers(0, classes, n)


def test_all_is_sorted():
    for module in (cnn, network, peers):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


# --- modules as models ------------------------------------------------------------------------------------------------


def test_parameters_are_views_by_module_and_name():
    module = CNN()
    params = Network(module).params
    assert list(params) == ["conv1", "conv2", "hidden", "out"]
    assert all(list(layer) == ["weight", "bias"] for layer in params.values())
    named = dict(module.named_parameters())
    assert list(arrays(params)) == list(named)
    for name, array in arrays(params).items():
        array[...] = np.arange(array.size).reshape(array.shape)
        assert_array_equal(named[name].detach().numpy(), array)
        assert array.ctypes.data == named[name].data_ptr()


@pytest.mark.parametrize("outputs", [1, 3])
def test_loss_gradients_and_logits_are_those_of_the_network_in_numpy(outputs):
    params = mlp.init([6, 5, outputs], np.random.default_rng(0))
    inputs, labels = batch(classes=max(outputs, 2))
    inside = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, outputs))
    ours = Network(inside)
    for mine, theirs in zip(ours.params.values(), params.values(), strict=True):
        mine["weight"][...], mine["bias"][...] = theirs["weight"].T, theirs["bias"]
    loss, gradients = ours.loss_and_gradients(ours.params, inputs, labels)
    expected, others = mlp.loss_and_gradients(params, inputs, labels)
    assert_allclose(loss, expected, rtol=1e-6)
    for mine, theirs in zip(gradients.values(), others.values(), strict=True):
        assert_allclose(mine["weight"], theirs["weight"].T, rtol=1e-5, atol=1e-7)
        assert_allclose(mine["bias"], theirs["bias"], rtol=1e-5, atol=1e-7)
    assert_allclose(ours.logits(ours.params, inputs), mlp.logits(params, inputs), rtol=1e-5, atol=1e-6)


def test_gradients_do_not_pile_up_and_are_none_where_there_is_none():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(6, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    half = Network(Half())
    loss, gradients = half.loss_and_gradients(half.params, *batch())
    first = copy.deepcopy(gradients)
    assert first["unused"] == {"weight": None, "bias": None}
    again, gradients = half.loss_and_gradients(half.params, *batch())
    assert again == loss
    assert_array_equal(gradients["used"]["weight"], first["used"]["weight"])
    before = copy.deepcopy(half.params)
    adamas.Adam().update(half.params, gradients)
    assert_array_equal(half.params["unused"]["weight"], before["unused"]["weight"])
    assert not np.array_equal(half.params["used"]["weight"], before["used"]["weight"])


def test_other_parameters_are_taken_over():
    one, two = (Network.create(layers, np.random.default_rng(seed)) for seed in (1, 2))
    inputs, labels = batch()
    expected = two.logits(two.params, inputs)
    assert_array_equal(one.logits(copy.deepcopy(two.params), inputs), expected)
    three = Network.create(layers, np.random.default_rng(3))
    assert (
        three.loss_and_gradients(two.params, inputs, labels)[0] == two.loss_and_gradients(two.params, inputs, labels)[0]
    )


def test_logits_are_those_of_evaluation_in_any_number_of_batches(monkeypatch):
    drops = Network(nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3)))
    inputs, labels = batch(n=300)
    whole = drops.logits(drops.params, inputs)
    assert whole.shape == (300, 3)
    assert_allclose(
        np.concatenate([drops.logits(drops.params, inputs[i : i + 7]) for i in range(0, 300, 7)]), whole, 1e-4, 1e-5
    )
    assert drops.logits(drops.params, inputs[:0]).shape == (0, 3)
    loss, _ = drops.loss_and_gradients(drops.params, inputs, labels)
    assert loss != drops.loss_and_gradients(drops.params, inputs, labels)[0], "training drops units, others each time"


def test_a_network_is_seeded_and_leaves_the_random_state_of_torch_alone():
    def losses(seed):
        made = Network.create(lambda: nn.Sequential(layers(), nn.Dropout(0.5)), np.random.default_rng(seed))
        return [made.loss_and_gradients(made.params, *batch())[0] for _ in range(3)]

    state = torch.get_rng_state()
    first, again, other = losses(0), losses(0), losses(1)
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_what_would_not_be_kept_is_refused():
    with pytest.raises(ValueError, match=r"Sequential keeps '1.running_mean', which is not a parameter"):
        Network(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_arrays_that_cannot_be_written_are_taken():
    inputs, labels = batch()
    inputs.flags.writeable = labels.flags.writeable = False
    made = Network(layers())
    assert np.isfinite(made.loss_and_gradients(made.params, inputs, labels)[0])
    assert np.isfinite(made.logits(made.params, inputs[::-1])).all()


@pytest.mark.parametrize("name", RULES)
def test_any_rule_steps_a_network_as_it_steps_arrays(name):
    made = Network.create(layers, np.random.default_rng(0))
    inputs, labels = batch()
    of_network, of_arrays = (getattr(adamas, name)(groups=GROUPS, weight_decay=0.1) for _ in range(2))
    params = copy.deepcopy(made.params)
    for _ in range(3):
        _, gradients = made.loss_and_gradients(made.params, inputs, labels)
        of_arrays.update(params, copy.deepcopy(gradients))
        of_network.update(made.params, gradients)
        for mine, expected in zip(arrays(made.params).values(), arrays(params).values(), strict=True):
            assert_array_equal(mine, expected)
    named = dict(made.module.named_parameters())
    assert all(np.array_equal(named[key].detach().numpy(), value) for key, value in arrays(params).items())


# --- the CNN ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(10, 40), st.integers(10, 40), st.integers(1, 12), st.integers(1, 3))
def test_the_cnn_takes_images_of_any_size_from_10(height, width, outputs, n):
    made = CNN((height, width), outputs)
    with torch.no_grad():
        assert made(torch.rand(n, height, width)).shape == (n, outputs)


def test_the_cnn_is_that_of_the_tutorial():
    made = CNN()
    shapes = {name: tuple(p.shape) for name, p in made.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (32, 1, 3, 3),
        "conv2.weight": (64, 32, 3, 3),
        "hidden.weight": (128, 64 * 5 * 5),
        "out.weight": (10, 128),
    }
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    written_out = nn.Sequential(
        made.conv1, relu, pool, made.conv2, relu, pool, nn.Flatten(), made.hidden, relu, made.out
    )
    x = torch.rand(4, 28, 28)
    assert_allclose(made(x).detach(), written_out(x[:, None]).detach(), rtol=1e-4, atol=1e-6)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match="images must be at least 10x10, got 9x28"):
        CNN((9, 28))


def trained(images, make, seed=0, epochs=2, augment=False):
    for_split, for_weights, for_order, for_augment = np.random.default_rng(seed).spawn(4)
    parts = Parts.of(images, for_split)
    made = Network.create(CNN, for_weights)
    moved = (lambda inputs: jiggle(inputs, for_augment)) if augment else (lambda inputs: inputs)
    options = {"epochs": epochs, "batch_size": 32, "rng": for_order, "augment": moved}
    return list(train(made, made.params, make(made.params), parts.train, parts.validation, **options))


def test_the_same_seed_gives_the_same_history_bit_for_bit(images):
    few = images.take(np.arange(0, len(images), 4))

    def losses(seed):
        epochs = trained(few, lambda params: adamas.AdamW(1e-3), seed, augment=True)
        return [(epoch.train_loss, epoch.validation_loss) for epoch in epochs]

    assert losses(0) == losses(0) != losses(1)


def test_the_curves_of_adam_here_and_in_torch_differ_by_less_than_two_seeds_do(images):
    def curve(make, seed):
        return np.array([[e.train_loss, e.validation_loss] for e in trained(images, make, seed)])

    values = {"learning_rate": 1e-3}
    ours, other_seed = (curve(lambda params: adamas.Adam(**values), seed) for seed in (0, 1))
    theirs = curve(lambda params: TorchOptimizer(torch.optim.Adam, params, values), 0)
    assert_array_equal(np.sign(np.diff(ours[:, 0])), [-1])
    assert np.max(np.abs(ours - theirs)) < 0.1 * np.min(np.abs(ours - other_seed).max(axis=0))


@pytest.mark.parametrize("model", ["cnn", "mlp"])
@pytest.mark.parametrize("classes", ["3,8", "0,1,2,3,4,5,6,7,8,9"])
def test_a_run_says_of_files_what_its_network_said_of_the_images(images, tmp_path, model, classes):
    chosen = images.only(classes.split(",")).take(np.arange(0, 200, 20))
    config = {"task": "digits", "model": model, "shape": [28, 28], "hidden": [16], "classes": chosen.classes}
    net, params = tasks.build_digits(config, np.random.default_rng(0))
    run = Run.create(tmp_path / "run", "digits", config)
    run.record(Epoch(1, 1, 1.0, 1.0, 0.5, 1e-3, 0.1, 0.1), params)
    files = [str(tmp_path / f"{k}.png") for k in range(10)]
    for file, image in zip(files, chosen.inputs, strict=True):
        Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(file)
    shares = tasks.predict(Run.open(run.path), files)
    assert_allclose(shares, probabilities(net.logits(params, chosen.inputs)), rtol=1e-5, atol=1e-7)
    assert shares.shape == (10, len(chosen.classes))


# --- the optimizers of torch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", optimizers())
def test_an_optimizer_of_torch_steps_arrays_as_it_steps_tensors(name):
    cls = optimizers()[name]
    one, two = (Network.create(layers, np.random.default_rng(0)) for _ in range(2))
    rate = 3e-3
    theirs = cls(two.module.parameters(), lr=rate)
    ours = TorchOptimizer(cls, one.params, {"learning_rate": rate})
    inputs, labels = batch()
    for t in range(4):
        assert ours.t == t
        params = ours.update(one.params, one.loss_and_gradients(one.params, inputs, labels)[1])
        assert params is one.params
        two.loss_and_gradients(two.params, inputs, labels)
        theirs.step()
        for mine, expected in zip(arrays(one.params).values(), arrays(two.params).values(), strict=True):
            assert_array_equal(mine, expected)


def test_hyperparameters_groups_and_schedules_have_the_names_that_they_have_here():
    def rate(step):
        return 1e-2 / (step + 1)

    one, two = (Network.create(layers, np.random.default_rng(0)) for _ in range(2))
    values = {"learning_rate": rate, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "weight_decay": 0.1}
    ours = TorchOptimizer(torch.optim.AdamW, one.params, values, GROUPS)
    named = dict(two.module.named_parameters())
    theirs = torch.optim.AdamW(
        [
            {"params": [p for name, p in named.items() if name.endswith("weight")]},
            {"params": [p for name, p in named.items() if name.endswith("bias")], "weight_decay": 0.0},
        ],
        betas=(0.8, 0.9),
        eps=1e-6,
        weight_decay=0.1,
    )
    inputs, labels = batch()
    for step in range(3):
        ours.update(one.params, one.loss_and_gradients(one.params, inputs, labels)[1])
        two.loss_and_gradients(two.params, inputs, labels)
        for group in theirs.param_groups:
            group["lr"] = rate(step)
        theirs.step()
    for mine, expected in zip(arrays(one.params).values(), arrays(two.params).values(), strict=True):
        assert_array_equal(mine, expected)


def test_an_optimizer_of_torch_steps_the_network_in_numpy_and_skips_none():
    params = mlp.init([6, 5, 3], np.random.default_rng(0))
    before = copy.deepcopy(params)
    _, gradients = mlp.loss_and_gradients(params, *batch())
    gradients["layer1"]["bias"] = None
    TorchOptimizer(torch.optim.SGD, params, {"learning_rate": 0.5}).update(params, gradients)
    assert_array_equal(params["layer1"]["bias"], before["layer1"]["bias"])
    expected = before["layer1"]["weight"] - np.float32(0.5) * gradients["layer1"]["weight"]
    assert_allclose(params["layer1"]["weight"], expected, rtol=1e-6)


def test_the_hyperparameters_of_torchs_classes():
    assert hyperparameters(torch.optim.Adam) == {
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "decoupled": False,
    }
    of_rmsprop = hyperparameters(torch.optim.RMSprop)
    assert (of_rmsprop["beta2"], of_rmsprop["momentum"]) == (0.99, 0.0)
    assert "beta1" not in of_rmsprop
    assert list(hyperparameters(torch.optim.SGD)) == [
        *("learning_rate", "momentum", "dampening", "weight_decay", "nesterov")
    ]


def test_what_torch_refuses():
    params = {"w": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"torch.optim.SGD has no beta1: it has learning_rate, "):
        TorchOptimizer(torch.optim.SGD, params, {"beta1": 0.5})
    with pytest.raises(ValueError, match="Nesterov momentum requires a momentum"):
        TorchOptimizer(torch.optim.SGD, params, {"nesterov": True})


def test_two_classes_need_one_output():
    parts = Parts.of(digits().only(["3", "8"]), np.random.default_rng(1))
    made = Network.create(lambda: CNN(outputs=1), np.random.default_rng(0))
    options = {"epochs": 2, "batch_size": 16, "rng": np.random.default_rng(2)}
    *_, last = train(made, made.params, adamas.Adam(2e-3), parts.train, parts.validation, **options)
    assert last.validation_accuracy > 0.9
