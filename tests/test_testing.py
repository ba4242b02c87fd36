"""The conformance kit finds what there is to find: of torch, scikit-learn, optax and ours, and of faults made here."""

import json
from typing import Any

import numpy as np
import optax
import pytest
import torch

import adamas
import adamas.torch
from adamas import _golden
from adamas.rules import RULES
from adamas.testing import adamas_step, conforms, optax_step, torch_step


def own(
    dtype: Any = np.float32, epsilon: str = "after the correction", decay: str = "none", maximum: str | None = None
) -> Any:
    """Adam in NumPy, in a form."""
    lr, b1, b2, eps, wd = (dtype(x) for x in (1e-3, 0.9, 0.999, 1e-8, 0.01))

    def step(p: Any, g: Any, state: Any) -> Any:
        m, v, most, t = (0 * p, 0 * p, 0 * p, 0) if state is None else state
        t += 1
        if decay == "coupled":
            g = g + wd * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        bc1, bc2 = dtype(1 - 0.9**t), dtype(1 - 0.999**t)
        v_hat = v / bc2
        if maximum is not None:
            most = np.maximum(most, v if maximum == "of the raw second moment" else v_hat)
            v_hat = most / bc2 if maximum == "of the raw second moment" else most
        root = {
            "after the correction": lambda: np.sqrt(v_hat) + eps,
            "before the correction": lambda: np.sqrt(v_hat) + eps / np.sqrt(bc2),
            "inside the root": lambda: np.sqrt(v_hat + eps),
        }[epsilon]()
        change = lr * (m / bc1) / root
        if decay == "decoupled":
            change = change + lr * wd * p
        if decay == "decoupled, not times the learning rate":
            change = change + wd * p
        return p - change, (m, v, most, t)

    return step


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", _golden.EPSILONS)
@pytest.mark.parametrize("decay", _golden.DECAYS)
def test_each_form_is_told_from_the_others(epsilon, decay):
    rule = "adam" if decay == "none" else "adamw"
    found = conforms(own(np.float64, epsilon, decay), rule, "float64")
    assert (found.epsilon, found.decay, found.maximum) == (epsilon, decay, None)
    found = conforms(own(np.float32, epsilon, decay), rule)
    assert (found.epsilon, found.decay) == (epsilon, decay)
    assert found.spacings < 200
    assert found.conforms


@pytest.mark.parametrize("maximum", _golden.MAXIMA)
def test_the_maximum_of_amsgrad_is_told(maximum):
    assert conforms(own(maximum=maximum), "amsgrad").maximum == maximum


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_what_it_finds_of_torch(options):
    step = torch_step(lambda params: torch.optim.AdamW(params, **options))
    found = conforms(step, like="torch")
    assert (found.epsilon, found.decay) == ("after the correction", "decoupled")
    assert found.spacings < 10
    assert found.failures == ("step 2**24: counts 16777216 then",)
    assert not found.conforms
    half = conforms(step, dtype="float16", like="torch")
    if "fused" not in options:
        assert "a gradient of zero: NaN" in half.failures
        assert half.spacings == np.inf
        assert half.epsilon == "?"
    amsgrad = conforms(torch_step(lambda params: torch.optim.Adam(params, amsgrad=True)), "amsgrad", like="torch")
    assert amsgrad.maximum == "of the raw second moment"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_it_finds_of_scikit_learn():
    optimizers: Any = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")

    def step(p: Any, g: Any, state: Any) -> Any:
        optimizer = optimizers.AdamOptimizer([p]) if state is None else state
        optimizer.update_params([p], [g])
        return p, optimizer

    found = conforms(step, "adam")
    assert (found.epsilon, found.decay, found.failures) == ("before the correction", "none", ())


def test_what_it_finds_of_optax():
    found = conforms(optax_step(optax.adamw(1e-3, weight_decay=0.01)), like="jax")
    assert (found.epsilon, found.decay, found.failures) == ("after the correction", "decoupled", ())
    amsgrad = conforms(optax_step(optax.amsgrad(1e-3)), "amsgrad", like="jax")
    assert amsgrad.maximum == "of the corrected second moment"


ELEMENTWISE = [name for name, rule in RULES.items() if not rule.trust_ratio]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_ours_conform(name):
    """The variance of huge gradients is lost when both of its terms saturate: then the change is infinite."""
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        found = conforms(adamas_step(getattr(adamas, name)), name, dtype)
        assert found.conforms or (name.startswith("Centered") and found.failures == ("huge gradients: NaN",)), found
        assert found.spacings <= {"float64": 1e4, "float32": 20, "bfloat16": 20, "float16": 20}[dtype], found


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "Lion"])
def test_ours_for_torch_conform(name):
    found = conforms(torch_step(getattr(adamas.torch, name)), name, like="torch")
    assert found.conforms, found
    assert "step 2**24" in found.tried


# --- faults -----------------------------------------------------------------------------------------------------------


def test_another_rule_has_no_form():
    found = conforms(own(decay="coupled"), "lion")
    assert found.spacings > 1e4
    assert not found.conforms


def test_a_wrong_beta_is_of_no_form():
    right = own()

    def step(p: Any, g: Any, state: Any) -> Any:
        return right(p, 2 * g if state is None else g, state)

    found = conforms(step, "adam")
    assert (found.epsilon, found.decay) == ("?", "?")
    assert "?" in str(found)


def test_nan_and_motion_at_a_gradient_of_zero_are_seen():
    with np.errstate(all="ignore"):
        found = conforms(lambda p, g, state: (p - g / abs(g), ()), "adam")
        assert "a gradient of zero: NaN" in found.failures
        found = conforms(lambda p, g, state: (p - 0.1, ()), "adam")
    assert "a gradient of zero: moves by 0.3" in found.failures
    assert "fails: a gradient of zero: moves by 0.3" in str(found)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_what_the_script_makes():
    shipped = json.loads(_golden.FILE.read_text())
    made = {**_golden.trajectories_of("AdamW"), **_golden.trajectories_of("Lion"), **_golden.trajectories_of("NAdam")}
    assert made.items() <= shipped.items()
    names = {key.split("; ", maxsplit=1)[0] for key in shipped}
    assert names == set(ELEMENTWISE)


def test_adam_written_out_is_the_specification():
    for name in ("Adam", "AMSGrad"):
        form = _golden.Form(maximum=_golden.MAXIMA[0] if name == "AMSGrad" else None)
        written = _golden.trajectory(name, form, {}, "wide")
        np.testing.assert_allclose(written, _golden.trajectory(name, None, {}, "wide"), rtol=1e-15)


def test_other_hyperparameters_are_computed():
    options = {"learning_rate": 0.1, "beta1": 0.5, "weight_decay": 0.2}
    found = conforms(adamas_step(lambda: adamas.AdamW(**options)), **options)
    assert found.conforms
    assert found.decay == "decoupled"
    assert not conforms(adamas_step(adamas.AdamW), **options).conforms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "adamm"}, "rule must be one of sgd, momentum, .*, got 'adamm'"),
        ({"rule": "lamb"}, "rule must be one of"),
        ({"dtype": "float8"}, "dtype must be one of float64, float32, bfloat16, float16, got 'float8'"),
        ({"like": "cupy"}, "like must be 'numpy', 'torch' or 'jax', got 'cupy'"),
        ({"lr": 0.1}, "AdamW has no 'lr': it has learning_rate, "),
        ({"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        conforms(own(), **arguments)
