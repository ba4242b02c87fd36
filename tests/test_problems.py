"""Test problems: gradients, minimizers, published minima, vectorization, noise."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import rosen, rosen_der

import adamas
from adamas import problems

PUBLISHED = {
    "branin": 0.397887357729738,
    "goldstein-price": 3.0,
    "mccormick": -1.913222954981037,
    "six-hump-camel": -1.031628453489877,
    "styblinski-tang": -78.33233140754282,
    "easom": -1.0,
}
NOT_ANALYTIC = {"absolute-value", "logistic", "ackley"}
FREE = ["sphere", "quadratic", "rosenbrock", "ackley", "rastrigin", "griewank", "levy", "styblinski-tang", "zakharov"]


def points(problem, shape=(20,), seed=0):
    low, high = problem.domain.T
    return np.random.default_rng(seed).uniform(low, high, (*shape, problem.n))


def slopes(problem, x):
    """The gradient by complex steps or, where the formula is not analytic, by central differences."""
    h = 1e-30 if problem.name not in NOT_ANALYTIC else 1e-6
    columns = []
    for i in range(problem.n):
        step = np.zeros(problem.n)
        step[i] = h
        if h < 1e-20:
            columns.append(problem.value(x + 1j * step).imag / h)
        else:
            columns.append((problem.value(x + step) - problem.value(x - step)) / (2 * h))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("name", problems.names())
def test_the_gradient_is_that_of_the_value(name):
    problem = problems.get(name)
    x = points(problem)
    rtol = 1e-12 if name not in NOT_ANALYTIC else 1e-5
    assert_allclose(problem.gradient(x), slopes(problem, x), rtol=rtol, atol=rtol * 10)


@pytest.mark.parametrize("n", [1, 3, 10])
@pytest.mark.parametrize("name", FREE)
def test_the_gradient_in_any_dimension(name, n):
    if name == "rosenbrock" and n == 1:
        with pytest.raises(ValueError, match="n must be at least 2 for rosenbrock, got 1"):
            problems.get(name, n=n)
        return
    problem = problems.get(name, n=n)
    x = points(problem)
    assert problem.start.shape == (n,)
    rtol = 1e-11 if name not in NOT_ANALYTIC else 1e-5
    assert_allclose(problem.gradient(x), slopes(problem, x), rtol=rtol, atol=rtol * 10)
    assert_allclose(problem.value(problem.minimizers), problem.minimum, atol=1e-12 * n)


@pytest.mark.parametrize("name", problems.names())
def test_minimizers(name):
    """They have no gradient, or one that points out of the bounds; nothing in the domain is lower; as published."""
    problem = problems.get(name)
    assert_allclose(problem.value(problem.minimizers), problem.minimum, atol=1e-12)
    for x, gradient in zip(problem.minimizers, problem.gradient(problem.minimizers), strict=True):
        if problem.bounds is not None:
            low, high = problem.bounds.T
            gradient = np.where((x <= low) & (gradient > 0) | (x >= high) & (gradient < 0), 0, gradient)  # noqa: PLW2901
        assert_allclose(gradient, 0, atol=1e-11)
    assert problem.value(points(problem, (20_000,))).min() >= problem.minimum
    assert problem.value(problem.start) > problem.minimum
    assert problem.minimum == pytest.approx(PUBLISHED.get(name, problem.minimum), abs=1e-12)
    low, high = problem.domain.T
    assert ((problem.start >= low) & (problem.start <= high)).all()
    assert problem.description
    assert problem.reference


@pytest.mark.parametrize("name", problems.names())
def test_many_points_are_one_by_one(name):
    problem = problems.get(name)
    x = points(problem, (3, 4))
    before = x.copy()
    value, gradient = problem.value_and_gradient(x)
    assert value.shape == (3, 4)
    assert gradient.shape == x.shape
    for i in np.ndindex(3, 4):
        assert_allclose(problem(x[i]), value[i], rtol=1e-13)
        assert_allclose(problem.gradient(x[i]), gradient[i], rtol=1e-12, atol=1e-13)
    assert_array_equal(x, before)
    assert problem.gradient(x.astype(np.float32)).dtype == problem.value(x.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        problem.start[0] = 1


def test_rosenbrock_is_scipys():
    x = points(problems.get("rosenbrock", n=7))
    assert_allclose(problems.get("rosenbrock", n=7)(x), [rosen(y) for y in x])
    assert_allclose(problems.get("rosenbrock", n=7).gradient(x), [rosen_der(y) for y in x])


@pytest.mark.parametrize("condition", [1, 1e3, 1e6])
@pytest.mark.parametrize("seed", [None, 1])
def test_quadratics_have_their_condition_number(condition, seed):
    problem = problems.get("quadratic", n=5, condition=condition, seed=seed)
    hessian = problem.gradient(np.eye(5))
    assert_allclose(hessian, hessian.T, atol=1e-9)
    assert np.linalg.cond(hessian) == pytest.approx(condition, rel=1e-6)


NOISY = [name for name in problems.names() if isinstance(problems.get(name), problems.NoisyProblem)]


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_right_on_average_and_the_same_for_the_same_generator(name):
    problem = problems.get(name)
    share = getattr(problem, "probability", 1.0)
    x, n = points(problem, ())[None].repeat(1, axis=0)[0], 4000
    rng = np.random.default_rng(1)
    samples = np.array([problem.sample(x, rng)[1] for _ in range(n)])
    error = samples.std(axis=0) / np.sqrt(n)
    assert (np.abs(samples.mean(axis=0) - share * problem.gradient(x)) < 5 * error + 1e-12).all()
    assert error.max() > 0
    first, second = (problem.sample(x, np.random.default_rng(2))[1] for _ in range(2))
    assert_array_equal(first, second)


def test_a_batch_of_all_examples_is_the_whole():
    problem = problems.get("logistic", n=4)
    x = points(problem)
    assert_allclose(problem.batch(x, slice(None))[1], problem.gradient(x))


def distance_to_the_wrong_end(rule):
    """Where an optimizer with the settings of the theorem ends on the counter-example."""
    problem = problems.get("counterexample")
    low, high = problem.bounds.T
    opt = rule(lambda step: 0.5 / np.sqrt(step + 1), beta1=0.0, beta2=1 / (1 + problem.slope**2), epsilon=0.0)
    x = problem.start.copy()
    for t in range(1, 3001):
        opt.update(x, problem.gradient_at(x, t))
        np.clip(x, low, high, out=x)
    return float(x[0])


def test_adam_ends_at_the_wrong_end_of_the_counterexample_and_amsgrad_does_not():
    assert distance_to_the_wrong_end(adamas.Adam) > 0.9
    assert distance_to_the_wrong_end(adamas.AMSGrad) < -0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rosenbrok",), "there is no problem 'rosenbrok': did you mean 'rosenbrock'"),
        (("?",), "there is no problem '.': there are absolute-value, ackley"),
        (("beale", 3), "n must be 2 for beale, got 3"),
        (("sphere", 0), "n must be an integer of at least 1, got 0"),
        (("sphere", 2.0), "n must be an integer of at least 1, got 2.0"),
    ],
)
def test_wrong_names_and_dimensions(arguments, message):
    with pytest.raises(ValueError, match=message):
        problems.get(*arguments)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sphere", {"scale": 1.0}, "sphere has no parameter 'scale': it has n"),
        ("noisy-sphere", {"scale": -1.0}, "scale must be finite and at least 0, got -1.0"),
        ("sparse-quadratic", {"probability": 1.5}, "probability must be above 0 and at most 1, got 1.5"),
        ("quadratic", {"condition": np.nan}, "condition must be finite and at least 1, got nan"),
        ("counterexample", {"slope": 2.0}, "slope must be finite and above 2, got 2.0"),
        ("logistic", {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        problems.get(name, **parameters)


@pytest.mark.parametrize("name", [name for name in problems.names() if hasattr(problems.get(name), "sample")])
def test_samples_are_of_the_type_of_the_points(name):
    problem = problems.get(name)
    for dtype in (np.float32, np.float64):
        value, gradient = problem.sample(problem.start.astype(dtype), np.random.default_rng(0))
        assert (np.asarray(value).dtype, gradient.dtype) == (dtype, dtype)


def test_the_table_of_the_docs_is_that_of_the_problems():
    page = (Path(__file__).parent.parent / "docs" / "problems.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == problems.names()
    for name, n, description, minimum, reference in rows:
        problem = problems.get(name.strip("`"))
        assert n in ("any", str(problem.n))
        assert (description, minimum, reference) == (problem.description, f"{problem.minimum:.6g}", problem.reference)


def test_far_away_nothing_overflows():
    value, gradient = problems.get("logistic").value_and_gradient(np.full(5, 1e3))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_points_of_the_wrong_dimension():
    with pytest.raises(ValueError, match=r"x has shape \(3,\): the last axis of sphere must have length 2"):
        problems.get("sphere")([1, 2, 3])
    assert problems.get("sphere")([1, 2]) == 5
