"""The manager of a run's checkpoints: what it keeps, what it resumes from, and a process that is killed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adamas import Adam, Checkpoint, CheckpointManager
from adamas.errors import CheckpointWarning


def run(manager, steps, metrics=None):
    opt, x = Adam(0.1), np.ones(5)
    if saved := manager.resume():
        with saved:
            opt.load(saved.path)
            x = saved.params()
    while opt.t < steps:
        x = opt.update(x, x.copy())
        manager.update(opt, x, metric=None if metrics is None else metrics[opt.t - 1])
    return x


@given(
    st.lists(st.floats(-1, 1) | st.just(np.nan), min_size=1, max_size=12),
    st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_newest_and_the_best_are_kept(tmp_path_factory, metrics, every, keep, keep_best, interrupted):
    folder = tmp_path_factory.mktemp("run")
    options = {"every": every, "keep": keep, "keep_best": keep_best}
    run(CheckpointManager(folder, **options), min(interrupted, len(metrics)), metrics)
    manager = CheckpointManager(folder, **options)
    run(manager, len(metrics), metrics)
    saved = list(range(every, len(metrics) + 1, every))
    rank = {step: np.inf if np.isnan(metrics[step - 1]) else metrics[step - 1] for step in saved}
    kept = list(manager.paths)
    assert kept[-keep:] == saved[-keep:]
    assert len(kept) <= keep + keep_best
    for step in sorted(saved, key=lambda step: rank[step])[:keep_best]:
        assert min(rank[k] for k in kept) <= rank[step]
    if saved:
        assert (folder / "latest.safetensors").resolve() == manager.paths[saved[-1]]


def test_resuming_from_the_newest_gives_the_same_bits(tmp_path):
    expected = run(CheckpointManager(tmp_path / "a"), 10)
    run(CheckpointManager(tmp_path / "b", every=3), 7)
    np.testing.assert_array_equal(run(CheckpointManager(tmp_path / "b", every=3), 10), expected)


@pytest.mark.parametrize("offset", [3, 40, 700, -1])
def test_damaged_ones_are_passed_over_with_a_warning_and_replaced(tmp_path, offset):
    expected = run(CheckpointManager(tmp_path / "a"), 10)
    manager = CheckpointManager(tmp_path / "b", keep=1, keep_best=1)
    run(manager, 5, [1, 0, 1, 1, 1])
    path = manager.paths[5]
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    again = CheckpointManager(tmp_path / "b", keep=1)
    with pytest.warns(CheckpointWarning, match=r"passed over: .*step-000000005.safetensors is damaged"):
        x = run(again, 3)
    assert list(again.paths) == [3]
    with again.resume() as saved:
        assert saved.t == 3
    np.testing.assert_array_equal(run(again, 10), expected)
    assert x is not expected


def test_nothing_whole_is_none(tmp_path):
    manager = CheckpointManager(tmp_path)
    assert manager.resume() is None
    (tmp_path / "step-000000001.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="it has 0 bytes"):
        assert manager.resume() is None


def test_the_files_of_another_run_are_not_removed(tmp_path):
    run(CheckpointManager(tmp_path), 3)
    opt = Adam()
    with pytest.raises(FileExistsError, match=r"holds step-000000003.safetensors, which is later than step 0: resume"):
        CheckpointManager(tmp_path).save(opt)
    with Checkpoint(tmp_path / "latest.safetensors") as saved:
        assert saved.t == 3


@pytest.mark.parametrize(
    ("name", "value"), [("every", 0), ("keep", 0), ("keep_best", -1), ("every", 1.5), ("keep", True)]
)
def test_wrong_numbers_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        CheckpointManager(tmp_path / "x", **{name: value})
    assert not (tmp_path / "x").exists()
