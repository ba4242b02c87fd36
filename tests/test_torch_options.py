"""The options of a step in adamas.torch: each equals the torch calls that it replaces, and survives copies."""

import copy
import pickle

import pytest
import torch

import adamas.torch
from adamas import _torch_parts
from adamas.torch import SGD, Adam, AdamW

CLASSES = {
    "SGD": {"lr": 0.1},
    "SGD, momentum": {"lr": 0.1, "momentum": 0.9},
    "RMSprop": {"centered": True},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {"maximize": True},
}
SHAPES = [(5, 7), (3,), (), (2, 3, 4)]
SPARE = 2  # the place of the parameter that has no gradient


def pair(case, dtype=torch.float64, groups=False, **options):
    """Return parameters and an optimizer of ours with options, and of torch's without, from the same start."""
    name, made = case.split(",", maxsplit=1)[0], []
    for module, extra in ((adamas.torch, options), (torch.optim, {})):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]
        arguments = [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1}] if groups else params
        made.append((params, getattr(module, name)(arguments, **CLASSES[case], **extra)))
    return made


def give_gradients(params, seed, scale=1.0):
    torch.manual_seed(seed)
    for i, p in enumerate(params):
        g = scale * torch.randn(p.shape, dtype=torch.promote_types(p.dtype, torch.float32)).to(p.dtype)
        p.grad = None if i == SPARE else g


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
@pytest.mark.parametrize("case", CLASSES)
def test_all_options_are_the_sequence_of_torch_calls(case, dtype, groups):
    options = {"clip_norm": 1.5, "ema": 0.9, "zero_grads": True, "weight_copy": "bfloat16"}
    (ours, opt), (theirs, reference) = pair(case, dtype, groups, **options)
    averages = [p.detach().clone() for p in theirs]
    tolerance = {"rtol": 1e-12, "atol": 1e-14} if dtype != torch.float32 else {"rtol": 1e-4, "atol": 1e-5}
    for step in range(20):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 1.5)
        reference.step()
        torch._foreach_lerp_(averages, [p.detach() for p in theirs], 1 - 0.9)
        opt.step()
        assert opt.grad_norm == pytest.approx(float(norm), rel=1e-5)
    for i, (p, q, average) in enumerate(zip(ours, theirs, averages, strict=True)):
        torch.testing.assert_close(p, q, **tolerance)
        if i != SPARE:
            torch.testing.assert_close(opt.ema[p], average, **tolerance)
            assert torch.equal(opt.weight_copy[p], p.detach() if p.is_complex() else p.detach().bfloat16())
            assert not p.grad.any()
    assert ours[SPARE] not in opt.ema


def test_clip_value_and_gradient_scale():
    (ours, opt), (theirs, reference) = pair("Adam", clip_value=0.2, grad_scale=16.0)
    for step in range(10):
        give_gradients(ours, step, 16.0)
        give_gradients(theirs, step)
        torch.nn.utils.clip_grad_value_(theirs, 0.2)
        opt.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=0)


def test_one_norm_for_groups_that_different_rules_step():
    """Also where some are stepped by the engine, some by the specification on tensors."""
    params = [torch.nn.Parameter(torch.zeros(3)) for _ in range(4)]
    groups = [{"params": params[:2]}, {"params": params[2:3], "momentum": 0.5}, {"params": params[3:]}]
    opt = SGD(groups, lr=1.0, clip_norm=1.0)
    for p in params[:3]:
        p.grad = torch.full((3,), 2.0)
    params[3].grad = torch.full((3,), 2.0).to_sparse()
    opt.step()
    assert opt.grad_norm == pytest.approx(48**0.5)
    for p in params:
        torch.testing.assert_close(p.detach(), torch.full((3,), -2 / 48**0.5))


@pytest.mark.parametrize("special", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_is_not_taken_changes_nothing(special, first):
    for mode in ("skip", "raise"):
        (ours, opt), _ = pair("Adam", nonfinite=mode, ema=0.9)
        (same, reference), _ = pair("Adam", ema=0.9)
        if not first:
            for params, optimizer in ((ours, opt), (same, reference)):
                give_gradients(params, 0)
                optimizer.step()
        give_gradients(ours, 1)
        ours[3].grad[1, 2, 3] = special
        before = [p.detach().clone() for p in ours]
        if mode == "skip":
            opt.step()
        else:
            with pytest.raises(FloatingPointError, match="the gradient of parameter 3 has numbers that are not finite"):
                opt.step()
        assert opt.nonfinite_steps == 1
        assert all(torch.equal(p, q) for p, q in zip(ours, before, strict=True))
        for params, optimizer in ((ours, opt), (same, reference)):
            give_gradients(params, 2)
            optimizer.step()
        for p, q in zip(ours, same, strict=True):
            assert torch.equal(p, q)
            for name, value in reference.state[q].items():
                assert torch.equal(opt.state[p][name], value)


def test_gradients_of_a_skipped_step_are_set_to_zero_if_asked_for():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1.0, float("inf"), 0.0])
    Adam([p], nonfinite="skip", zero_grads=True).step()
    assert not p.grad.any()
    assert torch.equal(p.detach(), torch.ones(3))


def test_zeroed_gradients_are_new_versions():
    """So that a backward pass that needs the old values fails."""
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    version = p.grad._version
    opt = Adam([p], zero_grads=True)
    opt.step()
    assert p.grad._version > version


def test_options_between_steps():
    p = torch.nn.Parameter(torch.zeros(4))
    opt = SGD([p], lr=1.0)
    p.grad = torch.ones(4)
    opt.step()
    opt.options.clip_norm, opt.options.zero_grads = 1.0, True
    opt.step()
    torch.testing.assert_close(p.detach(), torch.full((4,), -1.5))
    assert not p.grad.any()
    opt.options.zero_grads = False
    p.grad = torch.ones(4)
    opt.step()
    assert p.grad.all()
    with pytest.raises(ValueError, match="clip_norm must be finite and at least 0"):
        opt.options.clip_norm = -1
    with pytest.raises(AttributeError, match="there is no option 'clip'"):
        opt.options.clip = 1
    with pytest.raises(AttributeError, match="ema cannot change"):
        opt.options.ema = 0.5
    with pytest.raises(ValueError, match="state_format must be"):
        Adam([p], state_format="int8")


def test_options_may_be_functions_of_the_step():
    (ours, opt), _ = pair("Adam", clip_norm=lambda step: 0.5**step, ema=lambda step: step / 10)
    (same, assigned), _ = pair("Adam", ema=lambda step: step / 10)
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(same, step)
        assigned.options.clip_norm = 0.5**step
        opt.step()
        assigned.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, same, strict=True))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_as_the_optimizer_does(duplicate):
    options = {"clip_norm": 1.0, "ema": 0.9, "state_format": "bfloat16", "stochastic_rounding": True, "seed": 5}
    (params, opt), _ = pair("AdamW", torch.bfloat16, **options)
    give_gradients(params, 0)
    opt.step()
    others, other = duplicate((params, opt))
    assert other.grad_norm == opt.grad_norm
    for step in range(1, 4):
        give_gradients(params, step)
        give_gradients(others, step)
        opt.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(value, other.state[q][name]) for name, value in opt.state[p].items())


def test_checkpoints_carry_what_is_kept():
    options = {"ema": 0.9, "weight_copy": "float16", "state_format": "bfloat16"}
    (params, opt), (theirs, reference) = pair("Adam", torch.float32, **options)
    (others, other), _ = pair("Adam", torch.float32, **options)
    for step in range(3):
        for group in (params, theirs):
            give_gradients(group, step)
        opt.step()
        reference.step()
    with torch.no_grad():
        for p, q in zip(others, params, strict=True):
            p.copy_(q)
    other.load_state_dict(opt.state_dict())
    give_gradients(params, 3)
    give_gradients(others, 3)
    opt.step()
    other.step()
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        for name, value in opt.state[p].items():
            assert other.state[q][name].dtype == value.dtype
            assert torch.equal(other.state[q][name], value)
    assert opt.state[params[0]]["exp_avg"].dtype == torch.bfloat16
    other.load_state_dict(reference.state_dict())  # of torch: no average, float32 moments
    give_gradients(others, 4)
    other.step()
    assert other.state[others[0]]["exp_avg"].dtype == torch.bfloat16
    assert other.ema[others[0]].dtype == torch.float32
    reference.load_state_dict(opt.state_dict())
    give_gradients(theirs, 4)
    reference.step()


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_lazy_conjugates_and_negatives(monkeypatch, dtype, zero, engine):
    """Torch marks a tensor as the conjugate or negative of what is in memory, which other readers do not see."""
    monkeypatch.setattr(_torch_parts, "HAS_ENGINE", engine and _torch_parts.HAS_ENGINE)
    torch.manual_seed(0)
    x = torch.randn(4, dtype=dtype)
    for lazy in (x.conj(), x.conj().imag, x[:1].conj().imag):
        for _ in range(2):
            p = torch.nn.Parameter(torch.zeros_like(lazy, memory_format=torch.contiguous_format))
            opt = SGD([p], lr=1.0, zero_grads=zero)
            for _ in range(2):
                p.grad = lazy.clone()
                opt.step()
                p.grad = x.clone().conj() if lazy.is_complex() else x.clone().conj().imag[: len(lazy)]
                opt.step()
                assert bool(p.grad.any()) != zero
            torch.testing.assert_close(p.detach(), -4 * lazy.resolve_conj().resolve_neg())
    p = torch.nn.Parameter(torch.zeros(4, dtype=dtype).conj())
    p.grad = x
    opt = SGD([p], lr=1.0)
    opt.step()
    opt.step()
    torch.testing.assert_close(p.detach().resolve_conj(), -2 * x)


def test_a_bfloat16_parameter_moves_on_average_only_if_rounded_at_random():
    n = 20_000
    nearest, random = (torch.nn.Parameter(torch.ones(n, dtype=torch.bfloat16)) for _ in range(2))
    exact = torch.nn.Parameter(torch.ones(1))
    optimizers = [AdamW([nearest]), AdamW([random], stochastic_rounding=True), AdamW([exact])]
    for _ in range(200):
        for p, optimizer in zip((nearest, random, exact), optimizers, strict=True):
            p.grad = torch.ones_like(p)
            optimizer.step()
    assert torch.equal(nearest.detach(), torch.ones_like(nearest))
    assert (1 - random.detach().float()).mean().item() == pytest.approx(1 - exact.item(), rel=0.01)


def test_random_rounding_depends_on_the_seed_and_the_place_of_a_parameter():
    def run(seed, count):
        params = [torch.nn.Parameter(torch.ones(300, dtype=torch.bfloat16)) for _ in range(count)]
        opt = AdamW(params, stochastic_rounding=True, seed=seed)
        for p in params:
            p.grad = torch.ones_like(p)
        opt.step()
        return [p.detach() for p in params]

    one, two, other = run(1, 1), run(1, 2), run(2, 1)
    assert torch.equal(one[0], two[0])
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(one[0], other[0])


def test_rounding_at_random_goes_on_from_a_state_dict_where_torch_counts_no_steps():
    def run(steps, params, opt):
        for step in steps:
            give_gradients(params, step)
            opt.step()

    def made():
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape).bfloat16()) for shape in SHAPES]
        return params, SGD(params, lr=0.01, stochastic_rounding=True)

    (params, opt), (others, other) = made(), made()
    run(range(3), params, opt)
    other.load_state_dict(opt.state_dict())
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    run(range(3, 6), params, opt)
    run(range(3, 6), others, other)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
