"""`minimize` and `Minimizer`: stopping, bounds, gradients by all means, batches, many starts, errors."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning

import adamas
from adamas import Minimizer, minimize, problems, rules, schedules

ROSENBROCK, SPHERE = problems.get("rosenbrock"), problems.get("sphere")
FALLING = schedules.Exponential(0.1, 0.5, steps=1000)


@pytest.mark.parametrize("method", [name.lower() for name in rules.RULES] + ["Adam", "AMSGRAD"])
def test_every_rule_is_a_method(method):
    result = minimize(SPHERE, [3.0, -4.0], method=method, jac=SPHERE.gradient, learning_rate=0.05, maxiter=3000)
    assert isinstance(result, OptimizeResult)
    assert result.fun < 0.2
    assert result.success
    assert result.nit == result.njev == 3000
    assert result.status == 1


def test_the_steps_are_those_of_the_optimizer():
    """The bits of a loop written by hand; fun is evaluated once, at the end."""
    result = minimize(ROSENBROCK, ROSENBROCK.start, jac=ROSENBROCK.gradient, learning_rate=FALLING, maxiter=500)
    opt, x = adamas.Adam(FALLING), ROSENBROCK.start.copy()
    for _ in range(500):
        opt.update(x, ROSENBROCK.gradient(x))
    assert_array_equal(result.x, x)
    assert result.fun == ROSENBROCK(x)
    assert (result.nfev, result.njev) == (1, 500)


def test_an_optimizer_is_a_method_and_is_reset():
    opt = adamas.Adam(0.05, beta1=0.8)
    first = minimize(SPHERE, [1.0, 1.0], method=opt, jac=SPHERE.gradient, maxiter=50)
    second = minimize(SPHERE, [1.0, 1.0], method=opt, jac=SPHERE.gradient, maxiter=50)
    named = minimize(SPHERE, [1.0, 1.0], jac=SPHERE.gradient, maxiter=50, learning_rate=0.05, beta1=0.8)
    assert_array_equal(first.x, second.x)
    assert_array_equal(first.x, named.x)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jac", [None, "2-point", "3-point", True, ROSENBROCK.gradient])
def test_the_gradient_by_any_means(jac):
    fun = ROSENBROCK.value_and_gradient if jac is True else ROSENBROCK
    result = minimize(fun, ROSENBROCK.start, jac=jac, learning_rate=FALLING, maxiter=8000)
    assert_allclose(result.x, 1, atol=1e-3)
    assert result.njev == 8000
    assert result.nfev == {True: 8001, None: 24_001, "2-point": 24_001, "3-point": 40_001}.get(
        jac if not callable(jac) else "", 1
    )


def test_spsa_minimizes_a_noisy_function():
    rng = np.random.default_rng(0)
    result = minimize(
        lambda x: SPHERE(x) + 0.01 * rng.standard_normal(), [1.0, -2.0], jac="spsa", maxiter=4000, rng=1,
        learning_rate=schedules.Exponential(0.05, 0.5, 1000),
    )  # fmt: skip
    assert_allclose(result.x, 0, atol=0.1)
    assert result.nfev == 8001


def test_finite_differences_stay_inside_the_bounds():
    def fun(x):
        assert (x >= 0).all()
        return float(np.sqrt(x).sum())

    result = minimize(fun, [0.5, 0.3], bounds=[(0, None)] * 2, maxiter=300)
    assert_allclose(result.x, 0, atol=1e-6)


def test_the_users_arrays_are_left_alone():
    seen, gradient, x0 = [], np.array([1.0, 2.0]), np.array([1.0, 1.0])

    def jac(x):
        seen.append(x)
        return gradient

    minimize(SPHERE, x0, jac=jac, maxiter=3, x_scale=[1.0, 10.0])
    assert_array_equal(gradient, [1, 2])
    assert_array_equal(x0, 1)
    assert len({tuple(x) for x in seen}) == 3


def test_x_scale_is_a_learning_rate_for_each_coordinate():
    result = minimize(SPHERE, [1.0, 1.0], jac=SPHERE.gradient, x_scale=[1.0, 5.0], maxiter=1, learning_rate=0.1)
    assert_allclose(result.x, [0.9, 0.5], rtol=1e-6)


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"gtol": 1e-3}, "gtol = 0.001"),
        ({"tol": 1e-3}, "gtol = 0.001"),
        ({"ftol": 1e-9, "patience": 20}, "ftol = 1e-09 for 20 iterations"),
        ({"xtol": 1e-3}, "xtol = 0.001 learning rates"),
        ({"target": 1e-4}, "target = 0.0001"),
    ],
)
def test_tolerances(tolerance, message):
    result = minimize(SPHERE, [1.0, -2.0], jac=SPHERE.gradient, learning_rate=FALLING, **tolerance)
    assert result.success
    assert result.status == 0
    assert message in result.message
    assert 10 < result.nit < 10_000
    assert result.fun < 0.05
    spent = minimize(SPHERE, [1.0, -2.0], jac=SPHERE.gradient, maxiter=3, **tolerance)
    assert not spent.success
    assert spent.status == 1
    if "gtol" in tolerance:
        assert np.abs(SPHERE.gradient(result.x)).max() <= 1e-3


def test_a_time_budget():
    result = minimize(SPHERE, [1.0, -2.0], jac=SPHERE.gradient, max_seconds=0.0)
    assert (result.status, result.nit, result.success) == (2, 0, True)
    assert "0 seconds" in result.message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_ends_the_run_at_the_best_x(bad):
    def fun(x):
        value, gradient = SPHERE.value_and_gradient(x)
        return (value, gradient) if x[0] > 0.5 else (bad, gradient)

    result = minimize(fun, [1.0, 1.0], jac=True, learning_rate=0.01)
    assert not result.success
    assert result.status == 3
    assert result.x[0] > 0.5
    assert result.fun == SPHERE(result.x)
    result = minimize(SPHERE, [1.0, 1.0], jac=lambda x: np.full(2, bad), learning_rate=0.01)
    assert (result.status, result.nit) == (3, 0)
    assert_array_equal(result.x, 1)


def test_large_gradients_are_finite():
    result = minimize(lambda x: 0.0, [1.0], jac=lambda x: np.array([1e200]), maxiter=3)
    assert result.status == 1


def test_the_best_the_last_and_the_average_point():
    arguments = {"jac": ROSENBROCK.gradient, "learning_rate": 0.3, "maxiter": 100}
    seen = []
    last = minimize(ROSENBROCK, ROSENBROCK.start, callback=seen.append, **arguments)
    best = minimize(ROSENBROCK, ROSENBROCK.start, return_x="best", **arguments)
    average = minimize(ROSENBROCK, ROSENBROCK.start, return_x="average", **arguments)
    assert_array_equal(last.x, seen[-1])
    values = [ROSENBROCK(x) for x in [ROSENBROCK.start, *seen[:-1]]]
    assert best.fun == min(values)
    assert best.fun == ROSENBROCK(best.x)
    assert_allclose(average.x, np.mean(seen, axis=0))


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [[(-1, 0.5), (None, 2)], Bounds([-1, -np.inf], [0.5, 2])])
def test_bounds_hold_at_every_iterate_and_at_the_end(bounds):
    target = np.array([3.0, 1.0])

    def fun(x):
        assert x[0] <= 0.5
        return float(((x - target) ** 2).sum()), 2 * (x - target)

    result = minimize(fun, [0.0, 0.0], jac=True, bounds=bounds, learning_rate=0.05, gtol=1e-6)
    assert_allclose(result.x, [0.5, 1.0], atol=1e-5)
    assert result.status == 0


def test_a_bound_lets_go_at_once():
    """The moment that pushed against it is forgotten, so the first gradient the other way moves x."""
    run = Minimizer(SPHERE, [0.5], jac=lambda x: np.array([-1.0 if run_in else 1.0]), bounds=[(0, 1)])
    run_in = True
    for _ in range(200):
        run.step()
    assert run.x[0] == 1
    run_in = False
    run.step()
    assert run.x[0] < 1


def test_a_start_outside_is_put_on_the_bounds():
    with pytest.warns(OptimizeWarning, match="x0 is outside the bounds"):
        result = minimize(SPHERE, [5.0, -5.0], jac=SPHERE.gradient, bounds=[(1, 2), (-2, -1)], maxiter=500)
    assert_allclose(result.x, [1, -1])


# --- batches and many starts ------------------------------------------------------------------------------------------


def test_finite_sums_and_batches():
    problem = problems.get("logistic", n=3)

    def fun(x, batch):
        return problem.batch(x, batch)

    arguments = {"jac": True, "maxiter": 3000, "learning_rate": schedules.Exponential(0.05, 0.5, 500), "rng": 3}
    indices = minimize(fun, np.zeros(3), n_terms=200, batch_size=16, **arguments)
    batches = [np.arange(i, 200, 10) for i in range(10)]
    listed = minimize(fun, np.zeros(3), data=batches, **arguments)
    for result in (indices, listed):
        assert_allclose(result.x, problem.minimizers[0], atol=0.1)
    again = minimize(fun, np.zeros(3), n_terms=200, batch_size=16, **arguments)
    assert_array_equal(again.x, indices.x)


def test_an_epoch_has_every_term_once():
    seen = []

    def fun(x, batch):
        seen.extend(batch)
        return 0.0, np.zeros(1)

    run = Minimizer(fun, [0.0], jac=True, n_terms=12, batch_size=4, maxiter=6)
    for _ in run:
        pass
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_patience_on_a_smoothed_loss():
    rng = np.random.default_rng(0)

    def fun(x, batch):
        return SPHERE(x) + batch, SPHERE.gradient(x)

    data = list(rng.standard_normal(1000))
    result = minimize(fun, [1.0, 1.0], jac=True, data=data, ftol=0.0, patience=500, learning_rate=0.01)
    assert result.status == 0
    assert 500 < result.nit < 10_000


def test_batches_that_end():
    result = minimize(lambda x, b: (0.0, x), [1.0], jac=True, data=iter([1, 2, 3]))
    assert (result.status, result.nit, result.success) == (4, 3, False)
    assert "data came to an end" in result.message
    with pytest.raises(ValueError, match="data has no batches"):
        minimize(lambda x, b: (0.0, x), [1.0], jac=True, data=[])


def test_many_starts_are_the_same_as_one_after_another():
    starts = np.random.default_rng(0).uniform(-2, 2, (7, 2))
    arguments = {"jac": True, "maxiter": 200, "learning_rate": 0.05}
    together = minimize(ROSENBROCK.value_and_gradient, starts, vectorized=True, **arguments)
    for i, start in enumerate(starts):
        alone = minimize(ROSENBROCK.value_and_gradient, start, **arguments)
        assert_allclose(together.x[i], alone.x, rtol=1e-12)
        assert_allclose(together.fun[i], alone.fun, rtol=1e-12)


def test_control_from_outside():
    run = Minimizer(SPHERE.value_and_gradient, [1.0, 1.0], jac=True, learning_rate=0.1, maxiter=50)
    values = []
    for it in run:
        values.append(it.fun)
        if it.nit == 10:
            it.optimizer.learning_rate = 0.01
        if it.nit == 20:
            break
    assert len(values) == 20
    assert run.result().status == 5
    rest = sum(1 for _ in run)
    assert rest == 30
    assert run.result().status == 1


def test_a_recorder_sees_every_iteration():
    class Recorder(list):
        def record(self, step, loss, params, grads, optimizer):
            self.append((step, loss, params, grads, optimizer.t))

    recorder = Recorder()
    minimize(SPHERE, [1.0, 1.0], jac=SPHERE.gradient, maxiter=5, history=recorder)
    assert [row[0] for row in recorder] == [row[4] for row in recorder] == [1, 2, 3, 4, 5]
    assert recorder[0][1] == 2.0
    assert recorder[0][2][0] < 1


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x0": [np.nan, 1]}, ValueError, "x0 must be finite"),
        ({"x0": ["a"]}, TypeError, "x0 must be real numbers"),
        ({"x0": np.ones((2, 2))}, ValueError, r"x0 must have shape \(n,\), got \(2, 2\): pass x0.ravel"),
        ({"vectorized": True}, ValueError, r"x0 must have shape \(starts, n\) with vectorized=True"),
        (
            {"bounds": [(1, 0), (0, 1)]},
            ValueError,
            r"bounds\[0\] must be \(low, high\) with low <= high, got \(1.0, 0.0\)",
        ),
        ({"bounds": [(0, 1)]}, ValueError, "bounds must be 2 pairs, one for each coordinate of x0, got 1"),
        ({"jac": lambda x: np.ones(3)}, ValueError, r"the gradient must have the shape of x, \(2,\), got \(3,\)"),
        ({"jac": lambda x: x * 1j}, ValueError, "the gradient must be real numbers, got complex128"),
        ({"jac": "4-point"}, ValueError, "jac must be a function, True, or one of .*, got '4-point'"),
        ({"fun": lambda x: x, "jac": None}, ValueError, r"fun must return a real number, got an array of shape \(2,\)"),
        ({"fun": lambda x: 1j, "jac": None}, ValueError, "fun must return a real number, got 1j, a complex128"),
        ({"method": "adem"}, ValueError, "there is no method 'adem': did you mean 'adam'"),
        ({"method": "?"}, ValueError, "there is no method '.': there are sgd, momentum"),
        ({"maxiter": 0}, ValueError, "maxiter must be an integer of at least 1, got 0"),
        ({"gtol": "small"}, ValueError, "a tolerance, target or time must be a number, got 'small'"),
        ({"return_x": "first"}, ValueError, "return_x must be one of 'last', 'best', 'average', got 'first'"),
        ({"data": 3}, TypeError, "data must be an iterable of batches, got 3"),
        ({"n_terms": 0}, ValueError, "n_terms must be an integer of at least 1, got 0"),
        ({"n_terms": 3, "data": [1]}, ValueError, "data and n_terms were both given"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be finite and at least 0"),
        ({"beta3": 1}, TypeError, "beta3"),
        ({"method": adamas.Adam(), "beta1": 0.5}, TypeError, "method is an optimizer, so beta1 must be set there"),
    ],
)
def test_bad_input(changes, error, message):
    arguments = {"fun": SPHERE, "x0": [1.0, 2.0], "jac": SPHERE.gradient, **changes}
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        minimize(arguments.pop("fun"), arguments.pop("x0"), **arguments)
