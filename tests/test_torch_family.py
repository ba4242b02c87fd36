"""Rules that torch lacks, in its dialect, and stages that look at whole tensors: the steps are those on arrays."""

import copy
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

import adamas
import adamas.torch
from adamas import _torch_parts
from adamas._torch_family import Family
from adamas.rules import RULES

FAMILY = [name for name in adamas.torch.__all__ if issubclass(getattr(adamas.torch, name), Family)]
SHAPES = [(3, 5), (7,), (), (2, 3, 4)]


def start() -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape)) for shape in SHAPES]


def gradients(step: int) -> list[Any]:
    rng = np.random.default_rng(100 + step)
    return [np.asarray(rng.standard_normal(shape)) for shape in SHAPES]


def run(optimizer: Any, params: list[Any], first: int, last: int) -> None:
    for step in range(first, last):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = torch.tensor(g, dtype=p.dtype)
        optimizer.step()


def made(name: str, **options: Any) -> tuple[Any, list[Any]]:
    params = [torch.nn.Parameter(torch.tensor(p)) for p in start()]
    return getattr(adamas.torch, name)(params, **options), params


def test_every_rule_from_adam_on_is_in_torchs_dialect():
    names = list(RULES)
    later = set(names[names.index("Adam") :]) - {"AMSGrad"}  # an option of torch's Adam
    assert later <= set(adamas.torch.__all__)


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("name", FAMILY)
def test_the_steps_are_those_on_arrays(name, engine, monkeypatch):
    """Bit for bit with the engine; the specification on tensors has torch's square root."""
    if not engine:
        monkeypatch.setattr(_torch_parts, "HAS_ENGINE", False)
    ours, params = made(name, lr=0.01, weight_decay=0.1)
    arrays, opt = start(), getattr(adamas, name)(0.01, weight_decay=0.1)
    for step in range(20):
        arrays = opt.update(arrays, gradients(step))
    run(ours, params, 0, 20)
    for p, q in zip(params, arrays, strict=True):
        if engine and _torch_parts.HAS_ENGINE:
            np.testing.assert_array_equal(p.detach().numpy(), q)
        else:
            np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-12)


@pytest.mark.parametrize("name", [*FAMILY, "NAdam"])
def test_a_checkpoint_goes_on(name):
    """Of float32 parameters: what lives across steps is kept in float64 all the same."""
    params = [torch.nn.Parameter(torch.tensor(p, dtype=torch.float32)) for p in start()]
    optimizer = getattr(adamas.torch, name)(params)
    run(optimizer, params, 0, 5)
    others = copy.deepcopy(params)
    another = getattr(adamas.torch, name)(others)
    another.load_state_dict(optimizer.state_dict())
    run(optimizer, params, 5, 10)
    run(another, others, 5, 10)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", FAMILY)
def test_the_arguments_are_torchs_and_the_defaults_the_rules(name):
    cls, rule = getattr(adamas.torch, name), RULES[name]
    parameters = inspect.signature(cls).parameters
    assert list(parameters)[:3] == ["params", "lr", "betas"]
    assert parameters["lr"].default == rule.learning_rate
    assert parameters["betas"].default[:2] == (rule.beta1, rule.beta2)
    assert parameters["decoupled_weight_decay"].default == rule.decoupled
    assert parameters["weight_decay"].default == rule.weight_decay
    optimizer, _ = made(name)
    assert optimizer.param_groups[0]["lr"] == rule.learning_rate
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in list(parameters.values())[-10:])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.5})
    assert optimizer.param_groups[1]["betas"] == optimizer.param_groups[0]["betas"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"lr must be finite and at least 0, got -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9,)}, r"betas must be 2 numbers, got \(0.9,\)"),
        ({"decoupled_weight_decay": 1}, "decoupled_weight_decay must be True or False, got 1"),
        ({"cautious": 1}, "cautious must be True or False, got 1"),
        ({"momentum": 0.9}, "momentum"),
        ({"cautious": True, "differentiable": True}, "differentiable=True and cautious, update_clip, trust_ratio"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        made("Lion", **arguments)


def test_a_wrong_group_is_refused():
    optimizer, _ = made("Lion")
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": math.nan})
    assert len(optimizer.param_groups) == 1


# --- stages that look at whole tensors --------------------------------------------------------------------------------

STAGES: list[dict[str, Any]] = [{"cautious": True}, {"update_clip": 0.5}, {"trust_ratio": True}]


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_stages_of_torchs_own_classes(stages, engine, monkeypatch):
    if not engine:
        monkeypatch.setattr(_torch_parts, "HAS_ENGINE", False)
    ours, params = made("AdamW", lr=0.01, **stages)
    arrays, opt = start(), adamas.AdamW(0.01, **stages)
    for step in range(20):
        arrays = opt.update(arrays, gradients(step))
    run(ours, params, 0, 20)
    for p, q in zip(params, arrays, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-12)
    assert ours.state_dict()["param_groups"][0].items() >= stages.items()


def test_a_group_chooses_its_stages_and_torchs_checkpoint_leaves_them():
    weight, bias = (torch.nn.Parameter(torch.full((4,), 2.0)) for _ in range(2))
    groups = [{"params": [weight]}, {"params": [bias], "trust_ratio": False}]
    optimizer = adamas.torch.AdamW(groups, lr=0.1, weight_decay=0.0, trust_ratio=True)
    weight.grad, bias.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    np.testing.assert_allclose(weight.detach(), 1.8, rtol=1e-6)
    np.testing.assert_allclose(bias.detach(), 1.9, rtol=1e-6)
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))], lr=0.1, weight_decay=0.0)
    ours = adamas.torch.AdamW([weight], lr=0.1, weight_decay=0.0, trust_ratio=True)
    ours.load_state_dict(theirs.state_dict())
    ours.step()
    np.testing.assert_allclose(weight.detach(), 1.62, rtol=1e-6)


# --- schedule-free ----------------------------------------------------------------------------------------------------


def test_eval_params_are_those_on_arrays():
    optimizer, params = made("ScheduleFreeAdamW", lr=0.01)
    assert optimizer.eval_params() == {}
    arrays, opt = start(), adamas.ScheduleFreeAdamW(0.01)
    for step in range(10):
        arrays = opt.update(arrays, gradients(step))
    run(optimizer, params, 0, 10)
    found = optimizer.eval_params()
    for p, q in zip(params, opt.eval_params(arrays), strict=True):
        np.testing.assert_allclose(found[p].numpy(), q, rtol=1e-14)


def test_parameters_whose_gradients_come_late_have_a_carry_of_their_own():
    optimizer, params = made("NAdam")
    for step in range(6):
        for i, (p, g) in enumerate(zip(params, gradients(step), strict=True)):
            p.grad = None if i == 0 and step < 3 else torch.tensor(g)
        optimizer.step()
    products = [float(optimizer.state[p]["mu_product"]) for p in params]
    assert products[0] != products[1] == products[2]
    late = adamas.NAdam()
    x = start()[0]
    for step in range(3, 6):
        late.update(x, gradients(step)[0])
    np.testing.assert_allclose(params[0].detach(), x, rtol=1e-14)
    assert late.carry[0]["mu_product"] == pytest.approx(products[0])
