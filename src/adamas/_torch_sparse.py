"""Sparse gradients in PyTorch: torch.optim.SparseAdam stepped by `adamas.Adam`, lazily or with dense results."""

import copy
from collections.abc import Callable
from typing import Any

import ml_dtypes
import torch
from torch import nn

from adamas import _sparse
from adamas._optimizers import OPTIMIZERS
from adamas._sparse import MODES, RowSparse

ROWS = "rows"
"""The key of a parameter's state under which a state dict has what is known of its rows."""


class SparseAdam(torch.optim.SparseAdam):
    """torch.optim.SparseAdam: `adamas.Adam` for gradients of few rows, as of ``nn.Embedding(n, width, sparse=True)``.

    After torch's own arguments, by name:

    sparse: "lazy", as torch's: rows without a gradient stay as they are; or "exact" or "replay": they do what they do
        in dense Adam, see `adamas.Adam`. Then rows must be brought up to date before they are read: call `watch` once.
    weight_decay: at least 0; decoupled, as in AdamW. It may differ between parameter groups.

    In "lazy" mode epsilon is torch's, added to the root of v before that is corrected; otherwise Adam's.

    A checkpoint of torch's class continues here, and one of ours in torch's, after `flush`. Parameters are on the CPU:
    of float32 in exact mode, otherwise of float64, float32, bfloat16 or float16.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        *,
        sparse: str = "lazy",
        weight_decay: float = 0.0,
    ) -> None:
        if sparse not in MODES:
            raise ValueError(f"sparse must be {' or '.join(map(repr, MODES))}, got {sparse!r}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay!r}")
        self.sparse = sparse
        self._steppers: dict[torch.Tensor, Any] = {}
        super().__init__(params, lr, betas, eps, maximize)
        self.defaults["weight_decay"] = weight_decay
        for group in self.param_groups:
            group.setdefault("weight_decay", weight_decay)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of every parameter that has a gradient; return what closure, called first, returns.

        Raises RuntimeError, before anything is changed, for a gradient that is not sparse, and ValueError for rows that
        were read while they were behind.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pairs = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(not p.grad.is_sparse for _, p in pairs):
            raise RuntimeError("SparseAdam does not support dense gradients, please consider Adam instead")
        for group, p in pairs:
            grad = p.grad.detach()
            if grad.sparse_dim() != 1:
                raise RuntimeError(f"gradients may be sparse in rows, not in {grad.sparse_dim()} dimensions")
            values = _array(-grad._values() if group["maximize"] else grad._values())
            self._stepper(p).update(_array(p), RowSparse(grad._indices()[0].numpy(), values))
            self.state[p]["step"] += 1
            torch.autograd.graph.increment_version([p])
        return loss

    def _stepper(self, p: torch.Tensor) -> Any:
        """Return the optimizer of a parameter; its state is that of torch's class, in the same memory."""
        if p in self._steppers:
            return self._steppers[p]
        place = next(i for i, group in enumerate(self.param_groups) if any(other is p for other in group["params"]))

        def number(name: str, index: int | None = None) -> Callable[[int], float]:
            def now(t: int) -> float:
                group = self.param_groups[place]
                value = group[name] if index is None else group[name][index]
                as_torch = name == "eps" and self.sparse == "lazy"
                return float(value) * ((1 - group["betas"][1] ** (t + 1)) ** -0.5 if as_torch else 1.0)

            return now

        adam: Any = OPTIMIZERS["Adam"]
        stepper = adam(
            number("lr"), number("betas", 0), number("betas", 1), number("eps"),
            weight_decay=number("weight_decay"), decoupled=True, sparse=self.sparse,
        )  # fmt: skip
        array, state = _array(p), self.state[p]
        if not state:
            exact = torch.promote_types(p.dtype, torch.float32)
            state.update(step=0, exp_avg=torch.zeros_like(p, dtype=exact), exp_avg_sq=torch.zeros_like(p, dtype=exact))
        kept = tuple(state[name].numpy() for name in ("exp_avg", "exp_avg_sq"))
        stepper._memory.adopt(array, {"": kept}, int(state["step"]))
        if (rows := state.pop(ROWS, None)) is not None:
            about, *arrays = rows
            arrays = [kept.numpy() for kept in arrays] or [None, None]
            stepper._memory.tables[""] = _sparse.restored(stepper.rule, about, len(array), *arrays)
        self._steppers[p] = stepper
        return stepper

    def prepare(self, p: torch.Tensor, rows: torch.Tensor) -> None:
        """Bring rows of a parameter up to date before they are read; rows: integers of any shape."""
        if self.sparse != "lazy" and (p in self._steppers or ROWS in self.state.get(p, {})):
            self._stepper(p).prepare(_array(p), rows.detach().reshape(-1).numpy())

    def flush(self) -> None:
        """Bring all rows up to date, as before they are looked at, or exported."""
        for p in list(self.state):
            if self.sparse != "lazy":
                self._stepper(p).flush(_array(p))

    def watch(self, model: nn.Module) -> list[Any]:
        """Let the rows that embeddings of a model are about to look up be brought up to date first.

        That is of every nn.Embedding and nn.EmbeddingBag in it whose weight this optimizer steps. Returns the handles
        of the hooks; ``handle.remove()`` undoes it. Raises ValueError if there is no such module.
        """
        own = {p for group in self.param_groups for p in group["params"]}
        kinds = (nn.Embedding, nn.EmbeddingBag)
        modules = [module for module in model.modules() if isinstance(module, kinds) and module.weight in own]
        if not modules:
            raise ValueError("the model has no nn.Embedding or nn.EmbeddingBag whose weight this optimizer steps")

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.prepare(module.weight, args[0] if args else kwargs["input"])

        return [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]

    # --- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch's method does, and what is known of rows that are behind."""
        state_dict = super().state_dict()
        params = [p for group in self.param_groups for p in group["params"]]
        states = {
            key: {**state, **self._rows(params[key])} if isinstance(state, dict) else state
            for key, state in state_dict["state"].items()
        }
        return {**state_dict, "state": states}

    def _rows(self, p: torch.Tensor) -> dict[str, Any]:
        memory = self._steppers[p]._memory if p in self._steppers else None
        if memory is None or not memory.tables:
            return {}
        arrays = (array.copy() for _, array in _sparse.row_arrays(memory))
        return {ROWS: (_sparse.described(memory)[""], *map(torch.from_numpy, arrays))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of torch's class or ours, as torch's method does; float32 state of short parameters stays so."""
        rows = {key: state[ROWS] for key, state in state_dict["state"].items() if ROWS in state}
        states = {key: {k: v for k, v in state.items() if k != ROWS} for key, state in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": states})
        self._steppers = {}
        params = [p for group in self.param_groups for p in group["params"]]
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for key, p in zip(keys, params, strict=True):
            if key in states:
                for name in ("exp_avg", "exp_avg_sq"):
                    exact = torch.promote_types(p.dtype, torch.float32)
                    self.state[p][name] = states[key][name].detach().to(exact, copy=True)
                self.state[p]["step"] = int(self.state[p]["step"])
            if key in rows:
                self.state[p][ROWS] = copy.deepcopy(rows[key])

    def __getstate__(self) -> dict[str, Any]:
        state = {p: {**kept, **self._rows(p)} for p, kept in self.state.items()}
        return {**super().__getstate__(), "state": state, "sparse": self.sparse}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steppers = {}
        for group in self.param_groups:
            group.setdefault("weight_decay", 0.0)


SparseAdam.__module__ = "adamas.torch"  # where it is found


def _array(tensor: torch.Tensor) -> Any:
    """Return a tensor as an array of the same memory; raise ValueError if it is not on the CPU."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        raise ValueError(f"a parameter is on {tensor.device}: adamas.torch.SparseAdam steps parameters on the CPU")
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
