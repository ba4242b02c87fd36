"""Every example runs, in an empty folder, and says what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def run(path, folder):
    command = [sys.executable, "-W", "error", path]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_draw_what_they_say(path, tmp_path):
    assert run(path, tmp_path)
    drawn = re.findall(r'savefig\("(.+?)"', path.read_text())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(drawn)


def test_what_the_examples_show(tmp_path):
    shown = {path.stem: run(path, tmp_path) for path in EXAMPLES}
    assert "Adam     ends at +0.98" in shown["variants"]
    assert "AMSGrad  ends at -1.000" in shown["variants"]
    assert "y = 3.0000 x -1.0000" in shown["from_scratch"]
    assert float(re.findall(r"accuracy (\S+)", shown["neural_network"])[-1]) > 0.97
    adam, sgd = (float(value) for value in re.findall(r"f = (\S+) at", shown["trajectories"]))
    assert adam < sgd
    assert float(re.findall(r"f = (\S+),", shown["tuner"])[0]) < 1e-6
    assert shown["momentum_step_by_step"].count("\n") == 11
    full, short = (float(loss) for loss in re.findall(r"loss (\S+),", shown["eight_bits"]))
    assert abs(short - full) < 0.02 * full
    assert float(re.findall(r"to (\S+)$", shown["between_libraries"].strip())[0]) < 1e-12
