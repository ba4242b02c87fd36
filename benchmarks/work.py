"""The rows of the benchmark: what is stepped, by whom, and what ratio is expected on two cores."""

from typing import Any

import numpy as np
import torch

import adamas
from adamas import _native
from benchmarks.timing import Row


class TutorialAdam:
    """Adam as tutorials write it in pure Python, for a list of floats."""

    def __init__(self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        self.learning_rate, self.beta1, self.beta2, self.epsilon = learning_rate, beta1, beta2, epsilon
        self.m: list[float] | None = None
        self.t = 0

    def update(self, params: list[float], grads: list[float]) -> list[float]:
        if self.m is None:
            self.m, self.v = [0.0] * len(params), [0.0] * len(params)
        self.t += 1
        updated = []
        for i in range(len(params)):
            self.m[i] = self.beta1 * self.m[i] + (1 - self.beta1) * grads[i]
            self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * grads[i] ** 2
            m_hat = self.m[i] / (1 - self.beta1**self.t)
            v_hat = self.v[i] / (1 - self.beta2**self.t)
            updated.append(params[i] - self.learning_rate * m_hat / (v_hat**0.5 + self.epsilon))
        return updated


def arrays(count: int, size: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size, dtype=np.float32) for _ in range(count)]


def ours(count: int, size: int, fresh: int) -> Any:
    """Return steps of AdamW on a list of arrays, whose gradients are other arrays in each of `fresh` steps."""
    opt, params = adamas.AdamW(), arrays(count, size, 0)
    grads = [arrays(count, size, seed) for seed in range(1, fresh + 1)]
    return lambda run: opt.update(params, grads[run % fresh])


def torch_fused(count: int, size: int, fresh: int) -> Any:
    """Return the same with torch's fused AdamW."""
    params = [torch.nn.Parameter(torch.from_numpy(p)) for p in arrays(count, size, 0)]
    grads = [[torch.from_numpy(g) for g in arrays(count, size, seed)] for seed in range(1, fresh + 1)]
    opt = torch.optim.AdamW(params, fused=True)

    def step(run: int) -> None:
        for param, grad in zip(params, grads[run % fresh], strict=True):
            param.grad = grad
        opt.step()

    return step


def beside_stream(size: int) -> tuple[Any, Any]:
    """Return steps of AdamW, and of the engine's loop with next to no arithmetic.

    On the very same arrays, since where arrays lie in memory makes some per cent. The stream swaps m and v, so it must
    run an even number of times.
    """
    opt = adamas.AdamW()
    (p,), grads = arrays(1, size, 0), arrays(3, size, 1)
    opt.update(p, grads[0])
    plan = _native.engine.Plan("Stream", [(0, p, opt._memory.states()[""], False)], None, 0)
    t = 0

    def stream(run: int) -> None:
        nonlocal t
        t += 1
        plan.run([p], [grads[run % 3]], ({},), ((1.0, 0.0, 0.0),), t)

    return lambda run: opt.update(p, grads[run % 3]), stream


def two_floats(optimizer: Any) -> Any:
    params = [1.0, 2.0]

    def step(run: int) -> None:  # noqa: ARG001 - every run is the same
        nonlocal params
        x, y = params
        params = optimizer.update([x, y], [0.1 * x, 0.2 * y])

    return step


def with_gradient(gradient: float, steps_before: int) -> Any:
    """Return steps of a million elements whose gradient is a constant, after some steps of zero gradient."""
    opt, p = adamas.AdamW(), arrays(1, 1_000_000, 0)[0]
    g = arrays(1, p.size, 1)[0]
    for _ in range(10):
        opt.update(p, g)
    zero = np.zeros_like(p)
    for _ in range(steps_before):
        opt.update(p, zero)
    g = np.full_like(p, gradient) if steps_before or gradient else g
    return lambda run: opt.update(p, g)  # noqa: ARG005


def after_product(threads: int | None) -> Any:
    """Return steps of 400k parameters, each after a matrix product of NumPy, which has threads of its own."""
    opt = adamas.AdamW()
    weight, x = arrays(784, 512, 0), arrays(64, 784, 1)
    p, inputs = np.stack(weight), np.stack(x)
    g = np.stack(arrays(784, 512, 2))

    def step(run: int) -> None:  # noqa: ARG001 - every run is the same
        np.matmul(inputs, p)
        adamas.set_num_threads(threads)
        opt.update(p, g)
        adamas.set_num_threads(None)

    return step


def rows() -> list[Any]:
    """Return functions that make the rows, so that each row's memory is freed before the next is made."""
    ordinary = "ordinary gradients"
    return [
        lambda: Row("30M, one array", "stream of 28 bytes", *beside_stream(30_000_000), 0.95, 30, 2),
        lambda: Row("100k, one array", "torch fused", ours(1, 100_000, 1), torch_fused(1, 100_000, 1), 3, 30, 200),
        lambda: Row("1,000 arrays of 100", "torch fused", ours(1000, 100, 3), torch_fused(1000, 100, 3), 15, 60),
        lambda: Row(
            "2 Python floats", "pure Python", two_floats(adamas.Adam()), two_floats(TutorialAdam()), 1, 100, 2000
        ),
        lambda: Row(
            "1M, dead for 5,000 steps", ordinary, with_gradient(0.0, 5000), with_gradient(0.0, 0), 1 / 1.1, 200
        ),
        lambda: Row("1M, gradients of 1e-20", ordinary, with_gradient(1e-20, 0), with_gradient(0.0, 0), 1 / 1.1, 200),
        lambda: Row("400k, after a NumPy product", "1 thread", after_product(None), after_product(1), 0.8, 20, 100),
    ]
