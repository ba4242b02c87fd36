"""Test problems: value, analytic gradient, domain, known minimizers and a start of each.

``problems.get("rosenbrock", n=10)`` makes one by name; `names` lists them. Points have shape (..., n): any leading axes
are many points at once. A noisy problem also has ``sample(x, rng)``, whose randomness is the caller's generator's, so
that several optimizers can be shown the same noise. (Jamil and Yang 2013 is arXiv:1308.4008.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adamas import _functions

__all__ = [
    "PROBLEMS",
    "Counterexample",
    "GaussianNoise",
    "LogisticRegression",
    "NoisyProblem",
    "Problem",
    "SparseGradients",
    "get",
    "names",
    "own",
]

Array = NDArray[Any]


def _points(x: ArrayLike) -> Array:
    """Return points as an array of floating-point numbers, of their own type if they have such a one."""
    points = np.asarray(x)
    return points if points.dtype.kind in "fc" else points.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Problem:
    """A function to minimize.

    domain: the box (n, 2) in which it is usually searched; bounds: the same if it is constrained to it, else None.
    minimizers: (k, n), the known ones, perhaps none; minimum: the value there, NaN if it is not known. start: (n,),
    where one usually begins.
    """

    name: str
    description: str
    reference: str
    function: Callable[[Array], tuple[Array, Array]] = field(repr=False)
    domain: Array = field(repr=False)
    minimizers: Array = field(repr=False)
    minimum: float
    start: Array
    bounds: Array | None = None

    def __post_init__(self) -> None:
        for array in (self.domain, self.minimizers, self.start, self.bounds):
            if array is not None:
                array.flags.writeable = False  # it may be shared

    @property
    def n(self) -> int:
        """The dimension."""
        return len(self.start)

    def value_and_gradient(self, x: ArrayLike) -> tuple[Any, Array]:
        """Return the values, of shape (...), and the gradients, of shape (..., n), at points of shape (..., n)."""
        points = _points(x)
        if points.ndim == 0 or points.shape[-1] != self.n:
            raise ValueError(f"x has shape {points.shape}: the last axis of {self.name} must have length {self.n}")
        value, gradient = self.function(points)
        value = points.dtype.type(value) if points.ndim == 1 else value.astype(points.dtype, copy=False)
        return value, gradient.astype(points.dtype, copy=False)

    def value(self, x: ArrayLike) -> Any:
        """Return the values at points of shape (..., n)."""
        return self.value_and_gradient(x)[0]

    def gradient(self, x: ArrayLike) -> Array:
        """Return the gradients at points of shape (..., n)."""
        return self.value_and_gradient(x)[1]

    __call__ = value


@dataclass(frozen=True, eq=False)
class NoisyProblem(Problem):
    """A problem whose gradient is seen with noise; `value` and `gradient` are exact all the same."""

    def sample(self, x: ArrayLike, rng: np.random.Generator) -> tuple[Any, Array]:
        """Return value and gradient at points of shape (..., n) as an optimizer gets to see them."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class GaussianNoise(NoisyProblem):
    """Gaussian noise of standard deviation `scale` on each coordinate of the gradient."""

    scale: float = 1.0

    def sample(self, x: ArrayLike, rng: np.random.Generator) -> tuple[Any, Array]:
        """Return the exact value and the noisy gradient."""
        value, gradient = self.value_and_gradient(x)
        return value, gradient + (self.scale * rng.standard_normal(gradient.shape)).astype(gradient.dtype)


@dataclass(frozen=True, eq=False)
class SparseGradients(NoisyProblem):
    """Each coordinate of the gradient is seen with some probability, else it is 0, so on average it is smaller."""

    probability: float = 0.1

    def sample(self, x: ArrayLike, rng: np.random.Generator) -> tuple[Any, Array]:
        """Return the exact value and the gradient with most coordinates set to 0."""
        value, gradient = self.value_and_gradient(x)
        return value, gradient * (rng.random(gradient.shape) < self.probability)


@dataclass(frozen=True, eq=False)
class Counterexample(NoisyProblem):
    """A line on [-1, 1] whose slope is C in every third step and -1 in the others: Adam goes to the wrong end.

    Reddi, Kale and Kumar 2018, arXiv:1904.09237, Theorem 1: with C > 2, beta1 = 0, beta2 = 1/(1 + C**2), a learning
    rate that falls as 1/sqrt(t) and projection to the interval, Adam ends at 1; the sum of all slopes is lowest at -1.
    """

    slope: float = 3.0

    def gradient_at(self, x: ArrayLike, t: int) -> Array:
        """Return the gradient of step t = 1, 2, ..."""
        return np.full_like(_points(x), self.slope if t % 3 == 1 else -1.0)

    def sample(self, x: ArrayLike, rng: np.random.Generator) -> tuple[Any, Array]:
        """Return value and gradient of a step drawn at random, in the same proportions."""
        points = _points(x)
        slope = np.where(rng.random(points.shape[:-1]) < 1 / 3, self.slope, -1.0).astype(points.dtype)
        return slope * points[..., 0], np.broadcast_to(slope[..., None], points.shape).copy()


@dataclass(frozen=True, eq=False)
class LogisticRegression(NoisyProblem):
    """The mean logistic loss of a linear classifier over examples, with a small L2 penalty.

    inputs: (examples, n); labels: (examples,), -1 or 1; batch_size: of the examples that a sample sees.
    """

    inputs: Array = field(default_factory=lambda: np.zeros((0, 1)), repr=False)
    labels: Array = field(default_factory=lambda: np.zeros(0), repr=False)
    penalty: float = 1e-3
    batch_size: int = 16

    def batch(self, x: ArrayLike, examples: Any) -> tuple[Any, Array]:
        """Return value and gradient over some of the examples, given by an index."""
        points = _points(x)
        value, gradient = _logistic(points, self.inputs[examples], self.labels[examples], self.penalty)
        return value.astype(points.dtype), gradient.astype(points.dtype)

    def sample(self, x: ArrayLike, rng: np.random.Generator) -> tuple[Any, Array]:
        """Return value and gradient over a batch drawn with replacement."""
        return self.batch(x, rng.integers(len(self.labels), size=self.batch_size))


def _logistic(x: Array, inputs: Array, labels: Array, penalty: float) -> tuple[Any, Array]:
    margins = (x @ inputs.T) * labels
    value = np.logaddexp(0, -margins).mean(axis=-1) + penalty / 2 * (x * x).sum(axis=-1)
    weights = -labels * (1 - np.tanh(margins / 2)) / (2 * len(labels))  # the sigmoid of -margins, without overflow
    return value, weights @ inputs + penalty * x


# --- the problems by name ---------------------------------------------------------------------------------------------

Maker = Callable[..., Problem]
PROBLEMS: dict[str, Maker] = {}
"""What makes each problem, by name; called with n where the dimension is free."""


def get(name: str, n: int | None = None, **parameters: Any) -> Problem:
    """Return a problem by name, in n dimensions where that is free (2 if not given).

    Raises ValueError for a name that there is not, and for a dimension or a parameter that the problem has not.
    """
    if name not in PROBLEMS:
        near = get_close_matches(name, PROBLEMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}"
        raise ValueError(f"there is no problem {name!r}: {hint}")
    if n is not None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"n must be an integer of at least 1, got {n!r}")
        parameters["n"] = n
    make, known = PROBLEMS[name], signature(PROBLEMS[name]).parameters
    if unknown := [parameter for parameter in parameters if parameter not in known]:
        raise ValueError(f"{name} has no parameter {unknown[0]!r}: it has {', '.join(known)}")
    return make(**parameters)


def own(name: str, function: Callable[[Array], tuple[float, Array]], start: ArrayLike) -> Problem:
    """Return the problem that a function is which takes an array (n,) and returns value and gradient.

    start: (n,), finite; the domain reaches 5 to each side of it. Calls raise ValueError if it is no such function.
    """
    first = np.array(start, float)
    if first.ndim != 1 or not first.size or not np.isfinite(first).all():
        raise ValueError(f"start must be finite numbers, (n,), got {start!r}")

    def one(x: Array) -> tuple[float, Array]:
        try:
            value, gradient = function(x.copy())
            value, gradient = float(value), np.asarray(gradient, float)
        except Exception as error:
            kind = type(error).__name__
            raise ValueError(f"{name} must return value and gradient: it gave a {kind}: {error}") from error
        if gradient.shape != x.shape:
            raise ValueError(f"{name} must return a gradient of shape {x.shape}, got {gradient.shape}")
        return value, gradient

    def rowwise(x: Array) -> tuple[Any, Array]:
        if x.ndim == 1:
            return one(x)
        values, gradients = zip(*map(one, x.reshape(-1, x.shape[-1])), strict=True)
        return np.reshape(values, x.shape[:-1]), np.reshape(gradients, x.shape)

    domain = np.stack([first - 5, first + 5], axis=-1)
    return Problem(name, "your function", "you", rowwise, domain, np.empty((0, len(first))), np.nan, first)


def names() -> list[str]:
    """Return the names of all problems, in order."""
    return sorted(PROBLEMS)


def _check(name: str, value: float, right: bool, wanted: str) -> None:
    if isinstance(value, bool) or not right:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _box(n: int, low: float, high: float) -> Array:
    return np.tile([low, high], (n, 1)).astype(float)


def _free(
    name: str,
    description: str,
    reference: str,
    box: tuple[float, float],
    at: float,
    start: Sequence[float],
    minimum: Callable[[int], float] = lambda n: 0.0,  # noqa: ARG005 - most are 0 in any dimension
    least: int = 1,
) -> None:
    """Register a problem of any dimension, whose minimizer has `at` everywhere; the start is repeated."""
    function = getattr(_functions, name.replace("-", "_"))

    def make(n: int = 2) -> Problem:
        if n < least:
            raise ValueError(f"n must be at least {least} for {name}, got {n}")
        first = np.resize(np.array(start, float), n)
        return Problem(name, description, reference, function, _box(n, *box), np.full((1, n), at), minimum(n), first)

    PROBLEMS[name] = make


def _plane(
    name: str,
    description: str,
    reference: str,
    box: Sequence[Sequence[float]],
    minimizers: Sequence[Sequence[float]],
    minimum: float,
    start: Sequence[float],
    constrained: bool = False,
) -> None:
    """Register a problem of two dimensions."""
    function, domain = getattr(_functions, name.replace("-", "_")), np.array(box, float)

    def make(n: int = 2) -> Problem:
        if n != 2:
            raise ValueError(f"n must be 2 for {name}, got {n}")
        bounds = domain if constrained else None
        points = np.array(minimizers, float)
        return Problem(name, description, reference, function, domain, points, minimum, np.array(start, float), bounds)

    PROBLEMS[name] = make


def quadratic(n: int = 2, condition: float = 100.0, seed: int | None = None) -> Problem:
    """Return x'Ax/2 with eigenvalues from 1 to `condition` on a log scale, rotated at random if a seed is given."""
    _check("condition", condition, 1 <= condition < np.inf, "finite and at least 1")
    values, axes = np.geomspace(1, condition, n), np.eye(n)
    if seed is not None:
        axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]

    def function(x: Array) -> tuple[Array, Array]:
        gradient = ((x @ axes) * values) @ axes.T
        return (x * gradient).sum(axis=-1) / 2, gradient

    where = f"a bowl of condition number {condition:g}{'' if seed is None else ', rotated'}"
    return Problem("quadratic", where, NOCEDAL, function, _box(n, -2, 2), np.zeros((1, n)), 0.0, np.ones(n))


def noisy_sphere(n: int = 2, scale: float = 1.0) -> GaussianNoise:
    """Return the sphere with Gaussian noise on its gradient."""
    _check("scale", scale, 0 <= scale < np.inf, "finite and at least 0")
    base = get("sphere", n)
    text = f"the sphere with noise of standard deviation {scale:g} on the gradient"
    return GaussianNoise("noisy-sphere", text, base.reference, base.function, base.domain, base.minimizers, 0.0,
                         base.start, scale=scale)  # fmt: skip


def sparse_quadratic(n: int = 10, condition: float = 100.0, probability: float = 0.1) -> SparseGradients:
    """Return a quadratic whose gradient's coordinates are seen now and then."""
    _check("probability", probability, 0 < probability <= 1, "above 0 and at most 1")
    base = get("quadratic", n, condition=condition)
    text = f"{base.description}; each coordinate of the gradient is seen with probability {probability:g}"
    return SparseGradients("sparse-quadratic", text, base.reference, base.function, base.domain, base.minimizers, 0.0,
                           base.start, probability=probability)  # fmt: skip


def counterexample(n: int = 1, slope: float = 3.0) -> Counterexample:
    """Return the line on which Adam goes to the wrong end."""
    if n != 1:
        raise ValueError(f"n must be 1 for counterexample, got {n}")
    _check("slope", slope, 2 < slope < np.inf, "finite and above 2")
    mean = (slope - 2) / 3
    return Counterexample(
        "counterexample", f"a line whose slope is {slope:g} in every third step and -1 in the others",
        "Reddi, Kale and Kumar 2018, arXiv:1904.09237, Theorem 1",
        lambda x: (mean * x[..., 0], np.full_like(x, mean)), _box(1, -1, 1), np.array([[-1.0]]), -mean, np.zeros(1),
        _box(1, -1, 1), slope=slope,
    )  # fmt: skip


def logistic(n: int = 5, n_terms: int = 200, seed: int = 0, batch_size: int = 16) -> LogisticRegression:
    """Return logistic regression on made-up examples, the same for the same seed."""
    for name, number in (("n_terms", n_terms), ("batch_size", batch_size)):
        _check(name, number, isinstance(number, int | np.integer) and number >= 1, "an integer of at least 1")
    rng = np.random.default_rng(seed)
    inputs, truth = rng.standard_normal((n_terms, n)), rng.standard_normal(n)
    labels = np.where(inputs @ truth + rng.logistic(size=n_terms) > 0, 1.0, -1.0)
    function = partial(_logistic, inputs=inputs, labels=labels, penalty=1e-3)
    x = np.zeros(n)
    for _ in range(100):  # Newton's method
        sigma = 1 / (1 + np.exp(-(inputs @ x)))
        hessian = (inputs * (sigma * (1 - sigma))[:, None]).T @ inputs / n_terms + 1e-3 * np.eye(n)
        x = x - np.linalg.solve(hessian, function(x)[1])
    return LogisticRegression(
        "logistic", f"logistic regression on {n_terms} examples, seen in batches of {batch_size}", "Cox 1958", function,
        _box(n, -3, 3), x[None], float(function(x)[0]), np.zeros(n), inputs=inputs, labels=labels,
        batch_size=batch_size,
    )  # fmt: skip


OURS = "this package"
NOCEDAL = "Nocedal and Wright 2006, section 3.3"
SURVEY = "Jamil and Yang 2013"
TANG = -2.9035340277711770951
_free("sphere", "the sum of squares", "De Jong 1975, F1", (-5, 5), 0.0, [3.0, -4.0])
_free(
    "absolute-value",
    "the sum of absolute values: no gradient that fades",
    "Schwefel 1981, 2.20",
    (-5, 5),
    0.0,
    [3.0, -4.0],
)
_free("rosenbrock", "a curved valley", "Rosenbrock 1960, Comput. J. 3, 175", (-2, 2), 1.0, [-1.2, 1.0], least=2)
_free("ackley", "a funnel full of dents", f"{SURVEY}, no. 1", (-5, 5), 0.0, [2.5, -1.5])
_free("rastrigin", "a bowl full of dents", "Rastrigin 1974; Rudolph 1990", (-5.12, 5.12), 0.0, [2.2, -1.7])
_free("griewank", "a wide bowl with fine dents", f"{SURVEY}, no. 59", (-10, 10), 0.0, [6.0, -7.0])
_free("levy", "waves along a valley", "Levy and Montalvo 1985", (-10, 10), 1.0, [-4.0, 3.0])
_free("styblinski-tang", "a quartic with one deeper well of 2**n", f"{SURVEY}, no. 144", (-5, 5), TANG, [-0.5, 0.3],
      lambda n: -39.166165703771419 * n)  # fmt: skip
_free("zakharov", "a plate that steepens", f"{SURVEY}, no. 173", (-5, 10), 0.0, [3.0, -2.0])
_free("plateau", "a well in a plain where gradients fade", OURS, (-5, 5), 0.0, [3.0, 2.5])
_plane("beale", "sharp peaks at the corners, a flat valley", f"{SURVEY}, no. 10", [(-4.5, 4.5)] * 2, [(3, 0.5)], 0.0,
       [1.0, 1.5])  # fmt: skip
_plane("booth", "a tilted bowl", f"{SURVEY}, no. 17", [(-10, 10)] * 2, [(1, 3)], 0.0, [-5.0, -5.0])
_plane("himmelblau", "four wells", "Himmelblau 1972", [(-5, 5)] * 2,
       [(3, 2), (-2.805118086952745, 3.131312518250573), (-3.779310253377747, -3.283185991286170),
        (3.584428340330492, -1.848126526964404)], 0.0, [0.0, 0.0])  # fmt: skip
_plane("matyas", "a plate", f"{SURVEY}, no. 71", [(-10, 10)] * 2, [(0, 0)], 0.0, [6.0, -2.0])
_plane("branin", "three wells", "Branin 1972", [(-5, 10), (0, 15)],
       [(-np.pi, 12.275), (np.pi, 2.275), (3 * np.pi, 2.475)], 5 / (4 * np.pi), [2.0, 8.0])  # fmt: skip
_plane("goldstein-price", "four orders of magnitude in a small square", "Goldstein and Price 1971", [(-2, 2)] * 2,
       [(0, -1)], 3.0, [-0.5, 0.5])  # fmt: skip
_plane("mccormick", "a plate with a wave, in a box", f"{SURVEY}, no. 72", [(-1.5, 4), (-3, 4)],
       [(0.5 - np.pi / 3, -0.5 - np.pi / 3)], -(np.pi / 3 + np.sqrt(3) / 2), [2.0, 2.0], constrained=True)  # fmt: skip
_plane("three-hump-camel", "three wells", f"{SURVEY}, no. 29", [(-5, 5)] * 2, [(0, 0)], 0.0, [2.0, 2.0])
_plane("six-hump-camel", "six wells, two of them deepest", f"{SURVEY}, no. 30", [(-3, 3), (-2, 2)],
       [(0.0898420131003, -0.7126564030207), (-0.0898420131003, 0.7126564030207)], -1.0316284534898774,
       [1.5, 1.0])  # fmt: skip
_plane("easom", "a well in a plain", f"{SURVEY}, no. 50", [(-10, 10)] * 2, [(np.pi, np.pi)], -1.0, [2.0, 2.2])
_plane("saddle", "a saddle between two wells, from close beside its ridge", OURS, [(-2, 2)] * 2,
       [(0, 1), (0, -1)], -0.5, [1.5, 1e-3])  # fmt: skip
PROBLEMS.update({
    "quadratic": quadratic,
    "noisy-sphere": noisy_sphere,
    "sparse-quadratic": sparse_quadratic,
    "counterexample": counterexample,
    "logistic": logistic,
})  # fmt: skip
