"""Who else steps AdamW on a CPU: what each needs, and how it steps float32 arrays at its best."""

import importlib
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import numpy as np
import torch

import adamas
from adamas import _native
from benchmarks.timing import Work

Arrays = Sequence[Any]
States = Sequence[tuple[Any, ...]]
RATE, BETAS, EPSILON, DECAY = 1e-3, (0.9, 0.999), 1e-8, 0.01
"""What AdamW defaults to in adamas and torch."""


class Peer(NamedTuple):
    """Someone to compare with: `make` returns steps of parameters by gradients.

    It also gets arrays for the moments, which all who can use, since where memory lies makes some per cent.
    """

    name: str
    package: str
    make: Callable[[Arrays, Arrays, States], Work]
    most: int = 1_000_000  # arrays in one call: more take minutes, some of them to compile


def ours(params: Arrays, grads: Arrays, opt: Any = None, **options: Any) -> tuple[Work, States]:
    """Return our steps, of AdamW with some options unless an optimizer is given, and the arrays that they remember."""
    opt, params, grads = opt or adamas.AdamW(**options), list(params), list(grads)
    opt.update(params, grads)
    return lambda run: opt.update(params, grads), list(opt._memory.states().values())


def stream(params: Arrays, grads: Arrays, states: States, clears: bool = False, first: Sequence[str] = ()) -> Work:
    """Return what memory allows: the reads and writes of a step, in passes over memory without arithmetic.

    clears: whether the gradients are written too. first: what a pass before reads, of "p", "g" and "state".
    """
    whole = [
        [("p", p, True), ("g", g, clears), *(("state", x, True) for x in state)]
        for p, g, state in zip(params, grads, states, strict=True)
    ]
    before = [[(kind, x, False) for kind, x, _ in group if kind in first] for group in whole]
    passes = [
        [[(x.reshape(-1).view(np.uint8), written) for _, x, written in group] for group in groups]
        for groups in ([before, whole] if first else [whole])
    ]
    traffic = _native.engine.Traffic(passes)
    return lambda run: traffic.run()


def numpy(params: Arrays, grads: Arrays, states: States) -> Work:
    """Return the usual formula in NumPy, in place where it can be."""
    (beta1, beta2), t = BETAS, 0

    def step(run: int) -> None:
        nonlocal t
        t += 1
        for i, (m, v) in enumerate(states):
            p, g = params[i], grads[i]
            np.multiply(m, beta1, out=m)
            np.add(m, (1 - beta1) * g, out=m)
            np.multiply(v, beta2, out=v)
            np.add(v, (1 - beta2) * (g * g), out=v)
            p *= 1 - RATE * DECAY
            p -= (RATE / (1 - beta1**t)) * m / (np.sqrt(v / (1 - beta2**t)) + EPSILON)

    return step


def thinc(params: Arrays, grads: Arrays, states: States) -> Work:
    from thinc.optimizers import Adam

    opt = Adam(RATE, L2=DECAY, beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, grad_clip=0.0, L2_is_weight_decay=True)

    def step(run: int) -> None:
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            opt((i, "array"), p, g)

    return step


def parameters(params: Arrays, grads: Arrays) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.from_numpy(p)) for p in params]
    for p, g in zip(made, grads, strict=True):
        p.grad = torch.from_numpy(g)
    return made


def use(opt: torch.optim.Optimizer, states: States) -> None:
    """Let an optimizer of torch use some arrays as moments."""
    for p, (m, v, *_) in zip(opt.param_groups[0]["params"], states, strict=True):
        moments = {"exp_avg": torch.from_numpy(m), "exp_avg_sq": torch.from_numpy(v)}
        opt.state[p] = {"step": torch.tensor(0.0), **moments}


def torch_with(**options: Any) -> Callable[[Arrays, Arrays, States], Work]:
    """Return what makes steps of torch's AdamW with some options, of parameters that stay torch's."""

    def make(params: Arrays, grads: Arrays, states: States) -> Work:
        opt = torch.optim.AdamW(parameters(params, grads), **options)
        use(opt, states)
        return lambda run: opt.step()

    return make


def from_numpy(params: Arrays, grads: Arrays, states: States) -> Work:
    """Return steps of torch's fused AdamW for someone who has NumPy arrays: the gradients are new ones at each step."""
    made = parameters(params, grads)
    opt = torch.optim.AdamW(made, fused=True)
    use(opt, states)

    def step(run: int) -> None:
        for p, g in zip(made, grads, strict=True):
            p.grad = torch.from_numpy(g)
        opt.step()

    return step


def compiled(params: Arrays, grads: Arrays, states: States) -> Work:
    opt = torch.optim.AdamW(parameters(params, grads), lr=torch.tensor(RATE))
    step = torch.compile(opt.step)
    return lambda run: step()


def optax(params: Arrays, grads: Arrays, states: States) -> Work:
    """Return steps of optax under jit, which may reuse the memory of parameters and state."""
    import jax
    import optax

    opt = optax.adamw(RATE, *BETAS, EPSILON, weight_decay=DECAY)
    tree, gradients = [jax.numpy.array(p) for p in params], [jax.numpy.array(g) for g in grads]
    state = opt.init(tree)

    def update(tree: Any, state: Any, gradients: Any) -> Any:
        updates, state = opt.update(gradients, state, tree)
        return optax.apply_updates(tree, updates), state

    update = jax.jit(update, donate_argnums=(0, 1))

    def step(run: int) -> None:
        nonlocal tree, state
        tree, state = jax.block_until_ready(update(tree, state, gradients))

    step.result = lambda: np.asarray(tree[0])  # type: ignore[attr-defined]
    return step


def deepspeed(params: Arrays, grads: Arrays, states: States) -> Work:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    opt = DeepSpeedCPUAdam(parameters(params, grads), lr=RATE, weight_decay=DECAY, adamw_mode=True)
    return lambda run: opt.step()


def bitsandbytes(params: Arrays, grads: Arrays, states: States) -> Work:
    from bitsandbytes.optim import AdamW

    opt = AdamW(parameters(params, grads), lr=RATE, weight_decay=DECAY)
    return lambda run: opt.step()


PEERS = [
    Peer("torch fused", "torch", torch_with(fused=True)),
    Peer("fused, from_numpy", "torch", from_numpy),
    Peer("torch default", "torch", torch_with()),
    Peer("torch compiled", "torch", compiled, most=200),
    Peer("DeepSpeed", "deepspeed", deepspeed),
    Peer("optax, jit", "optax", optax, most=1000),
    Peer("bitsandbytes", "bitsandbytes", bitsandbytes, most=200),
    Peer("thinc", "thinc", thinc),
    Peer("NumPy", "numpy", numpy),
]


def available() -> tuple[list[Peer], list[str]]:
    """Return the peers that can step an array here, and a line about each of the others."""
    found, missing = [], []
    for peer in PEERS:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                importlib.import_module(peer.package)
                one = np.ones(8, np.float32)
                peer.make([one], [one.copy()], [(one.copy(), one.copy())])(0)
        except ModuleNotFoundError as error:
            missing.append(f"{peer.name} is missing ({error.name}): make peers")
        except Exception as error:
            missing.append(f"{peer.name} does not run here: {str(error).splitlines()[0] if str(error) else error!r}")
        else:
            found.append(peer)
    return found, missing
