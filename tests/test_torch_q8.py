"""State in q8 in adamas.torch: the same bits as on arrays, checkpoints of every kind, clear refusals."""

import copy
import pickle

import numpy as np
import pytest
import torch

import adamas
import adamas.torch
from adamas import _torch_parts
from adamas.torch import SGD, Adagrad, Adam, AdamW, RMSprop

SHAPES = [(80, 70), (70,), (4096,), (300, 20)]
CASES = {
    "SGD, momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "RMSprop": (RMSprop, {"momentum": 0.5}),
    "Adagrad": (Adagrad, {"initial_accumulator_value": 0.1}),
    "Adam": (Adam, {}),
    "AdamW": (AdamW, {"maximize": True}),
}


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]


def give_gradients(params, seed):
    torch.manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape).to(p.dtype)


def steps(params, opt, seeds):
    for seed in seeds:
        give_gradients(params, seed)
        opt.step()


def assert_same(params, opt, others, other):
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert opt.state[p].keys() == other.state[q].keys()
        for name, x in opt.state[p].items():
            assert torch.equal(x, other.state[q][name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_step_as_arrays_do(dtype):
    """Bit for bit with the engine; the specification on tensors has torch's square root."""
    params = parameters(dtype)
    arrays = [p.detach().float().numpy().astype(str(dtype).split(".")[1]) for p in params]
    opt = AdamW(params, lr=0.01, state_format="q8", seed=7, stochastic_rounding=True)
    same = adamas.AdamW(0.01, state_format="q8", seed=7, stochastic_rounding=True)
    for seed in range(4):
        give_gradients(params, seed)
        opt.step()
        same.update(arrays, [p.grad.float().numpy() for p in params])
    for p, array, state in zip(params, arrays, same._memory.states().values(), strict=True):
        exact = 0 if _torch_parts.HAS_ENGINE else 2.0 * torch.finfo(dtype).eps
        np.testing.assert_allclose(p.detach().float().numpy(), array.astype(np.float32), rtol=exact, atol=exact)
        for name, wanted in zip(("exp_avg", "exp_avg_sq"), state, strict=True):
            assert opt.state[p][name].dtype == (torch.uint8 if p.numel() >= 4096 else torch.float32)
            np.testing.assert_array_equal(opt.state[p][name].numpy(), wanted)
    assert opt.state_bytes == same.state_bytes


@pytest.mark.parametrize("case", CASES)
def test_sparse_gradients_and_views_step_the_same_numbers(case):
    """What the specification on tensors steps, and channels last."""
    cls, options = CASES[case]
    params, dense = parameters(), parameters()
    takes_sparse = cls in (SGD, Adagrad)
    params[0].data = params[0].data.t().contiguous().t()
    opt, other = (cls(made, state_format="q8", ema=0.9, **options) for made in (params, dense))
    for seed in range(3):
        give_gradients(params, seed)
        give_gradients(dense, seed)
        if takes_sparse:
            params[2].grad = params[2].grad.to_sparse()
        opt.step()
        other.step()
    for p, q in zip(params, dense, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
        assert torch.equal(opt.state[params[0]]["ema"], other.state[dense[0]]["ema"])
    if takes_sparse:
        assert opt.state[params[2]].keys() == other.state[dense[2]].keys()
        key = next(iter(set(opt.names.values()) & opt.state[params[2]].keys()))
        assert (opt.state[params[2]][key] == other.state[dense[2]][key]).float().mean() > 0.999


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
@pytest.mark.parametrize("case", CASES)
def test_copies_go_on_with_the_same_bits(case, duplicate):
    cls, options = CASES[case]
    params = parameters()
    opt = cls(params, state_format="q8", **options)
    steps(params, opt, range(3))
    others, other = duplicate((params, opt))
    steps(params, opt, range(3, 5))
    steps(others, other, range(3, 5))
    assert_same(params, opt, others, other)


@pytest.mark.parametrize("case", CASES)
def test_a_state_dict_goes_on_with_the_same_bits(case, tmp_path):
    cls, options = CASES[case]
    params, others = parameters(), parameters()
    opt, other = cls(params, state_format="q8", **options), cls(others, state_format="q8", **options)
    steps(params, opt, range(3))
    torch.save((params, opt.state_dict()), tmp_path / "saved")
    loaded, state_dict = torch.load(tmp_path / "saved", weights_only=True)
    for p, q in zip(others, loaded, strict=True):
        p.data.copy_(q)
    other.load_state_dict(state_dict)
    steps(params, opt, range(3, 5))
    steps(others, other, range(3, 5))
    assert_same(params, opt, others, other)


@pytest.mark.parametrize("case", CASES)
def test_decoded_moments_go_to_torchs_class_and_back(case):
    cls, options = CASES[case]
    params, others, thirds = parameters(), parameters(), parameters()
    opt = cls(params, state_format="q8", **options)
    theirs, third = getattr(torch.optim, cls.__name__)(others, **options), cls(thirds, state_format="q8", **options)
    steps(params, opt, range(3))
    theirs.load_state_dict(opt.state_dict(decoded=True))
    for made in (others, thirds):
        for p, q in zip(made, params, strict=True):
            p.data.copy_(q)
    third.load_state_dict(theirs.state_dict())
    for p, q, r in zip(params, others, thirds, strict=True):
        for key in set(opt.names.values()) & opt.state[p].keys():
            assert theirs.state[q][key].shape == p.shape
            # To the nearest, what was decoded is almost always what it was: the scale may be one less.
            a, b = third._decoded(r, key, third.state[r][key]), opt._decoded(p, key, opt.state[p][key])
            torch.testing.assert_close(a, b, rtol=0.07, atol=float(b.abs().max()) * 1e-4)
    steps(params, opt, [3])
    steps(others, theirs, [3])
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


def test_raw_state_goes_into_an_optimizer_with_float32_state_and_back():
    params, others, thirds = parameters(), parameters(), parameters()
    opt, other, third = Adam(params, state_format="q8"), Adam(others), Adam(thirds, state_format="q8")
    steps(params, opt, range(3))
    other.load_state_dict(opt.state_dict())
    third.load_state_dict(other.state_dict())
    for p, q, r in zip(params, others, thirds, strict=True):
        assert other.state[q]["exp_avg"].dtype == torch.float32
        assert torch.equal(other.state[q]["exp_avg"], opt._decoded(p, "exp_avg", opt.state[p]["exp_avg"]))
        assert third.state[r]["exp_avg"].dtype == opt.state[p]["exp_avg"].dtype
    steps(others, other, [3])
    steps(thirds, third, [3])


@pytest.mark.parametrize(
    ("key", "place", "value", "message"),
    [
        ("exp_avg", -1, 255, "exp_avg of parameter 0 is not q8 state: block 21 of 22 has the scale 255"),
        ("exp_avg_sq", 5600, 17, "exp_avg_sq of parameter 0 is not q8 state: block 0 of 22 has the scale 17"),
        ("exp_avg", slice(1), None, "exp_avg of parameter 0 is uint8 of shape .*5600 elements in q8 are 5622 bytes"),
    ],
)
def test_damaged_state_is_refused_before_anything_changes(key, place, value, message):
    params = parameters()
    opt = Adam(params, state_format="q8")
    steps(params, opt, range(3))
    before, damaged = copy.deepcopy(opt.state_dict()), opt.state_dict()
    if value is None:
        damaged["state"][0][key] = damaged["state"][0][key][:-1]
    else:
        damaged["state"][0][key][place] = value
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(damaged)
    for p, state in before["state"].items():
        for name, x in state.items():
            assert torch.equal(opt.state_dict()["state"][p][name], x)


def test_wrong_uses_are_refused():
    with pytest.raises(ValueError, match="state_format='q8' is for the state of a rule, and SGD has none"):
        SGD(parameters(), lr=0.1, state_format="q8")
    wrong = [
        (torch.zeros(3, dtype=torch.float64), {}, "parameter 1 is torch.float64: state_format='q8' is for float32"),
        (torch.zeros(3, dtype=torch.complex64), {}, "parameter 1 is torch.complex64"),
        (torch.zeros(3), {"differentiable": True}, "parameter 0 is stepped differentiably"),
        (torch.zeros(3, device="meta"), {}, "parameter 1 is a Parameter on meta"),
    ]
    for tensor, options, message in wrong:
        params = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(tensor)]
        opt = Adam(params, state_format="q8", **options)
        for p in params:
            p.grad = torch.ones_like(p)
        with pytest.raises(ValueError, match=message):
            opt.step()
        assert not params[0].any()
    with pytest.warns(UserWarning, match="rounds the state of AMSGrad coarsely") as seen:
        Adam(parameters(), amsgrad=True, state_format="q8")
    assert seen[0].filename == __file__


def test_a_history_sees_decoded_state():
    params = parameters()
    opt, history = Adam(params, state_format="q8"), adamas.History()
    for seed in range(3):
        give_gradients(params, seed)
        opt.step(history=history)
    assert np.isfinite(history["v"]).all()
    assert history["v"].shape == history["x"].shape
