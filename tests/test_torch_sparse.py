"""SparseAdam: torch's, lazily; the results of dense Adam, with hooks that prepare rows; checkpoints of both."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from adamas.torch import Adam, AdamW, SparseAdam

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


class Model(nn.Module):
    """Two tables, one of which is looked up in bags."""

    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 4, sparse=sparse)
        self.bags = nn.EmbeddingBag(30, 4, mode="sum", sparse=sparse)

    def forward(self, words, bags):
        return (self.words(words).sum(1) * self.bags(input=bags)).sum()


def train(model, opt, first, last):
    rng = np.random.default_rng(9)
    batches = [(rng.integers(0, 50, (3, 2)), rng.integers(0, 30, (3, 2))) for _ in range(last)]
    for words, bags in batches[first:]:
        opt.zero_grad()
        model(torch.tensor(words), torch.tensor(bags)).backward()
        opt.step()


def parameters(model):
    return [p.detach().numpy().copy() for p in model.parameters()]


def test_the_class_is_torchs_but_for_its_step():
    assert issubclass(SparseAdam, torch.optim.SparseAdam)
    assert SparseAdam.__module__ == "adamas.torch"
    own, theirs = (list(inspect.signature(cls).parameters) for cls in (SparseAdam, torch.optim.SparseAdam))
    assert own == [*theirs, "sparse", "weight_decay"]
    for bad in ({"lr": -1.0}, {"eps": -1.0}, {"betas": (1.0, 0.9)}):
        with pytest.raises(ValueError, match="Invalid") as error:
            torch.optim.SparseAdam(Model(True).parameters(), **bad)
        with pytest.raises(ValueError, match="Invalid") as ours:
            SparseAdam(Model(True).parameters(), **bad)
        assert str(ours.value) == str(error.value)
    model = Model(True)
    opt = SparseAdam(model.parameters(), 0.1)
    opt.watch(model)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(3, 2))], "lr": 0.3})
    assert opt.param_groups[1]["weight_decay"] == 0
    train(model, opt, 0, 1)
    schedule.step()
    assert opt.param_groups[0]["lr"] == 0.05


def test_lazily_it_is_torchs():
    ours, theirs = Model(True).double(), Model(True).double()
    opt, other = (
        SparseAdam(ours.parameters(), 0.01, eps=1e-3),
        torch.optim.SparseAdam(theirs.parameters(), 0.01, eps=1e-3),
    )
    train(ours, opt, 0, 40)
    train(theirs, other, 0, 40)
    for p, q in zip(parameters(ours), parameters(theirs), strict=True):
        assert_allclose(p, q, rtol=1e-12, atol=1e-14)


def test_a_checkpoint_of_either_continues_in_the_other():
    one = Model(True).double()
    opt = torch.optim.SparseAdam(one.parameters(), 0.01)
    train(one, opt, 0, 20)
    two = copy.deepcopy(one)
    ours = SparseAdam(two.parameters())
    ours.load_state_dict(opt.state_dict())
    train(one, opt, 20, 40)
    train(two, ours, 20, 40)
    for p, q in zip(parameters(one), parameters(two), strict=True):
        assert_allclose(p, q, rtol=1e-12, atol=1e-14)
    back = torch.optim.SparseAdam(two.parameters())
    back.load_state_dict(ours.state_dict())
    train(one, opt, 40, 60)
    train(two, back, 40, 60)
    for p, q in zip(parameters(one), parameters(two), strict=True):
        assert_allclose(p, q, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["exact", "replay"])
def test_with_hooks_it_is_dense_adam(mode, decay):
    """No change to the model's code."""
    sparse, dense = Model(True), Model(False)
    opt = SparseAdam(sparse.parameters(), 0.01, sparse=mode, weight_decay=decay)
    opt.watch(sparse)
    other = AdamW(dense.parameters(), 0.01, weight_decay=decay)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(x, 0.98) for x in (opt, other)]
    for step in range(40):
        train(sparse, opt, step, step + 1)
        train(dense, other, step, step + 1)
        for schedule in schedules:
            schedule.step()
    opt.flush()
    for p, q in zip(parameters(sparse), parameters(dense), strict=True):
        assert_allclose(p, q, rtol=1e-6 if mode == "replay" else 2e-5, atol=1e-6)


def through_a_file(opt, other):
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))


def by_pickle(opt, other):
    found = pickle.loads(pickle.dumps(opt))
    other.load_state_dict(found.state_dict())


@pytest.mark.parametrize("copied", [through_a_file, by_pickle])
def test_exact_steps_go_on_to_the_bit(copied):
    model = Model(True)
    opt = SparseAdam(model.parameters(), 0.01, sparse="exact", weight_decay=0.1)
    opt.watch(model)
    train(model, opt, 0, 20)
    other = copy.deepcopy(model)
    for module in (other.words, other.bags):
        module._forward_pre_hooks.clear()
    resumed = SparseAdam(other.parameters(), 0.01, sparse="exact", weight_decay=0.1)
    resumed.watch(other)
    copied(opt, resumed)
    train(model, opt, 20, 40)
    train(other, resumed, 20, 40)
    opt.flush()
    resumed.flush()
    for p, q in zip(parameters(model), parameters(other), strict=True):
        np.testing.assert_array_equal(p, q)


def test_maximize_climbs():
    up, down = Model(True), Model(True)
    train(up, SparseAdam(up.parameters(), 0.01, maximize=True), 0, 5)
    train(down, torch.optim.SparseAdam(down.parameters(), 0.01, maximize=True), 0, 5)
    for p, q in zip(parameters(up), parameters(down), strict=True):
        assert_allclose(p, q, rtol=1e-5)


def test_half_precision_has_state_in_float32():
    p = nn.Parameter(torch.ones(5, 2, dtype=torch.bfloat16))
    p.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2, dtype=torch.bfloat16), (5, 2))
    opt = SparseAdam([p], 0.5)
    opt.step()
    assert opt.state[p]["exp_avg"].dtype == torch.float32
    assert p.tolist() == [[1, 1], [0.5, 0.5], [1, 1], [1, 1], [1, 1]]


def test_wrong_uses_are_refused():
    model = Model(True)
    opt = SparseAdam(model.parameters(), sparse="exact")
    train(model, opt, 0, 1)
    with pytest.raises(ValueError, match=r"row \d+ of params is behind"):
        train(model, opt, 1, 3)
    with pytest.raises(ValueError, match=r"no nn.Embedding or nn.EmbeddingBag whose weight this optimizer steps"):
        opt.watch(nn.Linear(2, 2))
    dense = Model(False)
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        train(dense, SparseAdam(dense.parameters()), 0, 1)
    with pytest.raises(ValueError, match="sparse must be 'exact' or 'replay' or 'lazy', got 'dense'"):
        SparseAdam(model.parameters(), sparse="dense")
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        SparseAdam(model.parameters(), weight_decay=-1.0)
    with pytest.raises(RuntimeError, match="please consider SparseAdam instead"):
        train(model, Adam(model.parameters()), 0, 1)
