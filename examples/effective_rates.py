"""How Adam adapts: the effective learning rate of each coordinate, learning_rate / (sqrt(v_hat) + epsilon).

The bowl is 100 times as steep along x2, so its rate is 100 times as small, and both coordinates take the same path.
"""

from adamas import History, minimize, plot, problems

problem, history = problems.get("quadratic", condition=100.0), History()
minimize(problem.value_and_gradient, [1.0, 1.0], jac=True, learning_rate=0.02, maxiter=300, history=history)
rates = history["rate"]
print(f"at first: {rates[0, 0]:.4f} and {rates[0, 1]:.4f}; at the end: {rates[-1, 0]:.4f} and {rates[-1, 1]:.4f}")
plot.effective_rates(history)[0].figure.savefig("effective_rates.png", dpi=150)
