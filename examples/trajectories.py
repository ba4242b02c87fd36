"""Adam against gradient descent on Rosenbrock's valley: paths on contours, and losses, from the same start."""

from adamas import History, minimize, plot, problems

problem, runs = problems.get("rosenbrock"), {}
for method, learning_rate in (("adam", 0.05), ("sgd", 0.001)):
    history = runs[f"{method}, {learning_rate}"] = History()
    result = minimize(problem.value_and_gradient, problem.start, jac=True, method=method, learning_rate=learning_rate,
                      maxiter=3000, history=history)  # fmt: skip
    print(f"{method}: f = {result.fun:.2e} at ({result.x[0]:.4f}, {result.x[1]:.4f})")
plot.trajectory(problem, runs).figure.savefig("trajectories.png", dpi=150)
plot.loss(runs).figure.savefig("losses.png", dpi=150)
