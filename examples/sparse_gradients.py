"""Each coordinate is seen in one step of ten: rules that adapt give rare coordinates longer steps."""

import numpy as np

import adamas
from adamas import problems

problem = problems.get("sparse-quadratic", n=20, condition=1.0, probability=0.1)
for name, learning_rate in (("SGD", 0.1), ("Adam", 0.1), ("AdaGrad", 2.0)):
    opt, x, rng = getattr(adamas, name)(learning_rate), np.full(20, 3.0), np.random.default_rng(0)
    for _ in range(200):
        opt.update(x, problem.sample(x, rng)[1])
    print(f"{name:8} f = {problem(x):.2e}")
