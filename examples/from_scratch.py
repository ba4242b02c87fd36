"""Adam from scratch: the specification alone, loaded by its path, with nothing but the standard library."""

import importlib.util
from pathlib import Path

import adamas

path = Path(adamas.rules.__file__)
spec = importlib.util.spec_from_file_location("rules", path)
rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rules)

opt, params = rules.Adam(0.05), {"slope": 0.0, "offset": [0.0]}
data = [(x / 10, 3 * x / 10 - 1) for x in range(20)]
for _ in range(1000):
    errors = [(params["slope"] * x + params["offset"][0] - y, x) for x, y in data]
    slope, offset = sum(2 * e * x for e, x in errors) / len(data), sum(2 * e for e, _ in errors) / len(data)
    params = opt.update(params, {"slope": slope, "offset": [offset]})
print(f"y = {params['slope']:.4f} x {params['offset'][0]:+.4f}  (made with 3 and -1)")
