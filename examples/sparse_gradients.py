"""The gradient of each of 100 coordinates is seen in one step of ten: Adam beside gradient descent.

With sparse gradients a step costs what the coordinates cost that are seen, and ends where dense steps end.
"""

import matplotlib.pyplot as plt
import numpy as np

from adamas import SGD, Adam, RowSparse, problems

problem = problems.get("sparse-quadratic", n=100, condition=100.0, probability=0.1)
fig, ax = plt.subplots(layout="constrained")
for opt in (SGD(0.01), Adam(0.1), Adam(0.1, sparse="lazy")):
    x, rng, losses = np.full(100, 3.0, np.float32), np.random.default_rng(0), []
    name = f"{type(opt).__name__}{', lazy' if opt.sparse == 'lazy' else ''}"
    for _ in range(500):
        gradient = problem.sample(x, rng)[1]
        seen = np.flatnonzero(gradient)
        opt.flush(x)  # all coordinates are read, so all are brought up to date
        losses.append(problem(x))
        opt.update(x, RowSparse(seen, gradient[seen].astype(np.float32)))
    print(f"{name:10} f = {losses[-1]:.2e}")
    ax.semilogy(losses, label=name)
ax.set(xlabel="step", ylabel="value", title="100 coordinates, each gradient seen with probability 0.1")
ax.legend()
fig.savefig("sparse_gradients.png", dpi=150)
