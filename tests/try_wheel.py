"""Try an installed wheel (see `make wheel`): argument "native" or "pure". Not a test module: it runs without pytest."""

import sys
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np

    import adamas

kind = sys.argv[1]
assert adamas.engine.startswith("native") if kind == "native" else adamas.engine == "specification", adamas.engine
assert [w for w in caught if "without its compiled engine" in str(w.message)] != [] if kind == "pure" else not caught

opt = adamas.Adam(learning_rate=0.1)
params = {"w": np.full((3, 2), 5.0, np.float32), "b": 3.0}
for _ in range(500):
    params = opt.update(params, {"w": 2 * params["w"], "b": 2 * params["b"]})
assert abs(params["b"]) < 1e-3, params
assert np.abs(params["w"]).max() < 1e-3, params
print(f"{kind} wheel: {adamas.engine}, {opt.t} steps")
