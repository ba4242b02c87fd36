"""The command, as its users run it: a process of its own, in an empty folder."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import adamas
from adamas import _commands, _flags, cli
from adamas.rules import RULES
from adamas.training import console

COMMAND = [sys.executable, "-W", "error", "-m", "adamas"]
SMALL = ["train", "digits", "--epochs", "1", "--hidden", "16", "--batch-size", "64"]


@pytest.fixture
def adamas_(tmp_path):
    def run(*arguments, command=COMMAND):
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )

    return run


def error_of(done, folder):
    """Return the line of a command that must have failed and left nothing behind."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_all_is_sorted():
    for module in (_commands, _flags, cli, console):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_version_and_help(adamas_):
    assert adamas_("--version").stdout == f"adamas {adamas.__version__}\n"
    for arguments in ([], ["--help"], ["train"], ["train", "--help"], ["train", "digits", "--help"]):
        done = adamas_(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: ")
    for name in {name for rule in RULES.values() for name in rule.ranges}:
        assert f"--{name.replace('_', '-')} " in done.stdout


def test_a_small_run(adamas_, tmp_path):
    done = adamas_(*SMALL, "--epochs", "2", "--out", "here", "--warmup", "5", "--no-decoupled")
    assert (done.returncode, done.stderr) == (0, "")
    history = [json.loads(line) for line in (tmp_path / "here" / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert re.findall(r"^epoch (\d)/2  loss \d\.\d{4}  accuracy 0\.\d{4}  ", done.stdout, re.MULTILINE) == ["1", "2"]
    (figure,) = re.findall(r"test accuracy +(0\.\d{4})", done.stdout)
    assert float(figure) == round(history[-1]["test_accuracy"], 4) > 0.5
    assert re.search(rf"parameters +{784 * 16 + 16 + 16 * 10 + 10:,}", done.stdout)
    for words in ("train loss", "steps per second", "time in the optimizer", "2 of 2 epochs are in here"):
        assert words in done.stdout
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    assert config["optimizer"] == "AdamW"
    assert config["hyperparameters"] | {"learning_rate": 0.005, "weight_decay": 0.1} == config["hyperparameters"]
    assert config["hyperparameters"]["decoupled"] is False
    assert (config["hidden"], config["warmup"], config["seed"]) == ([16], 5, 0)
    assert (tmp_path / "here" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_of_its_own_folder_and_two_classes(adamas_, tmp_path):
    done = adamas_(*SMALL, "--classes", "3,8", "--hidden", "16,8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "800 images to train on, 200 to test on; layers of 784, 16, 8, 1" in done.stdout
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
    assert _flags.find_rule(name.upper()) is RULES[name]
    assert _flags.find_rule(name.lower()) is RULES[name]
    rule = RULES[name]
    nothing = dict.fromkeys({name for rule in RULES.values() for name in rule.ranges})
    defaults = {name: getattr(rule, name) for name in rule.ranges}
    assert _flags.hyperparameters_of(rule, nothing, {}) == defaults
    for hyperparameter, allowed in rule.ranges.items():
        value = True if allowed is None else 0.25
        values = _flags.hyperparameters_of(rule, {**nothing, hyperparameter: value}, {hyperparameter: 0.125})
        assert values == {**defaults, hyperparameter: value}
        assert _flags.hyperparameters_of(rule, nothing, {hyperparameter: 0.125})[hyperparameter] == 0.125


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
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--batch-size -3", "--batch-size must be at least 1, got -3"),
        ("--seed -1", "--seed must be at least 0, got -1"),
        ("--warmup -1", "--warmup must be at least 0, got -1"),
        ("--warmup 250 --batch-size 16 --epochs 1", "--warmup must be less than the 250 steps of the run, got 250"),
        ("--hidden 0", "--hidden must be widths of 1 to 100000, such as 512 or 256,128, got '0'"),
        ("--hidden 12,x", "--hidden must be widths of 1 to 100000, such as 512 or 256,128, got '12,x'"),
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
    ("package", "extra"), [("typer", "cli"), ("rich", "cli"), ("mlxtend", "train"), ("matplotlib", "train")]
)
def test_a_missing_package_names_its_extra(adamas_, tmp_path, package, extra):
    script = f"import sys; sys.modules[{package!r}] = None; from adamas.cli import main; main()"
    error = error_of(adamas_("train", "digits", command=[sys.executable, "-W", "error", "-c", script]), tmp_path)
    assert package in error
    assert error.endswith(f"pip install 'adamas[{extra}]'")


def test_a_loss_that_is_lost_is_one_line(adamas_):
    done = adamas_(*SMALL, "--optimizer", "sgd", "--learning-rate", "1e30")
    assert done.returncode == 2
    assert re.fullmatch(r"error: the loss became (nan|inf) in epoch 1: try a lower --learning-rate\n", done.stderr)


def test_ctrl_c_keeps_what_was_recorded(tmp_path):
    command = [*COMMAND, *SMALL, "--epochs", "100000", "--out", "here"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a background job would ignore it
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert re.search(r"test accuracy +0\.\d{4}", output)
    history = [json.loads(line) for line in (tmp_path / "here" / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == list(range(1, len(history) + 1))
    assert 1 <= len(history) < 100_000
    assert (tmp_path / "here" / "loss.png").read_bytes().startswith(b"\x89PNG")
