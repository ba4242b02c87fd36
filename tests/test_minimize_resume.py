"""A run of minimize that is interrupted at any iteration and goes on is the run that never stopped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamas
from adamas import Minimizer, problems, schedules
from adamas.errors import CheckpointError

rosenbrock = problems.get("rosenbrock")


def noisy(x, batch):
    return float(((x - np.mean(batch)) ** 2).sum()), 2 * (x - np.mean(batch))


RUNS = {
    "plain": lambda: Minimizer(rosenbrock.value_and_gradient, [-1.2, 1.0], jac=True, gtol=1e-9, maxiter=60),
    "tolerances": lambda: Minimizer(
        rosenbrock.value_and_gradient, [-1.2, 1.0], jac=True, method="amsgrad", learning_rate=0.1, ftol=1e-3,
        patience=5, xtol=1e-9, max_seconds=1e6, return_x="best", maxiter=60,
    ),
    "bounds, units": lambda: Minimizer(
        rosenbrock.value_and_gradient, [-1.2, 1.0], jac=True, bounds=[(-2, 0.5), (None, None)], x_scale=[1, 10],
        learning_rate=schedules.Cosine(0.05, 60), return_x="average", maxiter=60,
    ),
    "finite sum": lambda: Minimizer(noisy, [3.0], jac=True, n_terms=10, batch_size=3, rng=4, ftol=0.0, maxiter=60),
    "spsa": lambda: Minimizer(
        lambda x, batch: noisy(x, batch)[0], [3.0], jac="spsa", n_terms=7, batch_size=2, rng=4, maxiter=60
    ),
    "data": lambda: Minimizer(noisy, [3.0], jac=True, data=[np.arange(k) + 1.0 for k in (3, 5, 8)], maxiter=60),
    "generator": lambda: Minimizer(noisy, [3.0], jac=True, data=(np.arange(k) + 1.0 for k in range(1, 30)), maxiter=60),
    "many": lambda: Minimizer(
        rosenbrock.value_and_gradient, np.linspace(-1, 1, 10).reshape(5, 2), jac=True, vectorized=True, gtol=1e-3,
        maxiter=60,
    ),
}  # fmt: skip


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.parametrize("name", RUNS)
@given(stops=st.lists(st.integers(0, 59), min_size=1, max_size=3, unique=True))
@settings(max_examples=8, deadline=None)
def test_it_goes_on_to_the_bit(tmp_path_factory, name, stops):
    path = tmp_path_factory.mktemp("run") / "x"
    whole, run = RUNS[name](), RUNS[name]()
    while whole.step():
        pass
    while True:
        if run.nit in stops:
            stops = [stop for stop in stops if stop != run.nit]
            run.save(path, note=run.nit)
            run = RUNS[name]().load(path)
        if not run.step():
            break
    assert_same(whole.result(), run.result())
    run.save(path)
    assert_same(run.result(), RUNS[name]().load(path).result())


def test_what_is_another_run_is_refused(tmp_path):
    run = RUNS["plain"]()
    run.step()
    run.save(tmp_path / "run")
    adamas.Adam().save(tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds an optimizer, not a run of minimize"):
        RUNS["plain"]().load(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"holds a run of x of shape \(2,\), not \(1,\)"):
        RUNS["data"]().load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run with other tolerances"):
        RUNS["bounds, units"]().load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds the state of Adam, not of Lion"):
        Minimizer(rosenbrock.value_and_gradient, [0.0, 0.0], jac=True, method="lion", gtol=1.0).load(tmp_path / "run")
    with pytest.raises(ValueError, match="at its start: make a new Minimizer"):
        run.load(tmp_path / "run")
