"""Rows about the tuner: trials as rows of one array, beside loops over them."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna

import adamas
from adamas import LogUniform, Tuner, Uniform
from benchmarks.timing import Work
from benchmarks.work import Row, TutorialAdam

STEPS = 1000
SPACE = {
    "learning_rate": LogUniform(1e-4, 1e-1),
    "beta1": Uniform(0.8, 0.99),
    "beta2": Uniform(0.9, 0.999),
    "epsilon": Uniform(1e-9, 1e-7),
}


def ours(trials: int) -> Work:
    tuner = Tuner("sphere", SPACE, starts=1)
    return lambda run: tuner.tune(trials, STEPS)


def beside_loop(trials: int, of_theirs: int) -> tuple[Work, Work]:
    """Return the tuner on the sphere in two variables, and the tutorial's loop in pure Python, for fewer trials."""
    rng = np.random.default_rng(0)

    def function(x: float, y: float) -> float:
        return x**2 + y**2

    def gradient(x: float, y: float) -> list[float]:
        return [2 * x, 2 * y]

    def theirs(run: int) -> None:
        for _ in range(of_theirs):
            opt, x = TutorialAdam(*(given.draw(rng, 1)[0] for given in SPACE.values())), [3.0, -4.0]
            best = function(*x)
            for _ in range(STEPS):
                x = opt.update(x, gradient(*x))
                best = min(best, function(*x))

    return ours(trials), theirs


def beside_optuna(trials: int, of_theirs: int) -> tuple[Work, Work]:
    """Return the tuner, and Optuna that drives one optimizer for each trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        opt = adamas.Adam(**{name: given.suggest(trial, name) for name, given in SPACE.items()})
        x = np.array([3.0, -4.0])
        for _ in range(STEPS):
            opt.update(x, 2 * x)
        return float(x @ x)

    def theirs(run: int) -> None:
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=run)).optimize(objective, n_trials=of_theirs)

    return ours(trials), theirs


def beside_vmap(trials: int) -> tuple[Work, Work]:
    """Return the tuner, and optax's adam under jax.vmap and jit, compiled beforehand, on the same draws."""
    import jax
    import optax

    def one(rate: Any, beta1: Any, beta2: Any, epsilon: Any) -> Any:
        opt = optax.adam(rate, beta1, beta2, epsilon)

        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            updates, state = opt.update(2 * x, state)
            return (optax.apply_updates(x, updates), state), None

        x = jax.numpy.array([3.0, -4.0])
        (x, _), _ = jax.lax.scan(step, (x, opt.init(x)), None, STEPS)
        return x @ x

    many, rng = jax.jit(jax.vmap(one)), np.random.default_rng(0)

    def theirs(run: int) -> None:
        many(*(np.array(given.draw(rng, trials)) for given in SPACE.values())).block_until_ready()

    theirs(0)
    return ours(trials), theirs


ROWS = [
    Row("tuner: 100 trials of 1,000 steps", "pure Python", lambda: beside_loop(100, 10), 5, 9, factor=10),
    Row("tuner: 1,000 trials of 1,000 steps", "pure Python", lambda: beside_loop(1000, 10), 15, 9, factor=100),
    Row("tuner: 100 trials of 1,000 steps", "Optuna, one Adam each", lambda: beside_optuna(100, 10), 20, 9, factor=10),
]
if find_spec("jax") and find_spec("optax"):
    ROWS.append(Row("tuner: 1,000 trials of 1,000 steps", "optax under jax.vmap", lambda: beside_vmap(1000), 0.1, 9))
