"""Checkpoints of torch's optimizers behind our interface: each goes on to the bit."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from adamas import Adam, Checkpoint, schedules
from adamas.errors import CheckpointError
from adamas.training.peers import TorchOptimizer, optimizers


@pytest.mark.parametrize("name", optimizers())
def test_an_optimizer_of_torch_goes_on_to_the_bit(name, tmp_path):
    path, rng = tmp_path / "x", np.random.default_rng(0)
    start = {"w": rng.standard_normal((4, 5)).astype(np.float32), "b": rng.standard_normal(3)}
    values = {"learning_rate": schedules.Linear(0.1, 0.0, 10)}

    def steps(params, optimizer, count, seed):
        drawn = np.random.default_rng(seed)
        for _ in range(count):
            grads = {"w": drawn.standard_normal((4, 5)).astype(np.float32), "b": drawn.standard_normal(3)}
            optimizer.update(params, grads)

    p, q = ({key: value.copy() for key, value in start.items()} for _ in range(2))
    through = TorchOptimizer(optimizers()[name], p, values)
    steps(p, through, 4, 1)
    through.save(path, p, note=1)
    steps(p, through, 4, 2)
    again = TorchOptimizer(optimizers()[name], q, values)
    again.load(path)
    with Checkpoint(path) as saved:
        saved.params(q)
        assert saved.metadata == {"note": 1}
    assert again.t == 4
    steps(q, again, 4, 2)
    for key, value in p.items():
        assert_array_equal(value, q[key])


def test_another_class_is_refused(tmp_path):
    Adam().save(tmp_path / "x")
    optimizer = TorchOptimizer(optimizers()["Adam"], [np.ones(3)], {})
    with pytest.raises(CheckpointError, match=r"holds the state of Adam, not of torch.optim.Adam"):
        optimizer.load(tmp_path / "x")
    optimizer.save(tmp_path / "y")
    with pytest.raises(CheckpointError, match=r"holds the state of torch.optim.Adam, not of Adam"):
        Adam.load(tmp_path / "y")
