"""The benchmark's statistics; that everybody takes the same steps; that a row can be measured."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

sys.path.insert(0, str(Path(__file__).parent.parent))

from adamas.rules import RULES
from benchmarks import family, peers, table, timing, work


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [
        low <= 1 <= high for low, high in (timing.interval(rng.exponential(1 / np.log(2), 15)) for _ in range(4000))
    ]
    assert 0.95 <= np.mean(held) < 0.99
    assert timing.interval([3.0]) == (3.0, 3.0)


HERE = [peer for peer in peers.PEERS if find_spec(peer.package)]
SLOW = {"torch compiled", "DeepSpeed", "optax, jit"}  # they compile


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "peer", [pytest.param(p, id=p.name, marks=pytest.mark.stress if p.name in SLOW else ()) for p in HERE]
)
def test_peers_take_the_steps_that_we_take(peer):
    """From the same start, by the same gradients, with the same hyper-parameters."""
    rng = np.random.default_rng(1)
    start, g = rng.standard_normal(300, np.float32), rng.standard_normal(300, np.float32)
    p, q = start.copy(), start.copy()
    step = peer.make([p], [g], [(np.zeros_like(p), np.zeros_like(p))])
    own, _ = peers.ours([q], [g])  # which takes the first step
    for run in range(5):
        step(run)
        if run:
            own(run)
    assert_allclose(step.result() if hasattr(step, "result") else p, q, rtol=1e-4, atol=1e-6)


def test_a_small_row_is_measured():
    row = next(row for row in work.ROWS if row.work == "2 Python floats")
    ratio = row.measured(3)
    assert 0 < ratio.low <= ratio.median <= ratio.high
    assert "[" in str(ratio)
    found = {"64": {"NumPy": ratio}}
    assert next(table.as_tables(found, "")).row_count == 1


def test_every_rule_has_rows(monkeypatch):
    monkeypatch.setattr(family, "SIZE", 1000)
    rows = family.rows()
    for name in RULES:
        found = [row for row in rows if row.work == f"30M: {name}"]
        assert found[0].beside.startswith("stream")
        for row in found:
            own, peer = row.make()
            own(0)
            peer(0)
    assert {"Adam": 28, "Lion": 20, "Adan": 44, "LAMB": 44}.items() <= {n: family.bytes_of(n) for n in RULES}.items()


def test_a_row_that_ought_to_be_there_is():
    assert set(table.EXPECTED) <= {
        (size, name) for size in table.SHAPES for name in [p.name for p in peers.PEERS] + ["stream"]
    }
    assert sum(int(np.prod(shape)) for shape in work.GPT2_SMALL) == 124_439_808
