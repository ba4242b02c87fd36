"""The training task: the digits, the network's gradient, the loop, the folder that keeps a run."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import training
from adamas.training import Dataset, Epoch, Run, count_steps, data, digits, loop, mlp, runs, train


@pytest.fixture(scope="module")
def images():
    return digits()


def test_all_is_sorted():
    for module in (training, data, loop, mlp, runs):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


# --- the digits -------------------------------------------------------------------------------------------------------


def test_the_digits_are_500_of_each_with_ink_from_0_to_1(images):
    assert images.inputs.shape == (5000, 28, 28)
    assert images.inputs.dtype == np.float32
    assert (images.inputs.min(), images.inputs.max()) == (0, 1)
    assert_array_equal(np.bincount(images.labels), [500] * 10)
    assert images.classes == tuple("0123456789")


def test_the_split_is_stratified_disjoint_and_seeded(images):
    numbered = replace(images, inputs=np.arange(len(images)))
    first, second = numbered.split(0.2, np.random.default_rng(3))
    assert_array_equal(np.bincount(first.labels), [400] * 10)
    assert_array_equal(np.bincount(second.labels), [100] * 10)
    assert_array_equal(np.sort(np.concatenate([first.inputs, second.inputs])), numbered.inputs)
    for part in (first, second):
        assert_array_equal(part.labels, images.labels[part.inputs])
    again, other = (numbered.split(0.2, np.random.default_rng(seed))[1] for seed in (3, 4))
    assert_array_equal(again.inputs, second.inputs)
    assert not np.array_equal(other.inputs, second.inputs)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_any_split_keeps_all_examples_and_the_share_of_each_class(labels, share, seed):
    dataset = Dataset(np.arange(len(labels)), np.array(labels), tuple("abcde"))
    first, second = dataset.split(share, np.random.default_rng(seed))
    assert sorted([*first.inputs, *second.inputs]) == list(range(len(labels)))
    for label in range(5):
        assert np.sum(second.labels == label) == round(share * labels.count(label))


def test_only_some_classes_are_labelled_in_the_order_given(images):
    chosen = images.only(["8", "3"])
    assert chosen.classes == ("8", "3")
    assert_array_equal(np.bincount(chosen.labels), [500, 500])
    assert_array_equal(chosen.inputs[chosen.labels == 0], images.inputs[images.labels == 8])
    assert_array_equal(chosen.inputs[chosen.labels == 1], images.inputs[images.labels == 3])


@pytest.mark.parametrize(
    ("classes", "message"), [(["3"], "one class"), (["3", "x"], "no class 'x'"), (["3", "3"], "'3' is named twice")]
)
def test_classes_that_cannot_be_chosen(images, classes, message):
    with pytest.raises(ValueError, match=message):
        images.only(classes)


# --- the network ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    inputs=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 6), max_size=2),
    outputs=st.integers(1, 4),
    n=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_gradient_is_that_of_central_differences(inputs, hidden, outputs, n, seed):
    rng = np.random.default_rng(seed)
    params = mlp.init([inputs, *hidden, outputs], rng, np.float64)
    for layer in params.values():
        layer["bias"] += rng.normal(size=layer["bias"].shape)
    x, labels = rng.normal(size=(n, inputs)), rng.integers(0, max(outputs, 2), n)
    _, gradients = mlp.loss_and_gradients(params, x, labels)
    assert list(gradients) == list(params)
    h = 1e-6

    def at(array, index, value):
        kept, array[index] = array[index], value
        signals = mlp.forward(params, x)
        array[index] = kept
        return mlp.cross_entropy(signals[-1], labels)[0], [signal > 0 for signal in signals[1:-1]]

    for name, layer in params.items():
        for kind, array in layer.items():
            assert gradients[name][kind].shape == array.shape
            for index in np.ndindex(array.shape):
                (above, bends), (below, others) = (at(array, index, array[index] + d) for d in (h, -h))
                if all(map(np.array_equal, bends, others)):  # else a relu bends in between: there is no derivative
                    assert_allclose(gradients[name][kind][index], (above - below) / (2 * h), rtol=1e-5, atol=1e-8)


@given(st.integers(1, 4), st.floats(-1e4, 1e4), st.integers(0, 99))
def test_the_loss_of_extreme_logits_is_finite_and_exact(outputs, size, seed):
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-1, 1, (6, outputs)) * size
    labels = rng.integers(0, max(outputs, 2), 6)
    both = np.hstack([np.zeros_like(logits), logits]) if outputs == 1 else logits  # a sigmoid is a softmax with a 0
    shifted = both - both.max(axis=1, keepdims=True)
    expected = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(6), labels])
    loss, derivative = mlp.cross_entropy(logits, labels)
    assert_allclose(loss, expected, rtol=1e-12, atol=1e-15)
    assert np.isfinite(derivative).all()
    loss32, derivative32 = mlp.cross_entropy(logits.astype(np.float32), labels)
    assert derivative32.dtype == np.float32
    assert_allclose(loss32, expected, rtol=1e-5, atol=1e-6)


def test_the_first_weights_keep_the_size_of_signals():
    params = mlp.init([400, 500, 500, 500, 3], np.random.default_rng(0))
    assert all(array.dtype == np.float32 for layer in params.values() for array in layer.values())
    *signals, logits = mlp.forward(params, np.random.default_rng(1).normal(size=(200, 20, 20)).astype(np.float32))
    assert logits.shape == (200, 3)
    for signal in signals:
        assert_allclose(np.mean(signal**2), 1, rtol=0.15)


def test_predictions_are_the_likeliest_class():
    binary = {"layer1": {"weight": np.array([[1.0]]), "bias": np.zeros(1)}}
    assert_array_equal(mlp.predict(binary, np.array([[-2.0], [3.0]])), [0, 1])
    three = {"layer1": {"weight": np.eye(3), "bias": np.zeros(3)}}
    assert_array_equal(mlp.predict(three, np.array([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])), [1, 0])


# --- the loop ---------------------------------------------------------------------------------------------------------


def history(images, seed=0, rate=1e-3, epochs=3, widths=(784, 16, 10), **options):
    a, b, c = np.random.default_rng(seed).spawn(3)
    first, second = images.split(0.2, a)
    params = mlp.init(widths, b)
    optimizer = adamas.AdamW(rate, groups=[("*.bias", {"weight_decay": 0.0})])
    return train(mlp, params, optimizer, first, second, epochs=epochs, batch_size=64, rng=c, **options)


def without_times(epochs):
    return [replace(epoch, seconds=0.0, optimizer_seconds=0.0) for epoch in epochs]


def test_the_same_seed_gives_the_same_history_bit_for_bit(images):
    first, second, other = (without_times(history(images, seed)) for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_what_an_epoch_says(images):
    steps = []
    epochs = list(history(images, rate=lambda step: 1e-3 / (step + 1), after_step=lambda: steps.append(1)))
    assert count_steps(4000, 64) == 63
    assert [(epoch.epoch, epoch.steps) for epoch in epochs] == [(1, 63), (2, 126), (3, 189)]
    assert [epoch.learning_rate for epoch in epochs] == [1e-3 / 63, 1e-3 / 126, 1e-3 / 189]
    assert len(steps) == 189
    for epoch in epochs:
        assert 0 < epoch.optimizer_seconds < epoch.seconds
        assert 0 <= epoch.test_accuracy <= 1


def test_two_classes_need_one_output(images):
    *_, last = history(images.only(["3", "8"]), widths=(784, 16, 1))
    assert last.test_accuracy > 0.9


def test_the_model_may_be_anything_with_the_two_methods(images):
    class Linear:
        def loss_and_gradients(self, params, inputs, labels):
            return mlp.loss_and_gradients(params, inputs, labels)

        def predict(self, params, inputs):
            return mlp.predict(params, inputs)

    a, b, c = np.random.default_rng(0).spawn(3)
    first, second = images.split(0.2, a)
    params = mlp.init([784, 10], b)
    *_, last = train(Linear(), params, adamas.SGD(0.1), first, second, epochs=2, batch_size=50, rng=c)
    assert last.test_accuracy > 0.8


def test_a_loss_that_is_lost_ends_the_run(images):
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in epoch 1"):
        list(history(images, rate=1e30))


# --- the folder -------------------------------------------------------------------------------------------------------

EPOCHS = [Epoch(k, 63 * k, 1 / k, 1 - 0.5 / k, 1e-3, 0.1 * k, 0.01 * k) for k in (1, 2, 3)]


@pytest.mark.parametrize("epochs", [EPOCHS[:1], EPOCHS, [replace(EPOCHS[0], train_loss=0.0)]])
def test_a_run_keeps_its_settings_history_and_picture(tmp_path, epochs):
    run = Run.create(tmp_path / "new" / "run", "digits", {"seed": 1})
    for count, epoch in enumerate(epochs, start=1):
        run.record(epoch)
        lines = (run.path / "history.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [asdict(epoch) for epoch in epochs[:count]]
    run.draw()
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 1}
    assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_never_takes_the_folder_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Run.create(None, "digits", {}).path for _ in range(4)]
    assert len(set(paths)) == 4
    assert {path.parent.name for path in paths} == {"runs"}
    with pytest.raises(FileExistsError, match="not empty"):
        Run.create(paths[0], "digits", {})
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", "digits", {}).path == tmp_path / "empty"
