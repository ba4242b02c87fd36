"""The variants side by side, and the line on which Adam goes to the wrong end and AMSGrad does not."""

import numpy as np
from matplotlib.figure import Figure

import adamas
from adamas import History, problems

line, runs = problems.get("counterexample"), {}
for name in ("Adam", "AMSGrad"):
    opt = getattr(adamas, name)(lambda step: 0.5 / np.sqrt(step + 1), beta1=0.0, beta2=0.1)
    x, history = line.start.copy(), runs.setdefault(name, History())
    for t in range(1, 1001):
        gradient = line.gradient_at(x, t)
        opt.update(x, gradient)
        np.clip(x, -1, 1, out=x)
        history.record(t, line(x), x, gradient, opt)
    print(f"{name:8} ends at {x[0]:+.3f}; the best is -1")
figure = Figure(layout="constrained")
ax = figure.subplots()
for name, history in runs.items():
    ax.plot(history["step"], history["x"], label=name)
ax.set(title="A line whose slope is 3 in every third step, else -1", xlabel="step", ylabel="x, best at -1")
ax.legend()
figure.savefig("counterexample.png", dpi=150)

for name in ("Adam", "AdamW", "AMSGrad"):
    opt, x = getattr(adamas, name)(0.05), np.array([-1.2, 1.0])
    for _ in range(2000):
        opt.update(x, problems.get("rosenbrock").gradient(x))
    print(f"{name:8} on Rosenbrock: f = {problems.get('rosenbrock')(x):.2e}")
