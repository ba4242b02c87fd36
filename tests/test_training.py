"""The training task: the digits, the network's gradient, the loop, the folder that keeps a run."""

import json
import resource
from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

import adamas
from adamas import _tree, training
from adamas.training import (
    Dataset,
    Epoch,
    Parts,
    Run,
    Scores,
    count_steps,
    data,
    digits,
    extras,
    loop,
    mlp,
    pictures,
    runs,
    scores,
    tasks,
    train,
    weights,
)
from adamas.training.scores import likeliest, probabilities


@pytest.fixture(scope="module")
def images():
    return digits()


def test_all_is_sorted():
    for module in (training, data, extras, loop, mlp, pictures, runs, scores, tasks, weights):
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


def test_the_parts_are_stratified_disjoint_and_seeded(images):
    numbered = replace(images, inputs=np.arange(len(images)))
    parts = Parts.of(numbered, np.random.default_rng(3))
    assert [np.bincount(part.labels).tolist() for part in parts] == [[360] * 10, [40] * 10, [100] * 10]
    assert_array_equal(np.sort(np.concatenate([part.inputs for part in parts])), numbered.inputs)
    again, other = (Parts.of(numbered, np.random.default_rng(seed)) for seed in (3, 4))
    assert all(np.array_equal(one.inputs, two.inputs) for one, two in zip(again, parts, strict=True))
    assert not any(np.array_equal(one.inputs, two.inputs) for one, two in zip(other, parts, strict=True))


def test_examples_for_the_test_are_left_as_they_are(images):
    parts = Parts.of(images, np.random.default_rng(3), images)
    assert parts.test is images
    assert (len(parts.train), len(parts.validation)) == (4500, 500)


def test_too_few_examples():
    few = Dataset(np.zeros((8, 2)), np.arange(8) % 2, ("a", "b"))
    with pytest.raises(ValueError, match="8 examples of 2 classes are too few: 6 for train, 0 for validation"):
        Parts.of(few, np.random.default_rng(0))


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


# --- scores -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 99))
def test_scores_agree_with_what_is_counted(outputs, n, seed):
    rng = np.random.default_rng(seed)
    classes = max(outputs, 2)
    logits, labels = rng.normal(size=(n, outputs)), rng.integers(0, classes, n)
    found = Scores.of(logits, labels, classes)
    taken = likeliest(logits)
    for truth in range(classes):
        for label in range(classes):
            assert found.confusion[truth, label] == np.sum((labels == truth) & (taken == label))
    assert found.confusion.sum() == n
    assert found.accuracy == np.mean(taken == labels)
    assert_allclose(found.balanced_accuracy, np.mean([np.mean(taken[labels == k] == k) for k in np.unique(labels)]))
    assert found.loss == mlp.cross_entropy(logits, labels)[0]
    assert_array_equal(taken, mlp.predict({"layer1": {"weight": np.eye(outputs), "bias": np.zeros(outputs)}}, logits))


@given(st.integers(1, 4), st.floats(-1e4, 1e4), st.integers(0, 99))
def test_probabilities_are_those_of_the_loss(outputs, size, seed):
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-1, 1, (6, outputs)) * size
    shares = probabilities(logits)
    assert shares.shape == (6, max(outputs, 2))
    assert_allclose(shares.sum(axis=1), 1)
    for k in range(max(outputs, 2)):
        loss, _ = mlp.cross_entropy(logits[:1], np.array([k]))
        assert_allclose(shares[0, k], np.exp(-loss), rtol=1e-9, atol=1e-300)


# --- the loop ---------------------------------------------------------------------------------------------------------


def parts_of(images, seed=0):
    return Parts.of(images, np.random.default_rng(seed).spawn(1)[0])


def history(images, seed=0, rate=1e-3, epochs=3, widths=(784, 16, 10), **options):
    _, b, c = np.random.default_rng(seed).spawn(3)
    parts = parts_of(images, seed)
    params = mlp.init(widths, b)
    optimizer = adamas.AdamW(rate, groups=[("*.bias", {"weight_decay": 0.0})])
    options = {"batch_size": 64, "rng": c, **options}
    for epoch in train(mlp, params, optimizer, parts.train, parts.validation, epochs=epochs, **options):
        yield epoch, params


def without_times(epochs):
    return [replace(epoch, seconds=0.0, optimizer_seconds=0.0) for epoch, _ in epochs]


def test_the_same_seed_gives_the_same_history_bit_for_bit(images):
    first, second, other = (without_times(history(images, seed)) for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_what_an_epoch_says(images):
    steps = []
    epochs = []
    validation = parts_of(images).validation
    for epoch, params in history(images, rate=lambda step: 1e-3 / (step + 1), after_step=lambda: steps.append(1)):
        epochs.append(epoch)
        assert epoch.validation_loss == mlp.loss_and_gradients(params, validation.inputs, validation.labels)[0]
        assert epoch.validation_accuracy == np.mean(mlp.predict(params, validation.inputs) == validation.labels)
    assert count_steps(3600, 64) == 57
    assert [(epoch.epoch, epoch.steps) for epoch in epochs] == [(1, 57), (2, 114), (3, 171)]
    assert [epoch.learning_rate for epoch in epochs] == [1e-3 / 57, 1e-3 / 114, 1e-3 / 171]
    assert len(steps) == 171
    for epoch in epochs:
        assert 0 < epoch.optimizer_seconds < epoch.seconds


def test_two_classes_need_one_output(images):
    *_, (last, _) = history(images.only(["3", "8"]), widths=(784, 16, 1))
    assert last.validation_accuracy > 0.9


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_training_ends_when_patience_does(images, patience):
    few = images.take(np.arange(0, 5000, 10))
    options = {"rate": 0.02, "epochs": 40, "batch_size": 16}
    whole, patient = without_times(history(few, **options)), without_times(history(few, patience=patience, **options))
    assert patient == whole[: len(patient)]

    def waited(epochs):
        return len(epochs) - min(epochs, key=lambda epoch: epoch.validation_loss).epoch

    assert waited(patient) == patience
    assert all(waited(patient[:count]) < patience for count in range(1, len(patient)))


def test_inputs_are_augmented_in_training_only(images):
    few = images.take(np.arange(0, 5000, 10))
    seen = []

    def blank(inputs):
        seen.append(inputs.shape)
        return np.zeros_like(inputs)

    *_, (last, params) = history(few, epochs=2, augment=blank)
    assert seen == [(64, 28, 28)] * 5 + [(40, 28, 28)] + [(64, 28, 28)] * 5 + [(40, 28, 28)]
    validation = parts_of(few).validation
    assert last.validation_loss == mlp.loss_and_gradients(params, validation.inputs, validation.labels)[0]


def test_the_model_may_be_anything_with_the_two_methods(images):
    class Linear:
        def loss_and_gradients(self, params, inputs, labels):
            return mlp.loss_and_gradients(params, inputs, labels)

        def logits(self, params, inputs):
            return mlp.logits(params, inputs)

    parts = parts_of(images)
    params = mlp.init([784, 10], np.random.default_rng(1))
    options = {"epochs": 2, "batch_size": 50, "rng": np.random.default_rng(2)}
    *_, last = train(Linear(), params, adamas.SGD(0.1), parts.train, parts.validation, **options)
    assert last.validation_accuracy > 0.8


def test_a_schedule_free_rule_is_judged_by_its_average_and_goes_on_from_its_parameters(images):
    parts = parts_of(images)
    params, others = (mlp.init([784, 10], np.random.default_rng(1)) for _ in range(2))
    opt, other = adamas.ScheduleFreeAdamW(0.01), adamas.ScheduleFreeAdamW(0.01)
    options = {"epochs": 3, "batch_size": 50}
    told = train(mlp, params, opt, parts.train, parts.validation, rng=np.random.default_rng(2), **options)
    for epoch in told:
        shown = [array.copy() for _, array in _tree.leaves(params)]
        if epoch.epoch == 3:
            break
    rng = np.random.default_rng(2)
    for _ in range(3):
        order = rng.permutation(len(parts.train))
        for first in range(0, len(order), 50):
            batch = parts.train.take(order[first : first + 50])
            others = other.update(others, mlp.loss_and_gradients(others, batch.inputs, batch.labels)[1])
    for value, (_, wanted) in zip(shown, _tree.leaves(other.eval_params(others)), strict=True):
        np.testing.assert_array_equal(value, wanted)
    told.close()
    for (_, value), (_, wanted) in zip(_tree.leaves(params), _tree.leaves(others), strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_a_loss_that_is_lost_ends_the_run(images):
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in epoch 1"):
        list(history(images, rate=1e30))


def test_a_validation_loss_that_is_lost_ends_the_run(images):
    one_step = {"batch_size": 3600, "epochs": 1}
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in epoch 1"):
        list(history(images, rate=1e30, **one_step))


# --- the folder -------------------------------------------------------------------------------------------------------

PARAMS = {"layer": {"weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(3)}}
LOSSES = [0.9, 0.4, 0.6]
EPOCHS = [Epoch(k, 57 * k, 1 / k, LOSSES[k - 1], 1 - 0.5 / k, 1e-3, 0.1 * k, 0.01 * k) for k in (1, 2, 3)]
TEST = Scores(0.5, 0.75, 0.7, np.array([[2, 1], [0, 1]]))


@pytest.mark.parametrize("epochs", [EPOCHS[:1], EPOCHS, [replace(EPOCHS[0], train_loss=0.0)]])
def test_a_run_keeps_its_settings_history_and_results(tmp_path, epochs):
    run = Run.create(tmp_path / "new" / "run", "digits", {"seed": 1})
    for count, epoch in enumerate(epochs, start=1):
        run.record(epoch, PARAMS)
        lines = (run.path / "history.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [asdict(epoch) for epoch in epochs[:count]]
    pictures.draw_run(run.history, run.path / "loss.png", "title")
    results = run.finish(TEST, ("a", "b"))
    assert (results["best_epoch"], results["epochs"]) == (min(2, len(epochs)), len(epochs))
    assert (results["test_accuracy"], results["test_balanced_accuracy"], results["test_loss"]) == (0.75, 0.7, 0.5)
    assert json.loads((run.path / "results.json").read_text()) == {**results, "classes": ["a", "b"]}
    assert results["confusion"] == [[2, 1], [0, 1]]
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 1}
    assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")
    again = Run.open(run.path)
    assert (again.config, again.history) == ({"seed": 1}, epochs)
    files = {"config.json", "history.jsonl", "loss.png", "results.json", "steps.jsonl", "weights.safetensors"}
    assert {path.name for path in run.path.iterdir()} == files


def test_the_weights_of_the_best_epoch_are_kept_and_restored(images, tmp_path):
    few = images.take(np.arange(0, 5000, 10))
    run = Run.create(tmp_path / "run", "digits", {})
    copies = []
    for epoch, params in history(few, rate=0.02, epochs=8, batch_size=16):  # too fast: it gets worse
        run.record(epoch, params)
        copies.append(deepcopy(params))
        assert run.best is min(run.history, key=lambda epoch: epoch.validation_loss)
        restored = deepcopy(params)
        run.restore(restored)
        for name, layer in copies[run.best.epoch - 1].items():
            assert all(np.array_equal(restored[name][key], array) for key, array in layer.items())
    assert 1 < run.best.epoch < 8
    validation = parts_of(few).validation
    assert mlp.loss_and_gradients(restored, validation.inputs, validation.labels)[0] == run.best.validation_loss


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)), st.booleans())
def test_weights_come_back_bit_for_bit_whatever_their_layout(tmp_path_factory, array, transposed):
    path = tmp_path_factory.getbasetemp() / "weights.safetensors"
    array = array.T if transposed else array
    weights.save({"a": {"weight": array}, "b": [np.float64([1, 2])[::-1]]}, path)
    found = {"a": {"weight": np.zeros_like(array)}, "b": [np.zeros(2)]}
    weights.load(found, path)
    assert found["a"]["weight"].tobytes() == array.tobytes()
    assert found["b"][0].tolist() == [2, 1]
    assert not path.with_name("weights.safetensors.part").exists()


def test_weights_have_the_names_that_torch_gives_them(tmp_path):
    weights.save(PARAMS, tmp_path / "weights.safetensors")
    assert list(load_file(tmp_path / "weights.safetensors")) == ["layer.bias", "layer.weight"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": {"weight": np.ones((2, 3))}}, r"the shape of 'layer.bias' is \(3,\) for none"),
        ({"layer": {"weight": np.ones((3, 2)), "bias": np.ones(3)}}, r"'layer.weight' is \(2, 3\) for \(3, 2\)"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, params, message):
    weights.save(PARAMS, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=message):
        weights.load(params, tmp_path / "weights.safetensors")
    assert params["layer"]["weight"].min() == 1


def test_damaged_weights(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"weights.safetensors is not a file of weights: "):
        weights.load(PARAMS, tmp_path / "weights.safetensors")


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights.save(PARAMS, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large; what was there before is as it was"):
            weights.save({"a": np.ones(3000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"is not the folder of a trained run: it has no config.json"):
        Run.open(tmp_path / "missing")
    run = Run.create(tmp_path / "run", "digits", {"task": "knitting"})
    with pytest.raises(ValueError, match=r"it has no history.jsonl"):
        Run.open(run.path)
    run.record(EPOCHS[0], PARAMS)
    with pytest.raises(ValueError, match=r"is a run of the task 'knitting': use one of digits"):
        tasks.predict(Run.open(run.path), [])
    (run.path / "history.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"is not the folder of a trained run: "):
        Run.open(run.path)


def test_a_run_never_takes_the_folder_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Run.create(None, "digits", {}).path for _ in range(4)]
    assert len(set(paths)) == 4
    assert {path.parent.name for path in paths} == {"runs"}
    with pytest.raises(FileExistsError, match="not empty"):
        Run.create(paths[0], "digits", {})
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", "digits", {}).path == tmp_path / "empty"
