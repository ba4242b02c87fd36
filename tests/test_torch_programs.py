"""What programs do with an optimizer of torch works with ours: schedulers, hooks, copies, layouts, odd tensors."""

import copy
import gc
import inspect
import io
import pickle
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

import adamas.torch
from adamas import _torch_parts
from adamas._options import Options

NAMES = [name for name in adamas.torch.__all__ if hasattr(torch.optim, name) and name != "SparseAdam"]
"""The classes of dense gradients that torch has too."""
engine_only = pytest.mark.skipif(not _torch_parts.HAS_ENGINE, reason="the engine is not in use")


def model(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def train(net: nn.Module, optimizer: Any, steps: int, start: int = 0) -> None:
    """Steps on made-up batches that depend on their number only."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 4, generator=generator, dtype=next(net.parameters()).dtype)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def rtol_of(name: str) -> float:
    """How close steps are to torch's, whose NAdam keeps its product in float32."""
    return 1e-8 if name == "NAdam" else 1e-12


def assert_same(net: nn.Module, other: nn.Module, rtol: float = 0.0) -> None:
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=rtol)


def stepped_by_engine(optimizer: Any) -> bool:
    return all(part.plan is not None and not part.others for part in optimizer._parts)


# --- the same class, but for the step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_class_is_torchs_but_for_its_step(name):
    ours, theirs = getattr(adamas.torch, name), getattr(torch.optim, name)
    assert issubclass(ours, theirs)
    assert ours.__module__ == "adamas.torch"
    parameters = list(inspect.signature(ours).parameters.values())
    more = ["cautious", "update_clip", "trust_ratio", *Options.option_names]
    assert parameters[: -len(more)] == list(inspect.signature(theirs).parameters.values())
    assert [parameter.name for parameter in parameters[-len(more) :]] == more
    params = list(model().parameters())
    assert ours(params).defaults == theirs(params).defaults
    assert repr(ours(params)) == repr(theirs(params))
    for bad in ({"lr": -1.0}, {"weight_decay": -1.0}, {"eps": -1.0}, {"betas": (1.0, 0.9)}, {"momentum": -1.0}):
        if bad.keys() <= inspect.signature(theirs).parameters.keys():
            with pytest.raises(ValueError, match="Invalid") as error:
                theirs(params, **bad)
            with pytest.raises(ValueError, match="Invalid") as our_error:
                ours(params, **bad)
            assert str(our_error.value) == str(error.value)
    with pytest.raises(ValueError, match="empty parameter list"):
        ours([])
    with pytest.raises(TypeError, match="iterable of Tensors"):
        ours(params[0])


@engine_only
@pytest.mark.parametrize("name", NAMES)
def test_the_engine_takes_the_steps_and_so_does_the_specification_on_tensors(name, monkeypatch):
    """The second optimizer is forced to do what it does on another device; torch's roots may round differently."""
    nets = model(dtype=torch.float32), model(dtype=torch.float32)
    options = {"SGD": {"momentum": 0.9}, "RMSprop": {"centered": True, "momentum": 0.5}}.get(name, {})
    ours, forced = (getattr(adamas.torch, name)(net.parameters(), weight_decay=0.1, **options) for net in nets)
    for step in range(5):
        train(nets[0], ours, 1, step)
        assert stepped_by_engine(ours)
        with monkeypatch.context() as patch:
            patch.setattr(_torch_parts, "HAS_ENGINE", False)
            train(nets[1], forced, 1, step)
        assert all(part.plan is None for part in forced._parts)
        assert_same(*nets, rtol=1e-6)
    for mine, other in zip(ours.state.values(), forced.state.values(), strict=True):
        for key in mine:
            torch.testing.assert_close(mine[key], other[key], rtol=1e-5, atol=1e-7)


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=6),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-1, 3, cycle_momentum="momentum" in o.defaults),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(
        o, 0.1, total_steps=12, cycle_momentum=bool({"momentum", "betas"} & o.defaults.keys())
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
}


def test_every_scheduler_of_torch_is_among_those_tested():
    everything = {name for name in lr_scheduler.__all__ if name != "LRScheduler"}
    assert everything == set(SCHEDULERS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler(name, scheduler):
    nets = model(), model()
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    ours = getattr(adamas.torch, name)(nets[0].parameters(), lr=0.01, **options)
    theirs = getattr(torch.optim, name)(nets[1].parameters(), lr=0.01, **options)
    schedules = [SCHEDULERS[scheduler](optimizer) for optimizer in (ours, theirs)]
    for step in range(10):
        train(nets[0], ours, 1, step)
        train(nets[1], theirs, 1, step)
        for schedule in schedules:
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert_same(*nets, rtol=rtol_of(name))


def test_hooks_are_called_around_a_step_as_by_torch():
    net = model()
    optimizer = adamas.torch.Adam(net.parameters())
    calls: list[Any] = []
    optimizer.register_step_pre_hook(
        lambda opt, args, kwargs: calls.append(("pre", opt is optimizer, opt.state_dict()))
    )
    optimizer.register_step_post_hook(
        lambda opt, args, kwargs: calls.append(("post", opt is optimizer, len(opt.state)))
    )
    glob = register_optimizer_step_post_hook(lambda opt, args, kwargs: calls.append(("global", opt is optimizer, 0)))
    try:
        train(net, optimizer, 1)
    finally:
        glob.remove()
    assert [(kind, same) for kind, same, _ in calls] == [("pre", True), ("post", True), ("global", True)]
    assert calls[0][2]["state"] == {}
    assert calls[1][2] == 4
    with torch.profiler.profile() as profile:
        train(net, optimizer, 1)
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


def give(params: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_groups_may_be_added_and_changed_between_steps(name):
    nets = model(), model()
    for net, module in zip(nets, (adamas.torch, torch.optim), strict=True):
        optimizer = getattr(module, name)([("weight", net[0].weight)], lr=0.01)
        for step in range(12):
            if step == 3:
                optimizer.add_param_group({"params": [("bias", net[0].bias)], "lr": 0.1, "weight_decay": 0.1})
                if module is torch.optim and name == "Adagrad":  # torch makes the state of first groups only
                    zero = torch.zeros_like(net[0].bias)
                    optimizer.state[net[0].bias] = {"step": torch.tensor(0.0), "sum": zero}
            if step == 5:
                optimizer.param_groups[1]["lr"] = torch.tensor(0.05, dtype=torch.float64)
            if step == 7:
                optimizer.param_groups[0]["maximize"] = True
            if step == 9 and name == "SGD":
                optimizer.param_groups[0]["momentum"] = 0.5
            give([p for group in optimizer.param_groups for p in group["params"]], step)
            optimizer.step()
        assert [group["param_names"] for group in optimizer.param_groups] == [["weight"], ["bias"]]
    assert_same(*nets, rtol=rtol_of(name))


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_amsgrad_may_begin_between_steps(name):
    """Torch fails here; the maximum begins at what v is then."""
    p = nn.Parameter(torch.ones(3))
    optimizer = getattr(adamas.torch, name)([p])
    for step in range(4):
        give([p], step)
        optimizer.param_groups[0]["amsgrad"] = step >= 2
        optimizer.step()
    assert torch.isfinite(p).all()
    assert (optimizer.state[p]["max_exp_avg_sq"] >= optimizer.state[p]["exp_avg_sq"]).all()


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_tensors_as_learning_rate_and_betas(name):
    nets = model(), model()
    for net, module in zip(nets, (adamas.torch, torch.optim), strict=True):
        betas = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))
        rate = torch.tensor(0.01, dtype=torch.float64)
        optimizer = getattr(module, name)(net.parameters(), lr=rate, betas=betas)
        train(net, optimizer, 3)
        rate.mul_(0.5)
        train(net, optimizer, 3)
    assert_same(*nets, rtol=rtol_of(name))


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}])
def test_foreach_and_fused_ask_for_what_is_always_done(options):
    nets = model(), model()
    train(nets[0], adamas.torch.Adam(nets[0].parameters(), **options), 3)
    train(nets[1], adamas.torch.Adam(nets[1].parameters()), 3)
    assert_same(*nets)


@pytest.mark.parametrize("name", NAMES)
def test_capturable_is_refused(name):
    net = model()
    if "capturable" in getattr(torch.optim, name)(net.parameters()).defaults:
        with pytest.raises(ValueError, match=rf"capturable=True is not supported by adamas.torch.{name}"):
            getattr(adamas.torch, name)(net.parameters(), capturable=True)
    optimizer = getattr(adamas.torch, name)([net[0].weight])
    with pytest.raises(ValueError, match="capturable"):
        optimizer.add_param_group({"params": [net[0].bias], "capturable": True})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0]["capturable"] = True
    before = net[0].weight.clone()
    with pytest.raises(ValueError, match="capturable"):
        train(net, optimizer, 1)
    assert torch.equal(before, net[0].weight)


@pytest.mark.parametrize("name", NAMES)
def test_differentiable_steps_have_their_derivatives(name):
    """By parameter, gradient and learning rate, through three steps. Torch's SGD detaches its first buffer."""
    options = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}.get(name, {})

    def end(p: torch.Tensor, g: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        p = p.clone()
        optimizer = getattr(adamas.torch, name)([p], lr=rate, weight_decay=0.1, differentiable=True, **options)
        for k in range(3):
            p.grad = g * (k + 1)
            optimizer.step()
        return p

    generator = torch.Generator().manual_seed(0)
    p, g = (torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (p, g, rate), atol=1e-8, rtol=1e-5)


def test_a_graph_from_before_a_step_refuses_to_run_backward_after_it():
    """The engine writes memory on its own; autograd must know."""
    w = nn.Parameter(torch.ones(3))
    loss = (w * w).sum()
    w.grad = torch.ones(3)
    adamas.torch.SGD([w]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_first_step_that_fails_leaves_the_next_one_the_first():
    """The first step of SGD with momentum knows no dampening."""
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    for p, module in zip(params, (adamas.torch, torch.optim), strict=True):
        optimizer = module.SGD([p], lr=0.1, momentum=0.9, dampening=0.5)
        p.grad = torch.ones(3)
        optimizer.param_groups[0]["lr"] = None
        with pytest.raises(TypeError):
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
        if module is torch.optim:  # which has taken half a step
            optimizer = module.SGD([p], lr=0.1, momentum=0.9, dampening=0.5)
        assert torch.equal(p, torch.ones(3))
        for _ in range(2):
            optimizer.step()
    torch.testing.assert_close(params[0], params[1])


# --- copies and checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "state_dict", "torch.save"])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_as_the_original(name, how):
    options = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "Adam": {"amsgrad": True}}.get(name, {})
    net = model()
    optimizer = getattr(adamas.torch, name)(net.parameters(), lr=0.01, **options)
    train(net, optimizer, 3)
    if how in ("pickle", "deepcopy"):
        both = (net, optimizer)
        twin, other = copy.deepcopy(both) if how == "deepcopy" else pickle.loads(pickle.dumps(both))
    else:
        twin = copy.deepcopy(net)
        other = getattr(adamas.torch, name)(twin.parameters())
        saved = optimizer.state_dict()
        if how == "torch.save":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        other.load_state_dict(saved)
    train(net, optimizer, 3, 3)
    train(twin, other, 3, 3)
    assert_same(net, twin)


def test_a_state_dict_is_no_view_and_loading_one_makes_none():
    net = model()
    optimizer = adamas.torch.Adam(net.parameters())
    train(net, optimizer, 2)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    twin = copy.deepcopy(net)
    other = adamas.torch.Adam(twin.parameters())
    other.load_state_dict(saved)
    train(net, optimizer, 2, 2)
    train(twin, other, 2, 2)
    for key, state in kept["state"].items():
        for name, value in state.items():
            assert torch.equal(saved["state"][key][name], value)
    assert_same(net, twin)


def test_float32_state_of_half_precision_parameters_survives_a_checkpoint():
    """Torch rounds it to the parameter's type."""
    p = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16())
    optimizer = adamas.torch.Adam([p])
    give([p], 0)
    optimizer.step()
    other = adamas.torch.Adam([p])
    other.load_state_dict(optimizer.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        assert other.state[p][name].dtype == torch.float32
        assert torch.equal(other.state[p][name], optimizer.state[p][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["param_groups"][0].pop("betas"), "no 'betas': it is not of Adam"),
        (lambda d: d["param_groups"].append(d["param_groups"][0]), "different number of parameter groups"),
        (lambda d: d["param_groups"][0]["params"].pop(), "doesn't match the size"),
        (
            lambda d: d["state"][1].update(exp_avg=torch.zeros(3, 3)),
            r"exp_avg of parameter 1 in the state dict has shape \(3, 3\), but the parameter has shape \(8,\)",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(change, message):
    net = model()
    optimizer = adamas.torch.Adam(net.parameters())
    train(net, optimizer, 2)
    twin = copy.deepcopy((net, optimizer))
    saved = optimizer.state_dict()
    change(saved)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    train(net, optimizer, 2, 2)
    train(*twin, 2, 2)
    assert_same(net, twin[0])


def test_hooks_of_state_dicts_are_called():
    net = model()
    optimizer = adamas.torch.Adam(net.parameters())
    optimizer.register_load_state_dict_pre_hook(
        lambda opt, d: {**d, "param_groups": [dict(d["param_groups"][0], lr=9.0)]}
    )
    optimizer.register_state_dict_post_hook(lambda opt, d: {**d, "extra": 1})
    saved = optimizer.state_dict()
    assert saved["extra"] == 1
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 9.0


@engine_only
def test_the_count_of_steps_does_not_stick_at_2_to_the_24():
    p = nn.Parameter(torch.ones(2))
    optimizer = adamas.torch.Adam([p])
    give([p], 0)
    optimizer.step()
    optimizer.state[p]["step"].fill_(2.0**24)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2**24 + 1
    optimizer.state[p]["step"] = torch.tensor(2.0**25)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2**25 + 1


# --- odd tensors ------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(4, 3).t(),
    "strided": lambda: torch.randn(8, 6)[::2, 1::3],
    "offset": lambda: torch.randn(9)[1:],
    "scalar": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
}
GRADIENTS = {
    "alike": lambda g: g.clone(),
    "contiguous": lambda g: g.clone(memory_format=torch.contiguous_format),
    "reversed axes": lambda g: g.permute(tuple(reversed(range(g.ndim)))).contiguous().mT if g.ndim == 2 else g.clone(),
    "strided": lambda g: g.new_zeros(*g.shape, 2).index_copy_(-1, torch.tensor([1]), g[..., None])[..., 1],
    "expanded": lambda g: g.new_full((), 0.5).expand(g.shape),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fused", [True, False])
def test_any_layout_of_parameter_and_gradient(layout, gradient, fused):
    """Torch's fused kernel is wrong where the strides of a gradient differ from its parameter's; its loop is not."""
    torch.manual_seed(0)
    start = LAYOUTS[layout]()
    p = nn.Parameter(start)
    q = nn.Parameter(start.clone(memory_format=torch.contiguous_format))
    ours, theirs = adamas.torch.AdamW([p], fused=fused), torch.optim.AdamW([q])
    for _ in range(3):
        g = torch.randn(q.shape)
        p.grad = GRADIENTS[gradient](g.to(p.dtype))
        q.grad = p.grad.clone(memory_format=torch.contiguous_format)
        ours.step()
        theirs.step()
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-5, atol=1e-7)
    if _torch_parts.HAS_ENGINE:
        assert stepped_by_engine(ours)


@settings(deadline=None, max_examples=50)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from([torch.float32, torch.float64]), min_size=5, max_size=5),
    missing=st.lists(st.sets(st.integers(0, 4), max_size=4), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_any_shapes_types_and_missing_gradients(shapes, dtypes, missing, seed):
    generator = torch.Generator().manual_seed(seed)
    a = [nn.Parameter(torch.randn(s, generator=generator, dtype=d)) for s, d in zip(shapes, dtypes, strict=False)]
    b = copy.deepcopy(a)
    ours, theirs = adamas.torch.Adam(a, amsgrad=True), torch.optim.Adam(b, amsgrad=True)
    for step, without in enumerate(missing):
        for params in (a, b):
            give(params, step)
            for i in without & set(range(len(params))):
                params[i].grad = None
        ours.step()
        theirs.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
        assert (p in ours.state) == (q in theirs.state)


def test_memory_that_moves_or_is_replaced_between_steps():
    nets = model(dtype=torch.float32), model(dtype=torch.float32)
    for net, module in zip(nets, (adamas.torch, torch.optim), strict=True):
        optimizer = module.Adam(net.parameters())
        train(net, optimizer, 2)
        for p in net.parameters():
            state = optimizer.state[p]
            p.data = p.data.clone()
            state["exp_avg"] = state["exp_avg"] * 2
            state["exp_avg_sq"].data = state["exp_avg_sq"].data * 2
        train(net, optimizer, 2, 2)
        net[0].weight.data = net[0].weight.data.t().contiguous().t()
        train(net, optimizer, 2, 4)
        optimizer.state[net[2].bias] = {}
        train(net, optimizer, 2, 6)
    assert_same(*nets, rtol=1e-5)


def test_parameters_that_share_memory_are_stepped_in_turn():
    """Views of one tensor that overlap, and a gradient that is a view of its parameter."""
    results = []
    for module in (adamas.torch, torch.optim):
        base = torch.arange(1.0, 9.0)
        p, q, r = nn.Parameter(base[:6]), nn.Parameter(base[3:]), nn.Parameter(torch.ones(4))
        optimizer = module.Adam([p, q, r], lr=0.1)
        for _ in range(3):
            p.grad, q.grad, r.grad = torch.ones(6), torch.full((5,), -2.0), r.detach()
            optimizer.step()
        results.append((base, r.detach()))
    torch.testing.assert_close(results[0], results[1])


def test_float16_with_a_gradient_of_zero_stays_finite():
    """Torch's epsilon rounds to 0 in float16."""
    p = nn.Parameter(torch.ones(3, dtype=torch.float16))
    optimizer = adamas.torch.Adam([p])
    for _ in range(3):
        p.grad = torch.tensor([0.0, 1.0, 6e-8], dtype=torch.float16)
        optimizer.step()
    assert torch.isfinite(p).all()
    assert p[0] == 1


def test_float16_and_subclasses_of_tensors_beside_the_engine():
    class Marked(nn.Parameter):
        pass

    results = []
    for module in (adamas.torch, torch.optim):
        params = [nn.Parameter(torch.ones(4)), Marked(torch.ones(4)), nn.Parameter(torch.ones(4, dtype=torch.float16))]
        optimizer = module.Adam(params, lr=0.1)
        for step in range(3):
            give(params, step)
            optimizer.step()
        results.append([p.detach().float() for p in params])
    torch.testing.assert_close(results[0], results[1], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"maximize": True}), ("Adagrad", {})]
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # by torch's own Adagrad
def test_sparse_gradients_where_torch_takes_them(name, options):
    nets = [nn.Embedding(10, 3, sparse=True, dtype=torch.float64) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, module in zip(nets, (adamas.torch, torch.optim), strict=True):
        optimizer = getattr(module, name)(net.parameters(), lr=0.1, **options)
        for step in range(4):
            optimizer.zero_grad()
            net(torch.tensor([step, 1, 1, 7])).square().sum().backward()
            optimizer.step()
    assert_same(*nets, rtol=rtol_of(name))


@pytest.mark.parametrize(("name", "options"), [("Adam", {}), ("RMSprop", {}), ("SGD", {"weight_decay": 0.1})])
def test_sparse_gradients_where_torch_refuses_them(name, options):
    net, dense = nn.Embedding(10, 3, sparse=True), nn.Parameter(torch.ones(2))
    optimizer = getattr(adamas.torch, name)([dense, *net.parameters()], **options)
    dense.grad = torch.ones(2)
    optimizer.step()
    before = dense.clone()
    net(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradients"):
        optimizer.step()
    assert torch.equal(before, dense)


@pytest.mark.parametrize("found", [0.0, 1.0])
@pytest.mark.parametrize("fused", [True, False])
def test_grad_scaler(fused, found):
    """Unscales and skips, by itself or, with fused=True, through the optimizer's grad_scale and found_inf."""
    results = []
    for module in (adamas.torch, torch.optim):
        p = nn.Parameter(torch.ones(3))
        optimizer = module.AdamW([p], lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale((p * (float("inf") if found and step == 1 else step + 1)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append((p.detach(), scaler.get_scale(), optimizer.state[p]["step"].float(), p.grad))
    torch.testing.assert_close(results[0], results[1])


# --- threads and memory -----------------------------------------------------------------------------------------------


def test_an_optimizer_and_its_memory_are_freed():
    net = model(dtype=torch.float32)
    optimizer = adamas.torch.Adam(net.parameters())
    train(net, optimizer, 2)
    gone = weakref.ref(optimizer), weakref.ref(optimizer.state[net[0].weight]["exp_avg"])
    del optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_optimizers_in_threads_of_their_own():
    nets = [model(seed, torch.float32) for seed in range(4)]
    alone = copy.deepcopy(nets)
    for net in alone:
        train(net, adamas.torch.AdamW(net.parameters()), 30)
    workers = [threading.Thread(target=train, args=(net, adamas.torch.AdamW(net.parameters()), 30)) for net in nets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for net, other in zip(nets, alone, strict=True):
        assert_same(net, other)


def test_a_missing_torch_names_the_extra():
    script = "import sys; sys.modules['torch'] = None\nimport adamas.torch"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        "ImportError: adamas.torch needs PyTorch, which is missing: pip install 'adamas[torch]'\n"
    )
