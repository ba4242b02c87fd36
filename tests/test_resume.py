"""Processes that are killed at any instant and resumed: the end is that of one that was never interrupted."""

import json
import random
import subprocess
import sys

import pytest
from command import COMMAND
from safetensors.numpy import load_file

from adamas import Checkpoint, History

PROGRAM = """
import sys
import numpy as np
from adamas import AMSGrad, CheckpointManager, schedules

STEPS = 300
manager = CheckpointManager(sys.argv[1], keep=2, keep_best=1)
opt = AMSGrad(schedules.Cosine(0.1, STEPS), ema=0.9, clip_norm=1.0)
params = {"w": np.linspace(-1, 1, 2000, dtype=np.float32), "b": 0.5}
rng = np.random.default_rng(0)
if saved := manager.resume():
    with saved:
        opt.load(saved.path)
        saved.params(params)
        rng.bit_generator.state = saved.metadata["random"]
print("ready", flush=True)
while opt.t < STEPS:
    grads = {"w": rng.standard_normal(2000).astype(np.float32), "b": rng.standard_normal()}
    params = opt.update(params, grads)
    manager.save(opt, params, metric=abs(params["b"]), random=rng.bit_generator.state)
    print(opt.t, flush=True)
"""


def kill_and_resume(command, folder, instants, kills, lines):
    """Start a process again and again and kill it after so many lines; return after how many kills it was done."""
    for killed in range(kills):
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            ended = [process.stdout.readline() for _ in range(instants.randrange(lines))]
            try:
                process.wait(instants.random() * 0.004)  # somewhere within a step
            except subprocess.TimeoutExpired:
                process.kill()
            else:
                assert process.returncode == 0, ended
                return killed
    return kills


def check_kills(tmp_path, kills, lines):
    instants = random.Random(0)
    uninterrupted = [sys.executable, "-c", PROGRAM, "through"]
    subprocess.run(uninterrupted, cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "killed"]
    assert kill_and_resume(command, tmp_path, instants, kills, lines) == kills
    for path in (tmp_path / "killed").glob("*.safetensors"):
        with Checkpoint(path) as saved:
            saved.verify()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    files = [sorted((tmp_path / run).iterdir()) for run in ("through", "killed")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


def test_killed_20_times_and_resumed_the_files_are_equal_to_the_bit(tmp_path):
    check_kills(tmp_path, 20, 20)


@pytest.mark.stress
def test_killed_200_times_and_resumed_the_files_are_equal_to_the_bit(tmp_path):
    check_kills(tmp_path, 200, 3)


# --- adamas train --resume --------------------------------------------------------------------------------------------


def contents(folder):
    """Return what a run's folder holds, but for times and what was asked for."""
    epochs = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    results = json.loads((folder / "results.json").read_text())
    for row in (*epochs, results):
        del row["seconds"], row["optimizer_seconds"]
    weights = {name: array.tobytes() for name, array in load_file(folder / "weights.safetensors").items()}
    return epochs, results, weights, (folder / "steps.jsonl").read_text()


MLP = ["digits", "--model", "mlp", "--hidden", "8"]
TRAININGS = {
    "digits": [*MLP, "--batch-size", "50", "--epochs", "3", "--patience", "2"],
    "peer": [*MLP, "--batch-size", "100", "--epochs", "2", "--optimizer", "torch:nadam"],
    "augmented": ["digits", "--classes", "3,8", "--epochs", "2", "--batch-size", "64", "--optimizer", "amsgrad"],
    "reviews": ["reviews", "--data", "texts.csv", "--epochs", "3", "--batch-size", "8", "--hidden", "4"],
}


def interrupted(arguments, folder, step):
    """Train in a process that kills itself when it is about to save a later step than this."""
    program = f"""
import os, signal, sys
from adamas import CheckpointManager, cli
save = CheckpointManager.save
def killed(self, optimizer, *arguments, **more):
    if optimizer.t > {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(self, optimizer, *arguments, **more)
CheckpointManager.save = killed
sys.argv = ["adamas", *{arguments!r}]
cli.main()
"""
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "name",
    [name if name in ("digits", "reviews") else pytest.param(name, marks=pytest.mark.stress) for name in TRAININGS],
)
def test_a_killed_training_goes_on_to_the_same_end(name, tmp_path):
    lines = [f"{'good' if i % 3 else 'bad'} film number {i},{'yes' if i % 3 else 'no'}" for i in range(150)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]))
    arguments = ["train", *TRAININGS[name], "--checkpoint-every", "5"]
    done = subprocess.run([*COMMAND, *arguments, "--out", "through"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done
    assert interrupted([*arguments, "--out", "killed"], tmp_path, 11) == -9
    done = subprocess.run(
        [*COMMAND, "train", arguments[1], "--resume", "killed"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert "goes on after step 10, in epoch" in done.stdout
    assert contents(tmp_path / "killed") == contents(tmp_path / "through")
    assert not (tmp_path / "killed" / "checkpoints").exists()
    assert len(History.load(tmp_path / "killed" / "steps.jsonl")) > 5


def test_a_comparison_goes_on_with_what_was_not_done(tmp_path):
    arguments = ["train", *MLP, "--batch-size", "100", "--epochs", "1", "--checkpoint-every", "5"]
    arguments += ["--compare", "sgd,adam"]
    subprocess.run([*COMMAND, *arguments, "--out", "through"], cwd=tmp_path, capture_output=True, check=True)
    assert interrupted([*arguments, "--out", "killed"], tmp_path, 11) == -9
    for _ in range(2):  # then all is complete
        again = [*COMMAND, "train", "digits", "--resume", "killed"]
        done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        for name in ("SGD", "Adam"):
            assert contents(tmp_path / "killed" / name) == contents(tmp_path / "through" / name)
    assert done.stdout.count("the run is complete: 1 epochs") == 2


def test_what_cannot_go_on_is_refused(adamas_, tmp_path):
    small = ["train", *MLP, "--batch-size", "400", "--epochs", "1"]
    assert adamas_(*small, "--out", "here").returncode == 0
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    for arguments, words in {
        ("digits", "--resume", "none"): "--resume 'none' is not the folder of a run that can go on",
        ("reviews", "--resume", "here"): "--resume 'here' is a run of adamas train digits",
        (
            "digits",
            "--resume",
            "here",
            "--epochs",
            "9",
        ): "with the options that 'here' was started with: leave out --epochs",
        ("digits", "--resume", "other"): "--resume 'other' had 7 for train_examples, and now it is 3600",
    }.items():
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "train_examples": 7}))
        done = adamas_("train", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
