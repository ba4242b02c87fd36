"""`minimize`, as SciPy's, by any rule of the package; `Minimizer`, the same one iteration at a time."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any

import numpy as np

from adamas import _resume
from adamas._bounds import FEW, Box
from adamas._evaluate import JACS, DataEndedError, Evaluator, batches_of
from adamas._optimizer import Optimizer
from adamas._optimizers import find_optimizer
from adamas._stopping import (
    ENDED,
    NOT_FINITE,
    SPENT,
    STOPPED,
    Rule,
    Verdict,
    gradient_below,
    no_progress,
    small_steps,
    time_spent,
    value_reached,
)

Array = Any

MOMENTS = ("m", "b")
"""The names of state that say where a parameter is going."""

RETURNS = ("last", "best", "average")


class Minimizer:
    """A run of `minimize` that is controlled from outside: ``for run in Minimizer(fun, x0, ...): print(run.fun)``.

    Takes the arguments of `adamas.minimize` but callback. Each item is the run itself after one more iteration; `x`,
    `fun` (None where the value was not needed), `jac` and `nit` say where it is, `result()` is what `minimize` returns.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        x0: Any,
        *,
        method: str | Optimizer = "adam",
        jac: Any = None,
        args: tuple[Any, ...] = (),
        bounds: Any = None,
        tol: float | None = None,
        learning_rate: Any = 0.01,
        maxiter: int = 10_000,
        gtol: float | None = None,
        ftol: float | None = None,
        patience: int = 100,
        xtol: float | None = None,
        target: float | None = None,
        max_seconds: float | None = None,
        x_scale: Any = None,
        return_x: str = "last",
        data: Any = None,
        n_terms: int | None = None,
        batch_size: int | None = 32,
        rng: Any = None,
        vectorized: bool = False,
        history: Any = None,
        **hyperparameters: Any,
    ) -> None:
        self.scale = None if x_scale is None else np.asarray(x_scale, float)
        start = _checked_start(x0, vectorized)
        self.bounds = _checked_bounds(bounds, start)
        _check_choices(jac, return_x, maxiter, patience)
        generator = np.random.default_rng(rng)
        batches = batches_of(data, n_terms, batch_size, generator)
        arguments = args if isinstance(args, tuple) else (args,)
        self.evaluator = Evaluator(
            fun,
            "2-point" if jac is None or jac is False else jac,
            arguments if batches is None else (None, *arguments),
            bounds=self.bounds,
            batches=batches,
            rng=generator,
            vectorized=vectorized,
        )
        self.optimizer = _optimizer(method, learning_rate, hyperparameters)
        self.return_x, self.maxiter, self.history, self.vectorized = return_x, maxiter, history, vectorized
        smoothing = 0.0 if batches is None else 0.98
        box = None if self.bounds is None else Box(*(side.copy() for side in self.bounds.T))
        self.rules: list[Rule] = []
        for value, rule in (
            (gtol if gtol is not None else tol, lambda v: gradient_below(v, box)),
            (ftol, lambda v: no_progress(v, patience, smoothing)),
            (xtol, small_steps),
            (target, value_reached),
            (max_seconds, time_spent),
        ):
            if value is not None:
                self.rules.append(rule(_checked_tolerance(value)))
        self.tolerant = any(value is not None for value in (gtol, tol, ftol, xtol, target))
        self.needs_value = ftol is not None or target is not None or return_x == "best" or history is not None
        self.u = start if self.scale is None else start / self.scale  # what is stepped
        self.box = box  # of what is stepped
        if box is not None and self.scale is not None:
            self.box = Box(box.low / self.scale, box.high / self.scale)
        self.average = np.zeros_like(start) if return_x == "average" else None
        self.fun: Any = None
        self.jac: Array | None = None
        self.best_x, self.best_fun = start.copy(), math.inf
        self.nit = 0
        self.verdict: Verdict | None = None

    @property
    def x(self) -> Array:
        """A copy of where the run is."""
        return self.u.copy() if self.scale is None else self.u * self.scale

    def __iter__(self) -> Iterator["Minimizer"]:
        while self.step():
            yield self

    def step(self) -> bool:
        """Take one more iteration; return False, with x as it was, if the run has come to its end."""
        if self.verdict is not None:
            return False
        if self.nit >= self.maxiter:
            self.verdict = Verdict(SPENT[0], SPENT[1].format(self.maxiter))
            return False
        x = self.x
        try:
            self.evaluator.next_batch()
        except DataEndedError:
            self.verdict = ENDED
            return False
        self.fun, g = self.evaluator.gradient(x, self.needs_value)
        self.jac = g
        if not self._is_finite(g):
            self.verdict = NOT_FINITE
            return False
        if self.fun is not None and not self._keep_best(x):
            return False
        if self.rules and self._is_over(x, g):
            return False
        self.optimizer.update(self.u, g if self.scale is None else g * self.scale)
        self.nit += 1
        if self.box is not None and not self.box.surely_inside(self.u):
            self._project(self.box)
        if self.average is not None:
            self.average += (self.x - self.average) / self.nit
        if self.history is not None:
            self.history.record(self.nit, self.fun, self.x, g, self.optimizer)
        return True

    def save(self, path: str | PathLike[str], **metadata: Any) -> None:
        """Write a checkpoint of the run, from which `load` goes on to the bit; see `Optimizer.save`.

        The function, its data and the history are not in it.
        """
        _resume.save(self, path, metadata)

    def load(self, path: str | PathLike[str]) -> "Minimizer":
        """Go on where a run was that was saved, and return self, which must be new and made with the same arguments.

        Batches from `data` that were used then are taken from it and passed over. Raises CheckpointError, with nothing
        changed, if the file is damaged or holds another run, and OSError if it cannot be read.
        """
        _resume.load(self, path)
        return self

    def _is_finite(self, g: Array) -> bool:
        """Whether a step makes sense: of many starts it is enough that one is finite."""
        if g.size < FEW and math.isfinite(sum(g.ravel().tolist())):  # of few numbers faster than NumPy is
            return True
        finite = np.isfinite(g)
        return bool(finite.all(axis=-1).any() if self.vectorized else finite.all())

    def _keep_best(self, x: Array) -> bool:
        """Remember x if it is the best so far; return False if the value is not finite."""
        if self.vectorized:
            return True  # the value of each start is in the result
        if not math.isfinite(self.fun):
            self.verdict = NOT_FINITE
            return False
        if self.fun < self.best_fun:
            self.best_x, self.best_fun = x, self.fun
        return True

    def _is_over(self, x: Array, g: Array) -> bool:
        rate: Any = self.optimizer.learning_rate  # type: ignore[attr-defined]  # every rule has one
        rate = rate(self.nit) if callable(rate) else rate
        for rule in self.rules:
            if (verdict := rule(self.fun, g, x, rate)) is not None:
                self.verdict = verdict
                return True
        return False

    def _project(self, box: Box) -> None:
        """Put x back into the bounds; what sits on one is not pushed further out by its momentum."""
        box.project(self.u, out=self.u)
        at_low, at_high = self.u == box.low, self.u == box.high
        if np.count_nonzero(at_low) or np.count_nonzero(at_high):
            names, (state,) = self.optimizer.rule.state_names, self.optimizer._memory.states().values()
            for name, moment in zip(names, state, strict=False):
                if name in MOMENTS:  # the step is against it
                    moment[(at_low & (moment > 0)) | (at_high & (moment < 0))] = 0

    def result(self) -> Any:
        """Return a scipy.optimize.OptimizeResult of where the run is; evaluates the value there if it is not known."""
        optimize = scipy_optimize()
        verdict = self.verdict or Verdict(5, "the run is not over")
        x, fun = self.x, None
        if self.return_x == "average" and self.nit:
            assert self.average is not None
            x = self.average.copy()
        if verdict is NOT_FINITE or (self.return_x == "best" and not self.vectorized):
            known = self.best_fun < math.inf
            x, fun = self.best_x.copy(), self.best_fun if known else None
        if fun is None and (self.evaluator.batches is None or self.nit > 0):  # on the last batch
            fun = self.evaluator.value(x)
            if self.return_x == "best" and not self.vectorized and self.verdict is not NOT_FINITE:
                fun = min(fun, self.best_fun)
        spent = verdict.status in (SPENT[0], 2)
        return optimize.OptimizeResult(
            x=x, fun=fun, jac=self.jac, nit=self.nit, nfev=self.evaluator.nfev, njev=self.evaluator.njev,
            success=verdict.met or (spent and not self.tolerant), status=verdict.status, message=verdict.message,
        )  # fmt: skip


def minimize(fun: Callable[..., Any], x0: Any, *, callback: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Minimize a function of one array by a rule of the package; return a scipy.optimize.OptimizeResult.

    fun: called as ``fun(x, *args)`` with a copy of x; returns a float, or with jac=True a float and the gradient.
    x0: where to start, of shape (n,). With vectorized=True (starts, n): that many runs as one array, for which fun
        returns (starts,) values; the run ends when all starts meet a tolerance.
    method: the name of a rule, in any case, or an optimizer of the package, whose state is reset. Hyper-parameters of
        the rule, and options of the step, are further arguments.
    jac: the gradient, called like fun; True if fun returns it too; "2-point" (the default) or "3-point" for SciPy's
        finite differences; "spsa" for simultaneous perturbation, two values per iteration, for noisy functions.
    bounds: pairs (low, high), None for no bound, or a scipy.optimize.Bounds. x is projected after each step.
    callback: called after each iteration as SciPy's are: with ``intermediate_result=`` if that is the name of its only
        parameter, else with a copy of x; StopIteration ends the run.
    learning_rate: 0.01, or a number or function of the step. x_scale: sizes of the coordinates: each moves as if it
        were measured in that unit, so its learning rate is that many times as large.
    maxiter: 10,000 iterations. Tolerances are off unless given: gtol (or tol), for the largest coordinate of the
        projected gradient; ftol, for the fall of the value within `patience` iterations (100), smoothed if there are
        batches; xtol, for the last step in units of the learning rate; target, for the value. max_seconds: of time.
    return_x: "last", "best" (fun is then evaluated in each iteration) or "average", the mean of all iterates.
    data: an iterable of batches: fun is called as ``fun(x, batch, *args)``. n_terms, batch_size (32): for batches of
        indices, without repetition within an epoch. rng: a seed or generator for those and for "spsa".
    history: an object whose ``record(step, fun, x, jac, optimizer)`` is called after each iteration.

    The result has x, fun, jac, nit, nfev, njev, success, status and message. Status 0: a tolerance is met; 1, 2: the
    iterations, or the time, are spent, which is a success if no tolerance was given; 3: value or gradient are not
    finite, and x is the best before; 4: the batches ended; 99: the callback stopped the run. Raises TypeError or
    ValueError, naming the argument, for bad input. Needs SciPy: pip install 'adamas[scipy]'.
    """
    scipy_optimize()
    run = Minimizer(fun, x0, **options)
    if callback is None:
        while run.step():
            pass
        return run.result()
    call = _reporter(callback)
    while run.step():
        try:
            call(run)
        except StopIteration:
            run.verdict = STOPPED
    return run.result()


def _reporter(callback: Callable[..., Any]) -> Callable[[Minimizer], Any]:
    """Return what calls a callback after an iteration, in whichever of SciPy's two ways it asks for."""
    try:
        modern = list(inspect.signature(callback).parameters) == ["intermediate_result"]
    except (TypeError, ValueError):  # some built-in functions have no signature
        modern = False
    if not modern:
        return lambda run: callback(run.x)

    def call(run: Minimizer) -> Any:
        x = run.x
        return callback(intermediate_result=scipy_optimize().OptimizeResult(x=x, fun=run.evaluator.value(x)))

    return call


def scipy_optimize() -> Any:
    """Return scipy.optimize; raise ImportError that says how to get it."""
    try:
        from scipy import optimize  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("minimize needs SciPy, which is missing: pip install 'adamas[scipy]'") from error
    return optimize


def _optimizer(method: Any, learning_rate: Any, hyperparameters: dict[str, Any]) -> Optimizer:
    if isinstance(method, Optimizer):
        if hyperparameters:
            raise TypeError(f"method is an optimizer, so {next(iter(hyperparameters))} must be set there")
        method.reset()
        return method
    made: Any = find_optimizer("method", method)
    return made(learning_rate=learning_rate, **hyperparameters)  # type: ignore[no-any-return]


def _checked_start(x0: Any, vectorized: bool) -> Array:
    x = np.asarray(x0)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"x0 must be real numbers, got {x.dtype.name}")
    x = np.array(x, x.dtype if x.dtype == np.float32 else np.float64)
    if vectorized and x.ndim != 2:
        raise ValueError(f"x0 must have shape (starts, n) with vectorized=True, got {x.shape}")
    if not vectorized and x.ndim != 1:
        if x.ndim != 0:
            raise ValueError(f"x0 must have shape (n,), got {x.shape}: pass x0.ravel(), or vectorized=True for many")
        x = x.reshape(1)
    if not np.isfinite(x).all():
        raise ValueError(f"x0 must be finite, got {x0!r}")
    return x


def _checked_bounds(bounds: Any, x: Array) -> Array | None:
    """Return bounds as an array (n, 2) and project x; warn if it was outside."""
    if bounds is None:
        return None
    n = x.shape[-1]
    if hasattr(bounds, "lb"):
        pairs = np.stack([np.broadcast_to(bounds.lb, n), np.broadcast_to(bounds.ub, n)], axis=-1).astype(float)
    else:
        pairs = np.array([[-np.inf if low is None else low, np.inf if high is None else high] for low, high in bounds],
                         float).reshape(-1, 2)  # fmt: skip
    if pairs.shape != (n, 2):
        raise ValueError(f"bounds must be {n} pairs, one for each coordinate of x0, got {len(pairs)}")
    crossed = ~(pairs[:, 0] <= pairs[:, 1])
    if crossed.any():
        i = int(np.argmax(crossed))
        raise ValueError(f"bounds[{i}] must be (low, high) with low <= high, got {tuple(pairs[i].tolist())}")
    inside = np.clip(x, *pairs.T)
    if (inside != x).any():
        warnings.warn("x0 is outside the bounds, and was put on them", scipy_optimize().OptimizeWarning, stacklevel=4)
        x[...] = inside
    return pairs.astype(x.dtype)


def _check_choices(jac: Any, return_x: str, maxiter: Any, patience: Any) -> None:
    if isinstance(jac, str) and jac not in JACS:
        raise ValueError(f"jac must be a function, True, or one of {', '.join(map(repr, JACS))}, got {jac!r}")
    if return_x not in RETURNS:
        raise ValueError(f"return_x must be one of {', '.join(map(repr, RETURNS))}, got {return_x!r}")
    for name, number in (("maxiter", maxiter), ("patience", patience)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")


def _checked_tolerance(value: Any) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or math.isnan(float(value)):
        raise ValueError(f"a tolerance, target or time must be a number, got {value!r}")
    return float(value)
