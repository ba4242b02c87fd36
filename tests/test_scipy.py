"""Rules as methods of scipy.optimize.minimize: the contract of a custom method, point by point."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import OptimizeResult, OptimizeWarning, basinhopping, minimize, rosen, rosen_der

import adamas.scipy
from adamas import problems, rules, schedules

SPHERE = problems.get("sphere")


def test_all_is_sorted_and_has_every_rule():
    assert adamas.scipy.__all__ == sorted(name.lower() for name in rules.RULES)
    for name in adamas.scipy.__all__:
        assert getattr(adamas.scipy, name).__name__ == name


def test_rosenbrock():
    options = {"learning_rate": schedules.Exponential(0.1, 0.5, 2000), "maxiter": 20_000}
    result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=adamas.scipy.adam, tol=1e-7, options=options)
    assert result.success
    assert_allclose(result.x, 1, atol=1e-6)
    assert result.fun < 1e-12


def test_basinhopping_finds_the_minimum_of_rastrigin():
    problem = problems.get("rastrigin")
    options = {"maxiter": 300, "learning_rate": 0.05}
    quench = {"method": adamas.scipy.adam, "jac": problem.gradient, "options": options}
    result = basinhopping(problem.value, [3.0, -2.5], minimizer_kwargs=quench, niter=60, stepsize=1.0, rng=1)
    assert_allclose(result.x, 0, atol=1e-4)
    assert result.lowest_optimization_result.success


def test_both_kinds_of_callback():
    points, results = [], []

    def modern(intermediate_result):
        results.append(intermediate_result)

    for callback in (points.append, modern):
        minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, callback=callback,
                 options={"maxiter": 4})  # fmt: skip
    assert len(points) == len(results) == 4
    assert isinstance(results[0], OptimizeResult)
    for x, result in zip(points, results, strict=True):
        assert_array_equal(x, result.x)
        assert result.fun == SPHERE(x)
    assert len({tuple(x) for x in points}) == 4


def test_a_callback_ends_the_run_by_stop_iteration_only():
    def stop(x):
        raise StopIteration

    result = minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, callback=stop)
    assert (result.nit, result.success, result.status) == (1, False, 99)
    assert result.message == "`callback` raised `StopIteration`."
    result = minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, callback=lambda x: True,
                      options={"maxiter": 5})  # fmt: skip
    assert result.nit == 5


def test_args_are_passed_on():
    def fun(x, a, b):
        return float(((x - a) ** 2).sum() + b)

    def jac(x, a, b):
        return 2 * (x - a)

    options = {"learning_rate": 0.05, "maxiter": 1000}
    result = minimize(fun, [0.0], args=(3.0, 7.0), jac=jac, method=adamas.scipy.adam, options=options)
    assert_allclose(result.x, 3, atol=1e-3)
    assert_allclose(result.fun, 7, atol=1e-3)


def test_a_memoised_gradient_is_not_changed():
    """With jac=True SciPy keeps the gradient of the last x, and returns the very array."""
    options = {"maxiter": 200, "x_scale": [1.0, 3.0], "clip_norm": 0.1, "learning_rate": 0.05}
    together = minimize(SPHERE.value_and_gradient, [1.0, 2.0], jac=True, method=adamas.scipy.adam, options=options)
    apart = minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, options=options)
    assert_array_equal(together.x, apart.x)


@pytest.mark.parametrize("jac", [None, "2-point"])
def test_without_a_gradient(jac):
    options = {"maxiter": 2000, "learning_rate": 0.05}
    result = minimize(rosen, [0.5, 0.5], jac=jac, method=adamas.scipy.adam, options=options)
    assert_allclose(result.x, 1, atol=0.01)


def test_raw_bounds_and_tolerance():
    result = minimize(SPHERE, [2.0, 3.0], jac=SPHERE.gradient, bounds=[(1, None), (None, 4)], tol=1e-4,
                      method=adamas.scipy.amsgrad, options={"learning_rate": 0.05})  # fmt: skip
    assert result.success
    assert_allclose(result.x, [1, 0], atol=1e-3)


def test_single_precision_is_kept():
    result = minimize(SPHERE, np.ones(2, np.float32), jac=SPHERE.gradient, method=adamas.scipy.adam,
                      options={"maxiter": 3})  # fmt: skip
    assert result.x.dtype == np.float32


def test_fields_and_statuses():
    result = minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, options={"maxiter": 10})
    assert {"x", "fun", "jac", "nit", "nfev", "njev", "success", "status", "message"} <= set(result)
    assert (result.status, result.success, result.nit, result.njev, result.nfev) == (1, True, 10, 10, 1)
    result = minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, tol=1e-9,
                      options={"maxiter": 10})  # fmt: skip
    assert (result.status, result.success) == (1, False)


def test_unknown_options_warn_and_constraints_are_refused():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: eta"):
        minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, options={"eta": 1, "maxiter": 1})
    constraint = {"type": "eq", "fun": lambda x: x[0]}
    with pytest.raises(ValueError, match="constraints are not supported by Adam: use bounds, or a penalty in fun"):
        minimize(SPHERE, [1.0, 2.0], jac=SPHERE.gradient, method=adamas.scipy.adam, constraints=constraint)
