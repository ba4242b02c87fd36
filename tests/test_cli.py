"""The command, as its users run it: a process of its own, in an empty folder."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from command import COMMAND, error_of
from PIL import Image
from safetensors.numpy import load_file

import adamas
from adamas import History, _choices, _commands, _digits, _experiment, _flags, _predict, _reviews, cli
from adamas.rules import RULES
from adamas.training import Epoch, console, digits
from adamas.training.tasks import TASKS

SMALL = ["train", "digits", "--model", "mlp", "--epochs", "1", "--hidden", "16", "--batch-size", "64"]


@pytest.fixture(scope="module")
def threes_and_eights(tmp_path_factory):
    """A folder of images, 30 of each class: black ink on white paper, as scanned."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("three", "eight"):
        (folder / name).mkdir()
    images = digits().only(["3", "8"])
    for k in range(60):
        label = k % 2
        levels = np.rint(255 * images.inputs[images.labels == label][k // 2]).astype(np.uint8)
        Image.fromarray(255 - levels).resize((56, 56)).save(folder / ("three", "eight")[label] / f"{k}.png")
    return folder


def test_all_is_sorted():
    for module in (_choices, _commands, _digits, _experiment, _flags, _predict, _reviews, cli, console):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_version_and_help(adamas_):
    assert adamas_("--version").stdout == f"adamas {adamas.__version__}\n"
    for line in ("", "--help", "train", "train --help", "predict --help", "train digits --help"):
        done = adamas_(*line.split())
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: ")
    for name in {name for rule in RULES.values() for name in rule.ranges}:
        assert f"--{name.replace('_', '-')} " in done.stdout


def test_recorded_steps_are_shown_and_drawn(adamas_, tmp_path):
    assert adamas_(*SMALL, "--epochs", "2", "--out", "here").returncode == 0
    done = adamas_("history", "show", "here")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["step", "loss", "learning", "rate", "gradients", "rates", "change/norm"]
    assert lines[1].split()[0] == "1"
    assert [line.split()[0] for line in lines if "weight" in line or "bias" in line] == History.load(
        tmp_path / "here" / "steps.jsonl"
    ).paths
    assert max(map(len, lines)) <= 80
    assert adamas_(*["minimize", "rosenbrock", "--history", "there.jsonl"]).returncode == 0
    assert adamas_("history", "show", "there.jsonl").stdout.splitlines()[-1].split()[0] == "1000"
    done = adamas_(*["plot", "here", "there.jsonl", "--out", "both.png"])
    assert (done.returncode, done.stdout) == (0, "the picture is in both.png\n")
    assert (tmp_path / "both.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("history show nowhere", "RUN 'nowhere' has no recorded steps: name the folder of a run"),
        ("plot nowhere", "RUN 'nowhere' has no recorded steps: name the folder of a run"),
        ("history show --out x", "No such option: --out"),
        ("plot", "Missing argument 'RUN...'."),
    ],
)
def test_wrong_words_about_what_was_recorded(adamas_, tmp_path, line, message):
    assert error_of(adamas_(*line.split()), tmp_path).startswith(message)


def test_a_file_that_is_no_history(adamas_, tmp_path):
    (tmp_path / "x.jsonl").write_text("hello\n")
    done = adamas_("plot", "x.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: RUN x.jsonl is not a saved history: line 1 is not an object in JSON\n"


def test_a_small_run(adamas_, tmp_path):
    done = adamas_(*SMALL, "--epochs", "2", "--out", "here", "--warmup", "5", "--no-decoupled")
    assert (done.returncode, done.stderr) == (0, "")
    history = [json.loads(line) for line in (tmp_path / "here" / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    line = r"^epoch (\d)/2  loss \d\.\d{4}  validation \d\.\d{4}  accuracy 0\.\d{4}  "
    assert re.findall(line, done.stdout, re.MULTILINE) == ["1", "2"]
    results = json.loads((tmp_path / "here" / "results.json").read_text())
    for name in ("train loss", "validation loss", "test loss", "test accuracy", "test balanced accuracy"):
        (figure,) = re.findall(rf"{name} +(\d\.\d{{4}})", done.stdout)
        assert float(figure) == round(results[name.replace(" ", "_")], 4)
    assert results["test_accuracy"] > 0.5
    assert results["validation_loss"] == min(entry["validation_loss"] for entry in history)
    confusion = np.array(results["confusion"])
    assert confusion.sum(axis=1).tolist() == [100] * 10
    assert confusion.trace() == round(1000 * results["test_accuracy"])
    rows = [line.split() for line in done.stdout.splitlines()]
    for label, row in enumerate(confusion):
        assert [str(label), *(str(count or ".") for count in row)] in rows
    assert f"{784 * 16 + 16 + 16 * 10 + 10:,} parameters" in done.stdout
    for words in ("steps per second", "time in the optimizer", "2 of 2 epochs are in here"):
        assert words in done.stdout
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    assert config["optimizer"] == "AdamW"
    assert config["hyperparameters"] | {"learning_rate": 0.005, "weight_decay": 0.1} == config["hyperparameters"]
    assert config["hyperparameters"]["decoupled"] is False
    assert (config["hidden"], config["warmup"], config["seed"]) == ([16], 5, 0)
    assert (tmp_path / "here" / "loss.png").read_bytes().startswith(b"\x89PNG")
    again = adamas_(*SMALL, "--epochs", "2", "--out", "again", "--warmup", "5", "--no-decoupled")
    assert again.returncode == 0
    for name in ("config.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_run_of_its_own_folder_and_two_classes(adamas_, tmp_path):
    done = adamas_(*SMALL, "--classes", "3,8", "--hidden", "16,8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "720 images to train on, 80 to validate by, 200 to test on; 12,705 parameters" in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")
    assert str(folder.relative_to(tmp_path)) in done.stdout
    assert json.loads((folder / "config.json").read_text())["classes"] == ["3", "8"]


@pytest.mark.parametrize("schedule", _flags.Schedule)
def test_a_schedule_starts_at_the_rate_and_ends_low(schedule):
    course = schedule.of(0.5, steps=100)
    assert course(0) == 0.5
    assert course(99) == 0.5 if schedule == "constant" else course(99) < 0.01
    warm = schedule.of(0.5, steps=100, warmup=10)
    assert np.isclose([warm(0), warm(9), warm(10)], [0.05, 0.5, 0.5]).all()
    assert warm(99) == 0.5 if schedule == "constant" else warm(99) < 0.01


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_chosen_in_any_case_and_has_its_flags(name):
    rule = RULES[name]
    for spelled in (name.upper(), name.lower()):
        choice = _choices.find_choice(spelled)
        assert (choice.name, choice.cls) == (name, getattr(adamas, name))
    nothing = dict.fromkeys(_flags.RANGES)
    assert choice.values(nothing, {}) == {name: getattr(rule, name) for name in rule.ranges} == choice.defaults
    check_values(choice, rule.ranges, nothing)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adamax"])
def test_optimizers_of_torch_can_be_chosen_and_have_the_flags_that_they_know(name):
    choice = _choices.find_choice(f"Torch:{name.upper()}")
    assert choice.name == f"torch:{name}"
    check_values(choice, {name: _flags.RANGES[name] for name in choice.defaults}, dict.fromkeys(_flags.RANGES))


def check_values(choice, ranges, nothing):
    for hyperparameter, allowed in ranges.items():
        value = True if allowed is None else 0.25
        values = choice.values({**nothing, hyperparameter: value}, {hyperparameter: 0.125})
        assert values == {**choice.defaults, hyperparameter: value}
        assert choice.values(nothing, {hyperparameter: 0.125})[hyperparameter] == 0.125


@pytest.mark.parametrize("network", _digits.ImageNetwork)
def test_what_is_tuned_is_of_rules_that_there_are(network):
    rules = {name.lower(): rule for name, rule in RULES.items()}
    for name, values in _digits.DEFAULTS[network].tuned.items():
        for hyperparameter, value in values.items():
            rules[name].checked(hyperparameter, value)


def test_sgd_trains_at_the_rate_given(adamas_):
    done = adamas_(*SMALL, "--optimizer", "sgd", "--learning-rate", "0.1", "--schedule", "constant")
    assert done.returncode == 0
    assert "SGD(learning_rate=0.1, " in done.stdout
    assert "rate 1.0e-01" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--optimizer adm", "--optimizer 'adm' is not known: did you mean Adam? There are SGD, "),
        ("--optimizer xyz", "--optimizer 'xyz' is not known: use one of SGD, "),
        ("--optimizer sgd --beta1 0.5", "--beta1 is not for SGD: it has --learning-rate, --weight-decay, --decoupled"),
        ("--learning-rate nan", "--learning-rate must be finite and at least 0, got nan"),
        ("--learning-rate=-1", "--learning-rate must be finite and at least 0, got -1.0"),
        ("--learning-rate fast", "Invalid value for '--learning-rate': "),
        ("--beta1 1", "--beta1 must be in [0, 1), got 1.0"),
        ("--optimizer torch:adm", "--optimizer 'torch:adm' is not known: did you mean torch:Adam? There are torch:"),
        ("--optimizer torch:lbfgs", "--optimizer 'torch:lbfgs' is not known: "),
        ("--optimizer torch:sgd --beta1 0.5", "--beta1 is not for torch:SGD: it has --learning-rate, --momentum, "),
        (
            "--optimizer torch:sgd --nesterov --momentum 0",
            "--optimizer torch:SGD: Nesterov momentum requires a momentum and zero dampening",
        ),
        ("--compare sgd", "--compare needs two or more optimizers, such as sgd,rmsprop,adam, got 'sgd'"),
        ("--compare sgd,adm", "--compare 'adm' is not known: did you mean Adam? There are SGD, "),
        ("--compare sgd,adam,SGD", "--compare names SGD twice: name each once"),
        ("--compare sgd,adam --beta1 0.5", "--beta1 is not for SGD: it has --learning-rate, "),
        ("--compare sgd,adam --optimizer sgd", "--optimizer and --compare exclude each other: give one"),
        ("--hidden 5", "--hidden is for --model mlp: leave it out, or choose that"),
        ("--model rnn", "Invalid value for '--model': "),
        ("--patience -1", "--patience must be at least 0, got -1"),
        ("--threads 0", "--threads must be at least 1, got 0"),
        ("--threads 4096", "--threads must be at most "),
        ("--model mlp --threads 1", "--threads is for networks in PyTorch: leave it out"),
        ("--image-size 14", "--image-size is for --data with folders of images: leave it out"),
        ("--data missing", "--data 'missing' cannot be read: No such file or directory"),
        ("--data /dev/null", "--data '/dev/null' cannot be read: Not a directory"),
        ("--data .", "--data . holds neither IDX files (train-images-idx3-ubyte) nor a folder for each class"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--batch-size -3", "--batch-size must be at least 1, got -3"),
        ("--seed -1", "--seed must be at least 0, got -1"),
        ("--warmup -1", "--warmup must be at least 0, got -1"),
        ("--warmup 225 --batch-size 16 --epochs 1", "--warmup must be less than the 225 steps of the run, got 225"),
        ("--model mlp --hidden 0", "--hidden must be widths of 1 to 100000, such as 512 or 256,128, got '0'"),
        ("--model mlp --hidden 12,x", "--hidden must be widths of 1 to 100000, such as 512 or 256,128, got '12,x'"),
        ("--classes 3", "--classes '3': one class leaves nothing to tell apart: use two or more of 0, 1, "),
        ("--classes 3,x", "--classes '3,x': there is no class 'x': use two or more of 0, 1, "),
        ("--schedule steep", "Invalid value for '--schedule': "),
        ("--out /dev/null/x", "--out '/dev/null/x' cannot be used: Not a directory: name a new folder"),
        ("--out /dev", "--out '/dev' cannot be used: it is not empty: name a new folder"),
        ("--epoch 3", "No such option: --epoch"),
        ("more", "Got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(adamas_, tmp_path, arguments, error):
    assert error_of(adamas_("train", "digits", *arguments.split()), tmp_path).startswith(error)


def test_an_unknown_command(adamas_, tmp_path):
    assert error_of(adamas_("trein"), tmp_path).startswith("No such command 'trein'")


@pytest.mark.parametrize(
    ("package", "extra"),
    [("typer", "cli"), ("rich", "cli")]
    + [(name, "train") for name in ("mlxtend", "matplotlib", "safetensors", "torch")],
)
def test_a_missing_package_names_its_extra(adamas_, tmp_path, package, extra):
    script = f"import sys; sys.modules[{package!r}] = None; from adamas.cli import main; main()"
    error = error_of(adamas_("train", "digits", command=[sys.executable, "-W", "error", "-c", script]), tmp_path)
    assert package in error
    assert error.endswith(f"pip install 'adamas[{extra}]'")


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("torch", "--optimizer torch:sgd"), ("torch", "--augment"), ("PIL", "--data .")],
)
def test_a_package_that_only_an_option_needs(adamas_, tmp_path, package, arguments):
    script = f"import sys; sys.modules[{package!r}] = None; from adamas.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", script]
    done = adamas_("train", "digits", "--model", "mlp", *arguments.split(), command=command)
    assert f"needs the package {package}" in error_of(done, tmp_path)


def test_the_network_in_numpy_does_not_import_torch(adamas_, tmp_path):
    script = "import sys; sys.modules['torch'] = None; from adamas.cli import main; main()"
    done = adamas_(*SMALL, "--out", "here", command=[sys.executable, "-W", "error", "-c", script])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_loss_that_is_lost_is_one_line(adamas_):
    done = adamas_(*SMALL, "--optimizer", "sgd", "--learning-rate", "1e30")
    assert done.returncode == 2
    assert re.fullmatch(r"error: the loss became (nan|inf) in epoch 1: try a lower --learning-rate\n", done.stderr)


@pytest.mark.parametrize("comparison", [False, True])
def test_ctrl_c_keeps_what_was_recorded(tmp_path, comparison):
    command = [*COMMAND, *SMALL, "--epochs", "100000", "--out", "here"]
    command += ["--compare", "adamw,sgd"] if comparison else []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a background job would ignore it
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        assert list(tmp_path.glob("**/weights.safetensors")), "kept before the epoch is shown"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")
    if comparison:
        assert "each with its best weights" in output
        assert {path.name for path in (tmp_path / "here").iterdir()} == {"AdamW", "compare.png", "config.json"}
    else:
        assert re.search(r"test accuracy +0\.\d{4}", output)
    folder = tmp_path / "here" / "AdamW" if comparison else tmp_path / "here"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == list(range(1, len(history) + 1))
    assert 1 <= len(history) < 100_000
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert load_file(folder / "weights.safetensors")["layer1.weight"].shape == (784, 16)
    best = min(history, key=lambda entry: entry["validation_loss"])
    assert json.loads((folder / "results.json").read_text())["best_epoch"] == best["epoch"]


# --- comparisons ------------------------------------------------------------------------------------------------------


def history_of(folder):
    return [Epoch(**json.loads(line)) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_comparison_starts_all_alike_and_is_shown_together(adamas_, tmp_path):
    done = adamas_(*SMALL, "--compare", "sgd,Adam,torch:adam", "--learning-rate", "0.002", "--out", "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        *("config.json", "compare.png", "SGD", "Adam", "torch-Adam")
    }
    assert (tmp_path / "here" / "compare.png").read_bytes().startswith(b"\x89PNG")
    shared = json.loads((tmp_path / "here" / "config.json").read_text())
    assert (shared["comparison"], shared["seed"]) == (["SGD", "Adam", "torch:Adam"], 0)
    assert "optimizer" not in shared
    losses = {}
    for name in ("SGD", "Adam", "torch-Adam"):
        folder = tmp_path / "here" / name
        results = json.loads((folder / "results.json").read_text())
        row = rf"^ {name.replace('-', ':')} +0.002 +1 .* {results['test_accuracy']:.4f} "
        assert re.search(row, done.stdout, re.MULTILINE)
        assert (folder / "loss.png").exists()
        (losses[name],) = (epoch.train_loss for epoch in history_of(folder))
    assert abs(losses["Adam"] - losses["torch-Adam"]) < 1e-3 * abs(losses["Adam"] - losses["SGD"])
    alone = adamas_(*SMALL, "--optimizer", "adam", "--learning-rate", "0.002", "--out", "alone")
    assert alone.returncode == 0
    assert history_of(tmp_path / "alone")[0].train_loss == losses["Adam"]
    done = adamas_("predict", "here", "image.png")
    assert done.stderr.startswith("error: here is not the folder of a trained run: it has no history.jsonl")


def test_a_comparison_of_which_one_is_lost_goes_on(adamas_, tmp_path):
    done = adamas_(*SMALL, "--compare", "sgd,adam", "--weight-decay", "1e10", "--epochs", "2", "--out", "here")
    assert done.returncode == 2
    assert re.fullmatch(r"error: SGD: the loss became (nan|inf) in epoch 1: .*\n", done.stderr)
    assert len(history_of(tmp_path / "here" / "Adam")) == 2
    assert "\n Adam " in done.stdout


# --- a trained run, used ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(threes_and_eights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    options = ["--epochs", "12", "--batch-size", "8", "--image-size", "20", "--out", "run"]
    command = [*COMMAND, "train", "digits", "--data", str(threes_and_eights), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "run"


def test_a_run_on_a_folder_of_images(trained):
    config = json.loads((trained / "config.json").read_text())
    assert (config["task"], config["model"], config["shape"]) == ("digits", "cnn", [20, 20])
    assert config["classes"] == ["eight", "three"]
    assert [config[f"{name}_examples"] for name in ("train", "validation", "test")] == [44, 4, 12]
    assert config["task"] in TASKS


def test_a_trained_run_classifies_images(adamas_, trained, threes_and_eights, tmp_path):
    files = [threes_and_eights / name for name in ("three/0.png", "three/2.png", "eight/1.png", "eight/3.png")]
    inverted = tmp_path / "inverted.bmp"
    Image.fromarray(255 - np.asarray(Image.open(files[0]))).save(inverted)
    done = adamas_("predict", str(trained), *map(str, files), inverted.name)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"(three|eight) +([01]\.\d{4}) *$", done.stdout, re.MULTILINE)
    assert [name for name, _ in found] == ["three", "three", "eight", "eight", "three"]
    assert found[0] == found[4], "dark ink or light, the same image"
    assert all(float(share) >= 0.5 for _, share in found)
    assert "inverted.bmp" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["missing", "x.png"], "missing is not the folder of a trained run: it has no config.json"),
        (["RUN", "x.png"], "[Errno 2] No such file or directory: 'x.png'"),
        (["RUN", "RUN/config.json"], "RUN/config.json cannot be used: no image that Pillow opens"),
        (["RUN"], "Missing argument 'INPUT...'"),
    ],
)
def test_predictions_that_cannot_be_made(adamas_, trained, tmp_path, arguments, error):
    named = [argument.replace("RUN", str(trained)) for argument in arguments]
    assert error_of(adamas_("predict", *named), tmp_path).startswith(error.replace("RUN", str(trained)))


def test_images_that_are_too_small_for_the_network(adamas_, tmp_path, threes_and_eights):
    done = adamas_("train", "digits", "--data", str(threes_and_eights), "--image-size", "9")
    assert error_of(done, tmp_path) == "--data images must be at least 10x10, got 9x9"


def test_a_class_that_a_folder_does_not_have(adamas_, tmp_path, threes_and_eights):
    done = adamas_("train", "digits", "--data", str(threes_and_eights), "--classes", "three,nine")
    assert error_of(done, tmp_path).startswith("--classes 'three,nine': there is no class 'nine': use two or more of ")


def test_an_idx_folder_with_its_own_test(adamas_, tmp_path):
    data = tmp_path / "mnist"
    images = digits().take(np.arange(0, 5000, 25))
    levels, labels = np.rint(255 * images.inputs).astype(np.uint8), images.labels.astype(np.uint8)
    data.mkdir()
    for part, chosen in (("train", slice(None)), ("t10k", slice(0, 200, 4))):
        for kind, array in (("images-idx3", levels[chosen]), ("labels-idx1", labels[chosen])):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (data / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    done = adamas_(*SMALL, "--data", "mnist", "--out", "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "180 images to train on, 20 to validate by, 50 to test on" in done.stdout
    (data / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\3")
    done = adamas_(*SMALL, "--data", "mnist", "--out", "there")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --data mnist/t10k-images-idx3-ubyte ends within its 3 dimensions\n",
    )
    assert not (tmp_path / "there").exists()
