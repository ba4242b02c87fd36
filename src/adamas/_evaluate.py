"""How `minimize` evaluates what the user gave it: value and gradient, by whatever means, checked and counted."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Array = Any
Function = Callable[..., Any]

JACS = ("2-point", "3-point", "spsa")


class DataEndedError(Exception):
    """The batches have come to an end."""


class Evaluator:
    """Value and gradient of a function, of one point or, vectorized, of the rows of an array.

    fun, jac: as `adamas.minimize` takes them. batches: what is passed to them after x, one in each iteration; None for
    none. nfev and njev count the calls of fun, and the gradients.
    """

    def __init__(
        self,
        fun: Function,
        jac: Any,
        args: tuple[Any, ...],
        *,
        bounds: Array | None,
        batches: Iterator[Any] | None,
        rng: np.random.Generator,
        vectorized: bool,
    ) -> None:
        self.fun, self.jac, self.args = fun, jac, args
        self.bounds, self.batches, self.rng, self.vectorized = bounds, batches, rng, vectorized
        self.nfev = self.njev = self.taken = 0  # taken: batches
        self.gradient = self._apart
        if jac is True:
            self.gradient = self._together
        elif isinstance(jac, str):
            self.gradient = self._spsa if jac == "spsa" else self._differences

    def next_batch(self) -> None:
        """Take the next batch for the calls that follow; raise DataEndedError if there is none."""
        if self.batches is not None:
            try:
                self.args = (next(self.batches), *self.args[1:])
            except StopIteration:
                raise DataEndedError from None
            self.taken += 1

    def go_on(self, taken: int, order: dict[str, Any] | None) -> None:
        """Take batches that another run took already; order: the state that it drew the order of its indices in."""
        if isinstance(self.batches, Shuffled) and order is not None:
            self.batches.go_on(order, taken - 1)
            self.taken = taken - 1
        while self.batches is not None and self.taken < taken:
            self.next_batch()

    def value(self, x: Array) -> Any:
        """Return the value at x: a float, or one for each row."""
        self.nfev += 1
        value = self.fun(x, *self.args)
        return self._checked_value(value[0] if self.jac is True else value, x)

    def _together(self, x: Array, needs_value: bool) -> tuple[Any, Array]:
        self.nfev += 1
        self.njev += 1
        value, gradient = self.fun(x, *self.args)
        return self._checked_value(value, x), self._checked_gradient(gradient, x)

    def _apart(self, x: Array, needs_value: bool) -> tuple[Any, Array]:
        self.njev += 1
        value = self.value(x) if needs_value else None
        return value, self._checked_gradient(self.jac(x, *self.args), x)

    def _differences(self, x: Array, needs_value: bool) -> tuple[Any, Array]:
        """Return finite differences with SciPy's steps, which stay inside the bounds."""
        from scipy.optimize._numdiff import approx_derivative  # noqa: PLC0415 - optional; what SciPy's methods use

        self.njev += 1
        value = self.value(x)
        bounds = (-np.inf, np.inf) if self.bounds is None else tuple(self.bounds.T)
        gradient = approx_derivative(self.value, x, method=self.jac, f0=value, bounds=bounds)
        return value, self._checked_gradient(gradient, x)

    def _spsa(self, x: Array, needs_value: bool) -> tuple[Any, Array]:
        """Return simultaneous perturbation: two values along a random direction, whose width falls as k**-0.101.

        Spall 1992, IEEE Trans. Automat. Contr. 37, 332, eq. (2.2), with his gains of 1998.
        """
        self.njev += 1
        width = 0.1 * np.maximum(1, np.abs(x)) / self.njev**0.101
        direction = self.rng.choice([-1.0, 1.0], x.shape) * width
        above, below = self.value(x + direction), self.value(x - direction)
        return (above + below) / 2, (above - below) / (2 * direction)

    def _checked_value(self, value: Any, x: Array) -> Any:
        if self.vectorized:
            values = np.asarray(value)
            if values.shape != x.shape[:1] or values.dtype.kind not in "fiu":
                raise ValueError(
                    f"fun must return {len(x)} real values for x of shape {x.shape} (vectorized=True), got "
                    f"{values.dtype.name} of shape {values.shape}"
                )
            return values
        if isinstance(value, float):
            return float(value)
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "fiu":
            what = f"an array of shape {number.shape}" if number.size != 1 else f"{value!r}, a {number.dtype.name}"
            hint = ": pass jac=True if it returns value and gradient" if isinstance(value, tuple) else ""
            raise ValueError(f"fun must return a real number, got {what}{hint}")
        return float(number.reshape(()))

    def _checked_gradient(self, gradient: Any, x: Array) -> Array:
        if type(gradient) is np.ndarray and gradient.shape == x.shape and gradient.dtype == x.dtype:
            return gradient
        array = np.asarray(gradient)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"the gradient must be real numbers, got {array.dtype.name}")
        if array.shape != x.shape and array.size == x.size and array.ndim <= 1:
            array = array.reshape(x.shape)
        if array.shape != x.shape:
            raise ValueError(f"the gradient must have the shape of x, {x.shape}, got {array.shape}")
        return array.astype(x.dtype)


def batches_of(
    data: Any, n_terms: int | None, batch_size: int | None, rng: np.random.Generator
) -> Iterator[Any] | None:
    """Return the batches, without end where they can begin again; None if there are none.

    data: an iterable of batches. n_terms, batch_size: for batches of indices below n_terms, in a new order each time.
    """
    if data is not None and n_terms is not None:
        raise ValueError("data and n_terms were both given: data are batches, n_terms makes batches of indices")
    if n_terms is not None:
        for name, number in (("n_terms", n_terms), ("batch_size", batch_size)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
        return Shuffled(n_terms, min(batch_size or 1, n_terms), rng)
    if data is None:
        return None
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be an iterable of batches, got {data!r}")
    return data if isinstance(data, Iterator) else _again_and_again(data)


class Shuffled:
    """Batches of indices below n_terms, without end, in a new order each time; those that are left over are dropped.

    order: the state of the generator when it drew the present order.
    """

    def __init__(self, n_terms: int, size: int, rng: np.random.Generator) -> None:
        self.n_terms, self.size, self.rng = n_terms, size, rng
        self.order: dict[str, Any] | None = None
        self.indices: Array = ()
        self.first = n_terms

    def __iter__(self) -> "Shuffled":
        return self

    def __next__(self) -> Array:
        if self.first + self.size > self.n_terms:
            self.order = dict(self.rng.bit_generator.state)
            self.indices, self.first = self.rng.permutation(self.n_terms), 0
        self.first += self.size
        return self.indices[self.first - self.size : self.first]

    def go_on(self, order: dict[str, Any], taken: int) -> None:
        """Be where another run was after so many batches, the next one being in an order drawn in this state."""
        self.rng.bit_generator.state = self.order = order
        self.indices = self.rng.permutation(self.n_terms)
        self.first = taken % (self.n_terms // self.size) * self.size


def _again_and_again(data: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in data:
            empty = False
            yield batch
        if empty:
            raise ValueError("data has no batches")
