"""Optimizers of PyTorch that the engine runs: ``from adamas.torch import AdamW`` for ``from torch.optim import AdamW``.

Each class that torch has is a subclass of torch's of the same name: constructor, defaults, checks, parameter groups,
hooks and the keys of `state_dict` are torch's, and so are the formulas; a checkpoint of either continues in the other.
The steps are those of `adamas.rules`. Dense parameters on the CPU are stepped by the engine, all in one call: half
precision in float32 arithmetic with float32 state. Everything else (sparse gradients, sharded parameters, other
devices, ``differentiable=True``) runs the specification itself on torch tensors, sparse gradients as if they were
dense.

The other rules of `adamas.rules` that descend from Adam are classes here too, with the arguments that torch would give
them: ``Lion(params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, decoupled_weight_decay=True, maximize=False)``.

After torch's own arguments each class takes, by name, `cautious`, `update_clip` and `trust_ratio`, per parameter group,
and the options of a step: see `adamas.Adam`. The latter may be assigned between steps, as in
``optimizer.options.clip_norm = 0.5``; ``optimizer.ema[p]`` and ``optimizer.weight_copy[p]`` are what is kept of a
parameter, also in `state_dict`; ``optimizer.grad_norm`` and ``optimizer.nonfinite_steps`` are as there. The norm is
that of the parameters that this optimizer has: a share of them under ZeroRedundancyOptimizer.

What differs from torch, beside speed and the last bits:

- the state of half-precision parameters is float32, or bfloat16 with ``state_format="bfloat16"`` (bfloat16 state of a
  bfloat16 parameter stays such when it is loaded);
- `load_state_dict` takes copies of the tensors and `state_dict` returns copies, so that neither changes later;
- the count of steps is exact to 2**53;
- foreach and fused are accepted, and ask for what is always done; capturable (for CUDA graphs) is refused.

For sparse gradients there is `SparseAdam`, lazy as torch's or with the results of dense Adam.

Not replaced, so still imported from torch.optim: Adadelta, Adafactor, ASGD, LBFGS, Muon and Rprop.
"""

try:
    import torch
except ImportError as error:
    raise ImportError("adamas.torch needs PyTorch, which is missing: pip install 'adamas[torch]'") from error

from adamas._torch import Stepper
from adamas._torch_family import Family, ScheduleFree
from adamas._torch_sparse import SparseAdam

__all__ = [
    "ADOPT",
    "LAMB",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
    "ScheduleFreeAdamW",
    "SparseAdam",
    "Yogi",
]


class SGD(Stepper, torch.optim.SGD):
    """torch.optim.SGD: `adamas.SGD`, and `adamas.Momentum` where a group has momentum."""

    counted = False
    takes_sparse = True
    names = {"b": "momentum_buffer"}
    hyperparameters = {
        "learning_rate": "lr",
        "momentum": "momentum",
        "dampening": "dampening",
        "nesterov": "nesterov",
    }
    rules = {"SGD": lambda group: not group["momentum"], "Momentum": lambda group: True}


class RMSprop(Stepper, torch.optim.RMSprop):
    """torch.optim.RMSprop: `adamas.RMSProp`, centered or with momentum where a group says so."""

    names = {"v": "square_avg", "n": "grad_avg", "b": "momentum_buffer"}
    hyperparameters = {"learning_rate": "lr", "beta2": "alpha", "epsilon": "eps", "momentum": "momentum"}
    rules = {
        "CenteredRMSPropMomentum": lambda group: group["centered"] and group["momentum"] > 0,
        "CenteredRMSProp": lambda group: group["centered"],
        "RMSPropMomentum": lambda group: group["momentum"] > 0,
        "RMSProp": lambda group: True,
    }


class Adagrad(Stepper, torch.optim.Adagrad):
    """torch.optim.Adagrad: `adamas.AdaGrad`, whose learning rate may fall and whose sum may start above zero."""

    takes_sparse = True
    names = {"s": "sum"}
    initial = {"s": "initial_accumulator_value"}
    hyperparameters = {
        "learning_rate": lambda group, t: group["lr"] / (1 + (t - 1) * group["lr_decay"]),
        "epsilon": "eps",
    }
    rules = {"AdaGrad": lambda group: True}


class Adam(Stepper, torch.optim.Adam):
    """torch.optim.Adam: `adamas.Adam`, and `adamas.AMSGrad` where a group has amsgrad."""

    names = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}
    hyperparameters = {
        "learning_rate": "lr",
        "beta1": lambda group, t: group["betas"][0],
        "beta2": lambda group, t: group["betas"][1],
        "epsilon": "eps",
    }
    rules = {"AMSGrad": lambda group: group["amsgrad"], "Adam": lambda group: True}


class AdamW(Adam, torch.optim.AdamW):
    """torch.optim.AdamW: `adamas.AdamW`, and `adamas.AMSGrad` with decoupled decay where a group has amsgrad."""


class Adamax(Stepper, torch.optim.Adamax):
    """torch.optim.Adamax: `adamas.Adamax`."""

    names = {"m": "exp_avg", "u": "exp_inf"}
    hyperparameters = Adam.hyperparameters
    rules = {"Adamax": lambda group: True}


class NAdam(Stepper, torch.optim.NAdam):
    """torch.optim.NAdam: `adamas.NAdam`, whose product is kept in float64."""

    names = {"m": "exp_avg", "v": "exp_avg_sq"}
    hyperparameters = {**Adam.hyperparameters, "momentum_decay": "momentum_decay"}
    rules = {"NAdam": lambda group: True}


class RAdam(Stepper, torch.optim.RAdam):
    """torch.optim.RAdam: `adamas.RAdam`, with epsilon added before the second moment is corrected."""

    names = {"m": "exp_avg", "v": "exp_avg_sq"}
    hyperparameters = {
        **Adam.hyperparameters,
        "epsilon": lambda group, t: group["eps"] * (1 - group["betas"][1] ** t) ** -0.5,
    }
    rules = {"RAdam": lambda group: True}


# --- rules that torch lacks; their state has the names that it has elsewhere ------------------------------------------


class AdaBelief(Family):
    """`adamas.AdaBelief`, as torch would have it."""

    rule = "AdaBelief"
    names = {"m": "exp_avg", "s": "exp_avg_var"}


class Yogi(Family):
    """`adamas.Yogi`, as torch would have it."""

    rule = "Yogi"
    names = {"m": "exp_avg", "v": "exp_avg_sq"}


class ADOPT(Family):
    """`adamas.ADOPT`, as torch would have it."""

    rule = "ADOPT"
    names = {"m": "exp_avg", "v": "exp_avg_sq"}


class AdEMAMix(Family):
    """`adamas.AdEMAMix`, as torch would have it."""

    rule = "AdEMAMix"
    names = {"m": "exp_avg", "n": "exp_avg_slow", "v": "exp_avg_sq"}


class Adan(Family):
    """`adamas.Adan`, as torch would have it."""

    rule = "Adan"
    names = {"m": "exp_avg", "v": "exp_avg_diff", "n": "exp_avg_sq", "g_before": "previous_grad"}


class Lion(Family):
    """`adamas.Lion`, as torch would have it."""

    rule = "Lion"
    names = {"m": "exp_avg"}


class LAMB(Family):
    """`adamas.LAMB`, as torch would have it."""

    rule = "LAMB"
    names = {"m": "exp_avg", "v": "exp_avg_sq"}


class ScheduleFreeAdamW(ScheduleFree):
    """`adamas.ScheduleFreeAdamW`, as torch would have it; `eval_params` says what to evaluate the model with."""

    names = {"d": "offset", "v": "exp_avg_sq"}
