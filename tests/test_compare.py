"""Fair comparisons, and the commands about problems."""

import json
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import adamas
from adamas import problems
from adamas._compare import compare, run_all, starts_of

ROSENBROCK = problems.get("rosenbrock")


def test_all_starts_at_once_are_one_after_another():
    starts = starts_of(ROSENBROCK, 3, 0)
    losses, final = run_all(ROSENBROCK, "Adam", 0.05, starts, 30, 0)
    for i, start in enumerate(starts):
        opt, x = adamas.Adam(0.05), start.copy()
        for t in range(30):
            assert_allclose(losses[i, t], ROSENBROCK(x), rtol=1e-12)
            opt.update(x, ROSENBROCK.gradient(x))
        assert_allclose(final[i], ROSENBROCK(x), rtol=1e-12)


def test_every_rule_gets_the_same_starts_noise_and_budget():
    noisy = problems.get("noisy-sphere")
    alone = compare(noisy, ["Adam"], steps=50, seeds=4, tune_budget=5)["Adam"]
    among = compare(noisy, ["SGD", "Adam", "AMSGrad"], steps=50, seeds=4, tune_budget=5)
    assert_array_equal(alone.losses, among["Adam"].losses)
    for outcome in among.values():
        assert_array_equal(outcome.losses[:, 0], alone.losses[:, 0])
        assert len(outcome.tried) == 5
        assert outcome.rate == outcome.rates[np.argmin(outcome.tried)]
        assert 0 < outcome.sensitivity <= 1
    assert not np.array_equal(starts_of(noisy, 4, 0), starts_of(noisy, 4, 1))


def test_divergence_is_a_large_finite_loss_and_counted():
    losses, final = run_all(ROSENBROCK, "SGD", 10.0, starts_of(ROSENBROCK, 3, 0), 20, 0)
    assert np.isfinite(losses).all()
    assert (final == 1e30).all()


def test_on_the_counterexample_amsgrad_wins():
    found = compare(problems.get("counterexample"), ["Adam", "AMSGrad"], steps=300, seeds=2, tune_budget=10)
    assert found["AMSGrad"].quartiles[1] <= found["Adam"].quartiles[1]


# --- the commands -----------------------------------------------------------------------------------------------------


def test_problems_are_listed(adamas_):
    done = adamas_("problems")
    assert done.returncode == 0
    assert all(name in done.stdout for name in problems.names())


def test_minimize_shows_progress_and_draws(adamas_, tmp_path):
    done = adamas_("minimize", "rosenbrock", "--learning-rate", "0.02", "--start", "-1.5,2", "--steps", "5000",
                   "--plot", "out.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step") >= 11
    assert "Adam: f = " in done.stdout
    assert "at (1, 1) after 5000 steps" in done.stdout
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_minimize_a_function_of_ones_own(adamas_, tmp_path):
    (tmp_path / "mine.py").write_text("def bowl(x):\n    return float(((x - 3) ** 2).sum()), 2 * (x - 3)\n")
    done = adamas_("minimize", "mine:bowl", "--start", "0,0,0", "--learning-rate", "0.1", "--gtol", "1e-6",
                   command=[sys.executable, "-m", "adamas"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "at (3, 3, 3)" in done.stdout


def test_compare_prints_draws_and_writes(adamas_, tmp_path):
    done = adamas_("compare", "sphere", "--optimizers", "adam,sgd", "--steps", "100", "--seeds", "3", "--tune-budget",
                   "5", "--plot", "out.png", "--json", "out.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Adam" in done.stdout
    assert "SGD" in done.stdout
    assert (tmp_path / "out.png").exists()
    record = json.loads((tmp_path / "out.json").read_text())
    assert np.shape(record["Adam"]["losses"]) == (3, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minimize", "rosenbrok"), "there is no problem 'rosenbrok': did you mean 'rosenbrock'?"),
        (("minimize", "sphere", "--start", "a,b"), "--start must be numbers separated by commas"),
        (("minimize", "beale", "--dimension", "3"), "n must be 2 for beale, got 3"),
        (("minimize", "sphere", "--steps", "0"), "--steps must be at least 1, got 0"),
        (("minimize", "branin", "--start", "1,2,3"), "--start has 3 numbers, but branin has 2 variables"),
        (("minimize", "math:sin", "--start", "1"), "math:sin must return value and gradient: it gave a TypeError"),
        (("minimize", "sphere", "--optimizer", "adem"), "--optimizer 'adem' is not known: did you mean Adam?"),
        (("minimize", "nowhere:f", "--start", "1"), "nowhere:f cannot be imported"),
        (("minimize", "math:pi", "--start", "1"), "math:pi is 3.14"),
        (("minimize", "math:sin"), "--start is needed for math:sin"),
        (("compare", "sphere", "--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("compare", "sphere", "--optimizers", "adam,?"), "--optimizers '?' is not known"),
    ],
)
def test_an_error_is_one_line(adamas_, arguments, message):
    done = adamas_(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
