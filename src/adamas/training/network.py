"""PyTorch modules as the loop takes them: parameters and gradients are NumPy views, so that any optimizer fits."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

__all__ = ["Network"]

Tree = dict[str, Any]

MOST_AT_ONCE = 128
"""Inputs per batch where no gradient is needed: enough to be fast, little enough to fit in memory."""


class Network:
    """A `torch.nn.Module` as a `Model` of the loop.

    The module takes a batch, (n, ...), of the inputs' own dtype, and returns logits, (n, outputs): one for two
    classes, otherwise one per class. The loss is the mean cross-entropy, of the sigmoid for one output, of the softmax
    for several.

    module: the module, which must keep nothing but parameters: a buffer, such as the running mean of a BatchNorm,
        would be lost with the best weights (ValueError).
    seed: of what the module draws while it trains, as dropout does. The random state of torch is left alone.
    params: views of the module's own memory as NumPy arrays, in dicts by module and name, as in
        ``{"conv1": {"weight": ..., "bias": ...}}``: what is written there, the module computes with.
    """

    def __init__(self, module: torch.nn.Module, seed: int = 0) -> None:
        named = dict(module.named_parameters(remove_duplicate=False))
        if buffers := [name for name in module.state_dict() if name not in named]:
            raise ValueError(f"{type(module).__name__} keeps {buffers[0]!r}, which is not a parameter: do without it")
        self.module = module
        self.params = _nested(module, lambda parameter: parameter.detach().numpy())
        self._generator = torch.Generator().manual_seed(seed)
        self._tables = {f"{name}.weight" for name, child in module.named_modules() if getattr(child, "sparse", False)}

    @classmethod
    def create(cls, make: Callable[[], torch.nn.Module], rng: np.random.Generator) -> Self:
        """Return the network of the module that `make` returns, whose first weights `rng` decides, and nothing else."""
        first, later = (int(seed) for seed in rng.integers(2**63, size=2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(first)
            return cls(make(), later)

    @property
    def random_state(self) -> str:
        """The state of what the module draws from, in hexadecimal; it may be set to what it was."""
        return bytes(self._generator.get_state().numpy()).hex()

    @random_state.setter
    def random_state(self, state: str) -> None:
        self._generator.set_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))

    def rows(self, inputs: NDArray[Any]) -> Any:
        """Return which rows a batch reads of the tables whose gradients are sparse; None if there are none.

        That is of embeddings with sparse=True, which are taken to look up the inputs themselves.
        """
        if not self._tables:
            return None
        words = {id(parameter): np.unique(inputs) for name, parameter in self.module.named_parameters()
                 if name in self._tables}  # fmt: skip
        return _nested(self.module, lambda parameter: words.get(id(parameter)))

    def loss_and_gradients(self, params: Tree, inputs: NDArray[Any], labels: NDArray[Any]) -> tuple[float, Tree]:
        """Return the mean loss of a batch and its gradients, nested as params are: views, None where there is none.

        Sparse ones are tensors of torch.

        params: `self.params`, or arrays of the same shapes, which are copied there. inputs: (n, ...). labels: (n,),
        integers from 0.
        """
        self._take_over(params)
        self.module.train()
        self.module.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._generator.get_state())
            logits = self.module(_tensor(inputs))
            self._generator.set_state(torch.get_rng_state())
        truth = _tensor(labels)
        if logits.shape[1] == 1:
            loss = binary_cross_entropy_with_logits(logits[:, 0], truth.to(logits.dtype))
        else:
            loss = cross_entropy(logits, truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), _nested(self.module, _gradient)

    def logits(self, params: Tree, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the logits, (n, outputs), of inputs, (n, ...); params as for `loss_and_gradients`."""
        self._take_over(params)
        self.module.eval()
        with torch.inference_mode():
            batches = np.array_split(inputs, max(1, -(-len(inputs) // MOST_AT_ONCE)))
            return np.concatenate([self.module(_tensor(batch)).numpy() for batch in batches])

    def _take_over(self, params: Tree) -> None:
        if params is not self.params:
            _copy(params, self.params)


def _gradient(parameter: torch.nn.Parameter) -> Any:
    grad = parameter.grad
    return grad if grad is None or grad.is_sparse else grad.numpy()


def _nested(module: torch.nn.Module, value: Callable[[torch.nn.Parameter], Any]) -> Tree:
    """Return a value of each parameter, in dicts by module and name."""
    tree: Tree = {}
    for name, parameter in module.named_parameters():
        *modules, last = name.split(".")
        place = tree
        for key in modules:
            place = place.setdefault(key, {})
        place[last] = value(parameter)
    return tree


def _copy(source: Tree, target: Tree) -> None:
    for key, value in target.items():
        if isinstance(value, dict):
            _copy(source[key], value)
        else:
            value[...] = source[key]


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # a copy if it is not so: torch warns of others
