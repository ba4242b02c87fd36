"""One coordinate whose gradient is seen now and then: dense Adam, exact sparse steps, and lazy ones.

In dense Adam it goes on by its mean when there is no gradient; lazily it stands still. Exact steps catch up when the
coordinate is needed: at the steps that are marked, they are where dense Adam is.
"""

import matplotlib.pyplot as plt
import numpy as np

from adamas import Adam, RowSparse

rng, steps = np.random.default_rng(1), 200
seen = np.sort(rng.choice(np.arange(2, steps), 12, replace=False))
gradients = dict(zip([1, *seen], rng.normal(1.0, 0.5, 13).astype(np.float32), strict=True))
fig, ax = plt.subplots(layout="constrained")
ends = {}
for name, mode in (("dense", None), ("exact", "exact"), ("lazy", "lazy")):
    opt, x, path = Adam(0.02) if mode is None else Adam(0.02, sparse=mode), np.zeros(1, np.float32), []
    for step in range(1, steps + 1):
        g = gradients.get(step)
        if mode is None:
            opt.update(x, np.float32([0.0 if g is None else g]))
        else:
            rows = [] if g is None else [0]
            opt.prepare(x, rows)
            opt.update(x, RowSparse(rows, np.float32([] if g is None else [g])))
        path.append(float(x[0]))
    if mode is not None:
        opt.flush(x)
    ends[name] = float(x[0])
    if name == "exact":
        marks = list(gradients)
        ax.plot(marks, [path[step - 1] for step in marks], "o", color="C1", label="exact, when it is needed")
    else:
        ax.plot(range(1, steps + 1), path, color="C0" if name == "dense" else "C3", label=name)
ax.set(xlabel="step", ylabel="coordinate", title="Adam on a gradient that is seen in 13 of 200 steps")
ax.legend()
fig.savefig("lazy_and_exact.png", dpi=150)
print(", ".join(f"{name} ends at {value:.4f}" for name, value in ends.items()))
