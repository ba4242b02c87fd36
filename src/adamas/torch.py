"""Optimizers of PyTorch that the engine runs: ``from adamas.torch import AdamW`` for ``from torch.optim import AdamW``.

Each class is a subclass of torch's class of the same name: constructor, defaults, checks, parameter groups, hooks and
the keys of `state_dict` are torch's, and so are the formulas; a checkpoint of either continues in the other. The steps
are those of `adamas.rules`. Dense parameters on the CPU are stepped by the engine, all in one call: half precision in
float32 arithmetic with float32 state. Everything else (sparse gradients, sharded parameters, other devices,
``differentiable=True``) runs the specification itself on torch tensors, sparse gradients as if they were dense.

After torch's own arguments each class takes the options of a step, by name: see `adamas.Adam`. They may be assigned
between steps, as in ``optimizer.options.clip_norm = 0.5``; ``optimizer.ema[p]`` and ``optimizer.weight_copy[p]`` are
what is kept of a parameter, also in `state_dict`; ``optimizer.grad_norm`` and ``optimizer.nonfinite_steps`` are as
there. The norm is that of the parameters that this optimizer has: a share of them under ZeroRedundancyOptimizer.

What differs from torch, beside speed and the last bits:

- the state of half-precision parameters is float32, or bfloat16 with ``state_format="bfloat16"`` (bfloat16 state of a
  bfloat16 parameter stays such when it is loaded);
- `load_state_dict` takes copies of the tensors and `state_dict` returns copies, so that neither changes later;
- the count of steps is exact to 2**53;
- foreach and fused are accepted, and ask for what is always done; capturable (for CUDA graphs) is refused.

Not replaced, so still imported from torch.optim: Adadelta, Adafactor, Adamax, ASGD, LBFGS, Muon, NAdam, RAdam, Rprop
and SparseAdam.
"""

try:
    import torch
except ImportError as error:
    raise ImportError("adamas.torch needs PyTorch, which is missing: pip install 'adamas[torch]'") from error

from adamas._torch import Stepper

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]


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
