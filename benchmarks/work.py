"""Rows about particular work: what is stepped, by whom, and what ratio is aimed at on two cores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

import adamas
import adamas.torch
from benchmarks.peers import Arrays, ours, stream, use
from benchmarks.timing import Ratio, Work, compare

LAYER = [
    (768,),
    (768,),
    (768, 2304),
    (2304,),
    (768, 768),
    (768,),
    (768,),
    (768,),
    (768, 3072),
    (3072,),
    (3072, 768),
    (768,),
]
GPT2_SMALL: list[tuple[int, ...]] = [(50257, 768), (1024, 768), *(12 * LAYER), (768,), (768,)]


class Row(NamedTuple):
    """A comparison: `make` returns our work and the peer's.

    factor: what the peer's time is multiplied by, if its work is a part of ours. least: the steps in a row, at least.
    package: what the peer needs.
    """

    work: str
    beside: str
    make: Callable[[], tuple[Work, Work]]
    expected: float
    pairs: int = 30
    quick: bool = False
    least: int = 2
    package: str = "torch"
    factor: float = 1.0

    def measured(self, pairs: int | None = None) -> Ratio:
        median, low, high, ours, peer = compare(*self.make(), pairs or self.pairs, self.least)
        return Ratio(median * self.factor, low * self.factor, high * self.factor, ours, peer * self.factor)


def arrays(shapes: list[tuple[int, ...]], seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


# --- what a training step does ----------------------------------------------------------------------------------------


def beside_stream(n: int, **options: Any) -> tuple[Work, Work]:
    """Return our steps with some options, and what memory allows them."""
    params, grads = arrays([(n,)], 0), arrays([(n,)], 1)
    own, states = ours(params, grads, **options)
    return own, stream(params, grads, states, "zero_grads" in options, ["g"] if "clip_norm" in options else [])


def fused(params: Arrays, grads: Arrays) -> tuple[list[Any], torch.optim.Optimizer]:
    made = [torch.nn.Parameter(torch.from_numpy(p)) for p in params]
    for p, g in zip(made, grads, strict=True):
        p.grad = torch.from_numpy(g)
    return made, torch.optim.AdamW(made, fused=True)


def tail(n: int) -> tuple[Work, Work]:
    """Return clipping, step, average and zeroing in one pass, and the torch calls that do the same."""
    params, grads = arrays([(n,)], 0), arrays([(n,)], 1)
    own, states = ours(params, grads, clip_norm=1.0, ema=0.999, zero_grads=True)
    made, opt = fused(params, grads)
    use(opt, states)
    averages, plain = [torch.from_numpy(states[0][2])], [p.detach() for p in made]

    def theirs(run: int) -> None:
        torch.nn.utils.clip_grad_norm_(made, 1.0)
        opt.step()
        torch._foreach_lerp_(averages, plain, 0.001)
        opt.zero_grad(set_to_none=False)

    return own, theirs


def state_format(n: int, name: str, **options: Any) -> tuple[Work, Work]:
    """Return our steps with state in a format, and torch's fused ones in float32."""
    params, grads = arrays([(n,)], 0), arrays([(n,)], 1)
    own, _ = ours(params, grads, state_format=name, **options)
    _, opt = fused(params, grads)
    return own, lambda run: opt.step()


def q8_beside_float32(n: int) -> tuple[Work, Work]:
    """Return our steps with state in q8, and ours in float32."""
    params, grads = arrays([(n,)], 0), arrays([(n,)], 1)
    return ours(params, grads, state_format="q8")[0], ours(params, grads)[0]


def beside_8_bits(n: int) -> tuple[Work, Work]:
    """Return our steps with state in q8, and those of bitsandbytes with state of 8 bits."""
    from bitsandbytes.optim import AdamW8bit

    params, grads = arrays([(n,)], 0), arrays([(n,)], 1)
    own, _ = ours(params, grads, state_format="q8")
    p = torch.nn.Parameter(torch.from_numpy(params[0]))
    p.grad = torch.from_numpy(grads[0])
    theirs = AdamW8bit([p], weight_decay=0.01)
    return own, lambda run: theirs.step()


def parameter_format(dtype: torch.dtype, n: int, **options: Any) -> tuple[Work, Work]:
    """Return adamas.torch and torch's fused steps of parameters and gradients of a format."""
    params = [torch.nn.Parameter(torch.randn(n).to(dtype)) for _ in range(2)]
    for p in params:
        p.grad = torch.randn(n).to(dtype)
    own, theirs = adamas.torch.AdamW(params[:1], **options), torch.optim.AdamW(params[1:], fused=True)
    return lambda run: own.step(), lambda run: theirs.step()


# --- small and odd ----------------------------------------------------------------------------------------------------


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


def two_floats(optimizer: Any) -> Work:
    params = [1.0, 2.0]

    def step(run: int) -> None:
        nonlocal params
        x, y = params
        params = optimizer.update([x, y], [0.1 * x, 0.2 * y])

    return step


def fresh_gradients(count: int, size: int) -> tuple[Work, Work]:
    """Return our steps and torch's fused ones of a list of arrays whose gradients are other arrays at each step."""
    params, grads = arrays([(size,)] * count, 0), [arrays([(size,)] * count, seed) for seed in (1, 2, 3)]
    own = adamas.AdamW()
    made, opt = fused(params, grads[0])
    tensors = [[torch.from_numpy(g) for g in some] for some in grads]

    def theirs(run: int) -> None:
        for p, g in zip(made, tensors[run % 3], strict=True):
            p.grad = g
        opt.step()

    return lambda run: own.update(params, grads[run % 3]), theirs


def with_gradient(gradient: float, steps_before: int) -> Work:
    """Return steps of a million elements whose gradient is a constant, after some steps of zero gradient."""
    opt, (p,) = adamas.AdamW(), arrays([(1_000_000,)], 0)
    (g,) = arrays([p.shape], 1)
    for _ in range(10):
        opt.update(p, g)
    zero = np.zeros_like(p)
    for _ in range(steps_before):
        opt.update(p, zero)
    g = np.full_like(p, gradient) if steps_before or gradient else g
    return lambda run: opt.update(p, g)


def torch_dead(flush: bool) -> Work:
    """Return torch's fused steps of a million parameters that have been dead for 5,000 steps."""
    p = torch.nn.Parameter(torch.randn(1_000_000))
    opt = torch.optim.AdamW([p], fused=True)
    p.grad = torch.randn(p.shape)
    opt.step()
    state = opt.state[p]  # what 5,000 steps of zero gradients leave, without taking them
    state["exp_avg"].fill_(1e-42)
    state["exp_avg_sq"].fill_(1e-42)
    p.grad = torch.zeros_like(p)

    def step(run: int) -> None:
        torch.set_flush_denormal(flush)
        opt.step()
        torch.set_flush_denormal(False)

    return step


def after_product(threads: int | None) -> Work:
    """Return steps of 400k parameters, each after a matrix product of NumPy, which has threads of its own."""
    opt = adamas.AdamW()
    p, inputs, g = (np.stack(arrays([shape[1:]] * shape[0], seed)) for shape, seed in
                    (((784, 512), 0), ((64, 784), 1), ((784, 512), 2)))  # fmt: skip

    def step(run: int) -> None:
        np.matmul(inputs, p)
        adamas.set_num_threads(threads)
        opt.update(p, g)
        adamas.set_num_threads(None)

    return step


def iterations(**options: Any) -> tuple[Work, Work]:
    """Return 1,000 iterations of `minimize` on two variables, and the same steps of Adam in a loop."""
    gradient = np.array([0.1, -0.2])
    run = adamas.Minimizer(lambda x: (0.0, gradient), [1.0, 2.0], jac=True, maxiter=10**9, **options)
    opt, x = adamas.Adam(0.01), np.array([1.0, 2.0])

    def ours(_: int) -> None:
        for _ in range(1000):
            run.step()

    def theirs(_: int) -> None:
        for _ in range(1000):
            opt.update(x, gradient)

    return ours, theirs


def many_starts(count: int, singly: int) -> tuple[Work, Work]:
    """Return 1,000 steps of Rosenbrock's function from many starts at once, and from a few of them in turn."""
    problem = adamas.problems.get("rosenbrock")
    starts = np.random.default_rng(0).uniform(-2, 2, (count, 2))

    def minimized(x: Any, vectorized: bool) -> None:
        adamas.minimize(problem.value_and_gradient, x, jac=True, maxiter=1000, vectorized=vectorized)

    def one_by_one(run: int) -> None:
        for x in starts[:singly]:
            minimized(x, False)

    return lambda run: minimized(starts, True), one_by_one


def tensors(shapes: list[tuple[int, ...]], **options: Any) -> tuple[Work, Work]:
    """Return the steps of our torch AdamW and of torch's, with options, of the very same tensors and state."""
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape)
    own, theirs = adamas.torch.AdamW(params), torch.optim.AdamW(params, **options)
    own.step()
    for p in params:
        theirs.state[p] = {**own.state[p], "step": torch.tensor(1.0)}
    return lambda run: own.step(), lambda run: theirs.step()


def recorded(n: int) -> tuple[Work, Work]:
    """Return steps that a history records, and the same steps without."""
    (p,), (g,), history = arrays([(n,)], 0), arrays([(n,)], 1), adamas.History(most=100)
    own, plain = adamas.AdamW(), adamas.AdamW()
    return lambda run: own.update(p, g, history=history), lambda run: plain.update(p, g)


BIG, BFLOAT16 = 100_000_000, ml_dtypes.bfloat16
TAIL = "100M: clip, step, average, zero"

ROWS = [
    Row(TAIL, "torch: the same in calls", lambda: tail(BIG), 1.7, 15),
    Row(TAIL, "stream of 44 bytes",
        lambda: beside_stream(BIG, clip_norm=1.0, ema=0.999, zero_grads=True), 0.9, 15),
    Row("100M: bfloat16 state", "torch fused, float32", lambda: state_format(BIG, "bfloat16"), 1.15, 15),
    Row("100M: bfloat16 state", "stream of 20 bytes", lambda: beside_stream(BIG, state_format="bfloat16"), 0.9, 15),
    Row("100M: bfloat16 state, at random", "torch fused, float32",
        lambda: state_format(BIG, "bfloat16", stochastic_rounding=True), 0.9, 15),
    Row("100M: q8 state", "torch fused, float32", lambda: state_format(BIG, "q8"), 1.4, 15),
    Row("100M: q8 state", "stream of 16 bytes", lambda: beside_stream(BIG, state_format="q8"), 0.8, 15),
    Row("100M: q8 state, bfloat16 parameters at random", "torch fused, all bfloat16",
        lambda: parameter_format(torch.bfloat16, BIG, state_format="q8", stochastic_rounding=True), 1.0, 15),
    Row("1M: q8 state", "our float32 state", lambda: q8_beside_float32(10**6), 0.7),
    Row("10M: q8 state", "bitsandbytes, 8 bits", lambda: beside_8_bits(10**7), 20, 9, package="bitsandbytes"),
    Row("10M: bfloat16 parameters", "torch fused, bfloat16 state",
        lambda: parameter_format(torch.bfloat16, 10**7, state_format="bfloat16"), 1.0),
    Row("10M: float16 parameters", "torch fused, float16 state",
        lambda: parameter_format(torch.float16, 10**7, state_format="bfloat16"), 1.0),
    Row("10M: float64 parameters", "torch fused", lambda: parameter_format(torch.float64, 10**7), 1.0),
    Row("1,000 x 100, new gradient arrays", "torch fused", lambda: fresh_gradients(1000, 100), 25, quick=True),
    Row("10,000 x 1,000, new gradient arrays", "torch fused", lambda: fresh_gradients(10_000, 1000), 6),
    Row("2 Python floats", "pure Python", lambda: (two_floats(adamas.Adam()), two_floats(TutorialAdam())), 1,
        quick=True),
    Row("1M, dead for 5,000 steps", "ordinary gradients",
        lambda: (with_gradient(0.0, 5000), with_gradient(0.0, 0)), 1 / 1.1, 60),
    Row("1M, dead for 5,000 steps", "torch fused", lambda: (with_gradient(0.0, 5000), torch_dead(False)), 1),
    Row("1M, dead for 5,000 steps", "torch fused, flushing", lambda: (with_gradient(0.0, 5000), torch_dead(True)), 1),
    Row("1M, gradients of 1e-20", "ordinary gradients",
        lambda: (with_gradient(1e-20, 0), with_gradient(0.0, 0)), 1 / 1.1, 60),
    Row("30M, each step recorded", "not recorded", lambda: recorded(30_000_000), 1 / 1.1),
    Row("minimize: 2 variables", "update in a loop", iterations, 1 / 3, quick=True),
    Row("minimize: 2 variables, gtol and bounds", "update in a loop",
        lambda: iterations(gtol=1e-9, bounds=[(-1e9, 1e9)] * 2), 1 / 6),
    Row("minimize: 10,000 starts, 1,000 steps", "one after another", lambda: many_starts(10_000, 10), 50, 9,
        factor=1000),
    Row("400k, after a NumPy product", "1 thread", lambda: (after_product(None), after_product(1)), 0.8),
    Row("adamas.torch: 100M, one tensor", "torch fused", lambda: tensors([(BIG,)], fused=True), 1, 15),
    Row("adamas.torch: GPT-2 small", "torch fused", lambda: tensors(GPT2_SMALL, fused=True), 1, 15),
    Row("adamas.torch: GPT-2 small", "torch default", lambda: tensors(GPT2_SMALL), 4, 9),
    Row("adamas.torch: 1,000 x 1,000", "torch fused", lambda: tensors([(1000,)] * 1000, fused=True), 8, least=20),
    Row("the same, 2 steps in a row", "torch fused", lambda: tensors([(1000,)] * 1000, fused=True), 3),
    Row("adamas.torch: 10 x 64", "torch fused", lambda: tensors([(64,)] * 10, fused=True), 5, quick=True),
    Row("adamas.torch: 10 x 64", "torch default", lambda: tensors([(64,)] * 10), 10),
]  # fmt: skip
