"""Adam on f(x, y) = x^2 + y^2, with progress."""

from adamas import Adam

opt, x, y = Adam(learning_rate=0.1), 5.0, -3.0
for step in range(1, 301):
    x, y = opt.update([x, y], [2 * x, 2 * y])
    if step % 50 == 0:
        print(f"step {step:3}: x = {x:+.6f}, y = {y:+.6f}, f = {x * x + y * y:.2e}")
