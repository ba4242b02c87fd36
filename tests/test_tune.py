"""The tuner: rows that are runs of their own, searches, samplers, budgets that several workers share."""

import importlib
import json
import math
import os
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import adamas
from adamas import AdamTuner, Choice, Int, LogUniform, Tuner, Uniform, _rows, _space, _study, plot, problems, rules

SPACE = {"learning_rate": LogUniform(1e-4, 1), "beta1": Uniform(0.2, 0.99)}


# --- rows -------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    rule=st.sampled_from(sorted(rules.RULES)),
    problem=st.sampled_from(["rosenbrock", "noisy-sphere", "mccormick", "counterexample"]),
    seed=st.integers(0, 1000),
)
def test_a_row_is_the_run_that_it_is_alone(rule, problem, seed):
    """Whatever the others: the same bits, and those of the specification on numbers."""
    cls, rng = rules.RULES[rule], np.random.default_rng(seed)
    names = [name for name in ("learning_rate", "beta1", "beta2", "momentum", "weight_decay") if name in cls.ranges]
    rows = [{name: float(rng.uniform(0, 0.9)) for name in names} for _ in range(5)]
    problem = problems.get(problem)
    starts = problem.start + rng.normal(size=(3, problem.n)) / 10
    together = _rows.run_rows(problem, cls, rows, starts, 20, seed)
    for i, row in enumerate(rows):
        alone = _rows.run_rows(problem, cls, [row], starts, 20, seed)
        assert_array_equal(alone.final[0], together.final[i])
        assert_array_equal(alone.best[0], together.best[i])


def test_a_row_is_what_the_optimizer_does():
    problem, rate = problems.get("rosenbrock"), 0.03
    opt, x = adamas.AdamW(rate, beta1=0.3), problem.start.copy()
    for _ in range(100):
        opt.update(x, problem.gradient(x))
    row = {"learning_rate": rate, "beta1": 0.3}
    losses = _rows.run_rows(problem, rules.AdamW, [row, {**row, "beta1": 0.9}], problem.start[None], 100)
    assert losses.final[0, 0] == pytest.approx(problem.value(x), rel=1e-9)


def test_a_rule_that_branches_on_its_numbers_is_run_row_by_row():
    problem = problems.get("sphere")
    rows = [{"learning_rate": 0.1, "nesterov": flag} for flag in (True, False)]
    losses = _rows.run_rows(problem, rules.Momentum, rows, problem.start[None], 50)
    for row, final in zip(rows, losses.final, strict=True):
        opt, x = adamas.Momentum(**row), problem.start.copy()
        for _ in range(50):
            opt.update(x, problem.gradient(x))
        assert final[0] == pytest.approx(problem.value(x), rel=1e-9)


# --- searches ---------------------------------------------------------------------------------------------------------


def test_the_tutorials_tuner():
    """As the tutorial calls it: a function of two numbers, ranges in the order of the constructor."""

    def objective(x, y):
        return x**2 + y**2

    ranges = [(0.001, 0.1), (0.8, 0.99), (0.9, 0.999), (1e-9, 1e-7)]
    for seed in range(10):
        best_params, best_score = AdamTuner(objective, ranges, seed=seed).tune(num_trials=100, iterations=1000)
        assert best_score < 1e-6
        assert list(best_params) == ["learning_rate", "beta1", "beta2", "epsilon"]
        assert all(low <= best_params[name] <= high for name, (low, high) in zip(best_params, ranges, strict=True))


def test_a_function_of_scalars_may_be_for_scalars_only():
    def at_once(x, y):
        return x**2 + (y - 1) ** 2

    def one_by_one(x, y):
        return math.pow(x, 2) + (y - 1) ** 2 if x else (y - 1) ** 2

    def slopes(x, y):
        return 2 * x, 2 * (y - 1)

    ranges = [(0.01, 0.5)]
    first, second = (AdamTuner(f, ranges, slopes).tune(5, 200) for f in (at_once, one_by_one))
    assert [t.score for t in first.trials] == [t.score for t in second.trials]
    without = AdamTuner(at_once, ranges).tune(5, 200)
    assert [t.score for t in without.trials] == pytest.approx([t.score for t in first.trials], abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"sampler": "tpe"}, {"sampler": "qmc", "pruner": "median"}])
def test_the_same_seed_gives_the_same_search(options):
    first, second = (Tuner("rosenbrock", SPACE, seed=3, **options).tune(20, 100) for _ in range(2))
    assert first.trials == second.trials
    assert first.best_score == min(t.score for t in first.trials if t.score is not None)
    other = Tuner("rosenbrock", SPACE, seed=4, **options).tune(20, 100)
    assert other.trials != first.trials


@pytest.mark.parametrize("pruner", ["median", "hyperband", "asha", "wilcoxon"])
def test_pruned_trials_have_no_score(pruner):
    result = Tuner("sphere", SPACE, pruner=pruner, starts=8).tune(24, 80)
    assert len(result.trials) == 24
    assert result.count("pruned") > 0
    assert all((t.score is None) == (t.state == "pruned") for t in result.trials)


def test_trials_see_the_same_starts_and_noise():
    space = {"learning_rate": Choice([0.1])}
    scores = {trial.score for trial in Tuner("noisy-sphere", space).tune(5, 50).trials}
    assert len(scores) == 1


def test_what_diverges_is_large_and_finite_and_counted():
    result = Tuner("rosenbrock", {"learning_rate": Choice([1e-3, 10.0])}, optimizer="sgd").tune(12, 50)
    bad = [t.score for t in result.trials if t.params["learning_rate"] == 10.0]
    assert set(bad) == {1e30}
    assert result.diverged == len(bad) > 0
    assert result.best_params == {"learning_rate": 1e-3}


def test_any_objective_and_its_failures():
    def objective(trial):
        if trial.number == 2:
            raise ZeroDivisionError("mine")
        return math.nan if trial.number == 3 else abs(trial.params["n"] - 4) + (trial.params["kind"] == "b")

    space = {"n": Int(1, 9), "kind": Choice(["a", "b"])}
    result = Tuner(objective, space, sampler="tpe").tune(30)
    assert (result.best_params, result.best_score) == ({"n": 4, "kind": "a"}, 0.0)
    failed = [t for t in result.trials if t.state == "failed"]
    assert [t.error for t in failed] == ["ZeroDivisionError: mine", "the objective returned NaN"]
    assert len(result.trials) == 30
    nothing = Tuner(lambda trial: 1 / 0, space).tune(2)
    with pytest.raises(ValueError, match="none of 2 trials has a score: ZeroDivisionError"):
        nothing.best_score  # noqa: B018


def test_a_function_that_returns_value_and_gradient():
    result = Tuner(lambda x: (x @ x - 3, 2 * x), SPACE, start=[1.0, 2.0]).tune(20, 300)
    assert result.best_score == pytest.approx(-3)


def test_the_table_the_shares_and_the_picture():
    result = Tuner("rosenbrock", SPACE).tune(60, 200)
    frame = result.to_pandas()
    assert list(frame.columns) == ["number", "learning_rate", "beta1", "score", "best", "state"]
    assert sum(result.sensitivity.values()) == pytest.approx(1)
    assert result.sensitivity["learning_rate"] > result.sensitivity["beta1"]
    order, by_rate, over_two, shares = plot.tuning(result)
    assert order.get_yscale() == by_rate.get_xscale() == over_two.get_xscale() == "log"
    assert_array_equal(order.lines[1].get_ydata(), np.minimum.accumulate(frame["score"]))
    assert (by_rate.get_xlabel(), over_two.get_ylabel()) == ("learning_rate", "beta1")
    assert len(by_rate.collections) == 1
    assert len(shares.patches) == 2


@pytest.mark.parametrize("url", ["journal", "sqlite:///{}/base"])
def test_a_study_is_continued(url, tmp_path):
    storage = url.format(tmp_path) if "{" in url else str(tmp_path / url)
    options = {"storage": storage, "study": "mine"}
    first = Tuner("sphere", SPACE, **options).tune(6, 30)
    second = Tuner("sphere", SPACE, **options).tune(10, 30)
    assert [t.params for t in second.trials[:6]] == [t.params for t in first.trials]
    assert len({t.params["beta1"] for t in second.trials}) == 10


# --- several workers --------------------------------------------------------------------------------------------------

MODULE = """
import os, signal

def f(x):
    try:  # the first of all workers to come here dies in the middle of its trial
        os.close(os.open("died", os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass
    return float(x @ x), 2 * x
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the environment
        pgserver = importlib.import_module("pgserver")
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.mark.parametrize("kind", ["journal", "postgres"])
def test_a_worker_that_is_killed_loses_no_trial(kind, request, adamas_, tmp_path):
    url = request.getfixturevalue("postgres") if kind == "postgres" else str(tmp_path / "journal")
    (tmp_path / "mine.py").write_text(MODULE)
    line = "tune mine:f --start 1,2 --trials 24 --iterations 10 --workers 4 --study s --json out.json"
    done = adamas_(*line.split(), "--storage", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "died").exists()
    with _study.quiet(), _study.stored(url) as storage:
        trials = optuna.load_study(study_name="s", storage=storage).trials
    states = [trial.state.name for trial in trials]
    assert 24 <= states.count("COMPLETE") <= 24 + 3
    assert set(states) == {"COMPLETE", "FAIL"}
    (died,) = [trial for trial in trials if trial.state.name == "FAIL"]
    (again,) = [trial for trial in trials if trial.user_attrs.get("again") == died.number]
    assert again.params == died.params
    assert len({trial.user_attrs["worker"] for trial in trials}) >= 2
    assert len(json.loads((tmp_path / "out.json").read_text())) == states.count("COMPLETE")


def test_a_trial_of_a_living_worker_is_left_alone(tmp_path):
    with _study.quiet():
        storage = _study.open_storage(str(tmp_path / "journal"))
        study = optuna.create_study(storage=storage)
        living, dead = study.ask(), study.ask()
        living.set_user_attr("worker", _study.worker_name())
        dead.set_user_attr("worker", f"{_study.worker_name().rpartition(':')[0]}:{2**22 + os.getpid()}")
        assert _study.recover(study) == 1
        assert [t.state.name for t in study.trials] == ["RUNNING", "FAIL", "WAITING"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(adamas_, tmp_path):
    line = "tune rosenbrock --trials 30 --iterations 100 --sampler tpe --prune --plot t.png --json t.json"
    done = adamas_(*line.split(), "--space", "learning_rate=log:1e-3:1", "--space", "beta1=0.5:0.9")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["trial", "score", "learning_rate", "beta1"]
    assert lines[6].startswith("30 trials: ")
    assert lines[-1] == "drawn: t.png"
    assert len(json.loads((tmp_path / "t.json").read_text())) == 30


def test_training_runs_are_tuned(adamas_, tmp_path):
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "lovely", "great"], "bad": ["awful", "poor", "dull"]}
    texts = [
        (" ".join(rng.choice([*words[label], "film", "plot", str(k)], 6)), label) for k in range(60) for label in words
    ]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    line = "tune reviews --data texts.csv --trials 3 --epochs 2 --prune --space learning_rate=log:1e-3:1e-1"
    done = adamas_(*line.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in done.stdout


@pytest.mark.stress
@pytest.mark.parametrize("task", ["digits", "reviews"])
def test_the_training_runs_of_the_package_are_tuned(task, adamas_):
    done = adamas_(
        "tune", task, "--trials", "2", "--epochs", "1", "--space", "learning_rate=log:1e-3:1e-2", timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 trials: 2 complete, 0 pruned, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sphere --space learning_rate=1:0.5", "Uniform(low=1.0, high=0.5) is empty: low must be less than high"),
        ("sphere --space learning_rate=log:0:1", "goes through 0, which has no logarithm"),
        ("sphere --space beta1=0.9:1", "beta1 must be in [0, 1), got 1.0 in space['beta1']"),
        ("sphere --space beta3=0:1", "space: Adam has no 'beta3': it has learning_rate, beta1"),
        ("digits --space beta3=0:1", "space: Adam has no 'beta3': it has learning_rate, beta1"),
        ("sphere --space beta1", "'beta1' is no range: write it as learning_rate=log:1e-4:1"),
        ("sphere --sampler best", "sampler must be one of 'random', 'tpe', 'qmc', got 'best'"),
        ("sphere --trials 0", "--trials must be at least 1, got 0"),
        ("sphere --workers 2", "--workers need --storage and --study"),
        ("sphere --workers 2 --study s --storage sqlite:///x", "is SQLite, which locks the whole file"),
        ("sphere --storage postgresql://me@127.0.0.1:1/x", "cannot be reached: "),
        ("spher", "there is no problem 'spher': did you mean 'sphere'?"),
        ("math:sin", "--start is needed for math:sin"),
        ("math:sin --start 1 --trials 1", "math:sin must return value and gradient: it gave a TypeError"),
        ("sphere --epochs 3", "--epochs is for digits and reviews: leave it out"),
    ],
)
def test_bad_lines(line, message, adamas_):
    done = adamas_("tune", *line.split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Tuner("sphere", {}), TypeError, "space must be a dict"),
        (
            lambda: Tuner("sphere", {"learning_rate": (0, 1)}),
            TypeError,
            r"space\['learning_rate'\] must be a LogUniform",
        ),
        (
            lambda: Tuner("sphere", SPACE, optimizer="adem"),
            ValueError,
            "there is no optimizer 'adem': did you mean 'adam'",
        ),
        (lambda: Tuner(3, SPACE), TypeError, "objective must be a problem, its name or a function, got 3"),
        (lambda: Tuner("sphere", SPACE, starts=0), ValueError, "starts must be an integer of at least 1, got 0"),
        (lambda: Tuner("sphere", SPACE).tune(0), ValueError, "num_trials must be an integer of at least 1, got 0"),
        (lambda: Tuner("sphere", SPACE, pruner="x").tune(1), ValueError, "pruner must be one of 'median'"),
        (lambda: Tuner(sum, SPACE, start=[math.nan]), ValueError, "start must be finite numbers"),
        (lambda: AdamTuner(abs, []), ValueError, "ranges must be 1 to 4 pairs, of learning_rate, beta1"),
        (lambda: AdamTuner(abs, [(0.1, 0.2), (0.9, 1.0)]), ValueError, r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda: Choice([]), ValueError, "Choice needs at least one option"),
        (lambda: Int(1, 2.5), TypeError, "Int needs integers"),
        (lambda: Uniform(0, math.inf), ValueError, "low must be less than high, both finite"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_ranges_as_text():
    assert _space.parse("a=log:1e-4:1") == ("a", LogUniform(1e-4, 1))
    assert _space.parse("a=0.5:2") == ("a", Uniform(0.5, 2))
    assert _space.parse("a=int:1:5") == ("a", Int(1, 5))
    assert _space.parse("a=true,2,x") == ("a", Choice([True, 2.0, "x"]))
    rng = np.random.default_rng(0)
    for chosen in (LogUniform(1e-4, 1), Uniform(-1, 2), Int(1, 3), Choice("ab")):
        draws = chosen.draw(rng, 200)
        assert all(chosen.ends[0] <= x <= chosen.ends[-1] for x in draws)
        assert len(set(draws)) > 1
