"""How far each is from float64 after some steps of float32 AdamW, in spacings of the parameter."""

from typing import Any

import numpy as np

from adamas import AdamW
from benchmarks.peers import Arrays, Peer, States
from benchmarks.timing import Work

STEPS, SIZE = 200, 10_000


def gradient(step: int) -> Any:
    """Return a gradient whose elements span ten decades."""
    rng = np.random.default_rng(step)
    return (rng.standard_normal(SIZE) * 10.0 ** np.linspace(-6, 4, SIZE)).astype(np.float32)


def fresh(params: Arrays, grads: Arrays, states: States) -> Work:
    opt, p, g = AdamW(), params[0], grads[0]
    return lambda run: opt.update(p, g)


def deviations(peers: list[Peer]) -> dict[str, tuple[float, float]]:
    """Return the median and the largest deviation of us and each peer."""
    start = np.random.default_rng(99).standard_normal(SIZE).astype(np.float32)
    exact, opt = start.astype(np.float64), AdamW()
    for step in range(STEPS):
        opt.update(exact, gradient(step).astype(np.float64))
    found = {}
    for name, make in [("adamas", fresh), *((peer.name, peer.make) for peer in peers)]:
        p, g = start.copy(), np.zeros_like(start)
        step_once = make([p], [g], [(np.zeros_like(p), np.zeros_like(p))])
        if hasattr(step_once, "result"):
            continue  # it has a copy of the gradient
        for step in range(STEPS):
            g[...] = gradient(step)
            step_once(step)
        off = np.abs(p - exact) / np.spacing(np.abs(exact).astype(np.float32))
        found[name] = float(np.median(off)), float(off.max())
    return found
