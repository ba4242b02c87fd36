"""Random search for Adam's hyper-parameters on f(x, y) = x^2 + y^2: the tutorial's tuner, and the fair one."""

from adamas import AdamTuner, LogUniform, Tuner, Uniform


def f(x, y):
    return x**2 + y**2


ranges = [(0.001, 0.1), (0.8, 0.99), (0.9, 0.999), (1e-9, 1e-7)]  # learning rate, beta1, beta2, epsilon
best_params, best_score = AdamTuner(f, ranges).tune(num_trials=100, iterations=1000)
print(f"each trial from a start of its own: f = {best_score:.1e}, learning rate {best_params['learning_rate']:.3f}")

space = {"learning_rate": LogUniform(1e-4, 1), "beta1": Uniform(0.8, 0.99)}
result = Tuner("rosenbrock", space).tune(num_trials=200, iterations=1000)
print(f"all trials from the same starts, on Rosenbrock's valley: f = {result.best_score:.1e}")
print("the differences are due to " + ", ".join(f"{name} {share:.0%}" for name, share in result.sensitivity.items()))
