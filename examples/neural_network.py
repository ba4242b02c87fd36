"""A feed-forward network for binary classification, its backward pass written out: two interleaved half-moons."""

import numpy as np

from adamas import Adam

rng = np.random.default_rng(0)
angle, moon = rng.uniform(0, np.pi, 400), rng.integers(0, 2, 400)
x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
x[moon == 1] = [1.0, 0.5] - x[moon == 1]
x += 0.1 * rng.standard_normal(x.shape)

params = {
    "w1": rng.standard_normal((2, 16)),
    "b1": np.zeros(16),
    "w2": rng.standard_normal((16, 1)) / 4,
    "b2": np.zeros(1),
}
opt = Adam(0.02)
for step in range(1, 501):
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    logit = (hidden @ params["w2"] + params["b2"])[:, 0]
    loss = (np.logaddexp(0, logit) - moon * logit).mean()
    error = ((1 / (1 + np.exp(-logit)) - moon) / len(x))[:, None]
    inner = (error @ params["w2"].T) * (1 - hidden**2)
    grads = {"w1": x.T @ inner, "b1": inner.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}
    params = opt.update(params, grads)
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.4f}, accuracy {((logit > 0) == moon).mean():.3f}")
