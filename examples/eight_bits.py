"""The state in a quarter of the memory: logistic regression with moments of 8 bits beside float32."""

import numpy as np

from adamas import Adam

rng = np.random.default_rng(0)
features = rng.standard_normal((4000, 5000), dtype=np.float32)
truth = rng.standard_normal(5000, dtype=np.float32) / 70
labels = (features @ truth + 0.5 * rng.standard_normal(4000) > 0).astype(np.float32)

for opt in (Adam(0.002), Adam(0.002, state_format="q8")):
    w, order = np.zeros(5000, np.float32), np.random.default_rng(1)
    for _ in range(150):
        batch = order.integers(0, 4000, 256)
        x, y = features[batch], labels[batch]
        opt.update(w, x.T @ (1 / (1 + np.exp(-(x @ w))) - y) / len(batch))
    margins = (features @ w) * (2 * labels - 1)
    loss = np.mean(np.logaddexp(0, -margins))
    print(f"{opt.state_format:8} loss {loss:.4f}, {opt.state_bytes / w.size:.2f} bytes of state per parameter")
