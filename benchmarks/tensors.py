"""The rows about adamas.torch: its AdamW beside torch's, on the same shapes, each with parameters of its own."""

from typing import Any

import torch

import adamas.torch
from benchmarks.timing import Row

LAYER = [
    (768,),
    (768,),
    (768, 2304),
    (2304,),
    (768, 768),
    (768,),
    (768,),
    (768,),
    (768, 3072),
    (3072,),
    (3072, 768),
    (768,),
]
GPT2_SMALL = [(50257, 768), (1024, 768), *(12 * LAYER), (768,), (768,)]


def pair(shapes: list[tuple[int, ...]], **options: Any) -> tuple[Any, Any]:
    """Return the steps of our AdamW and of torch's, with options, whose gradients stay as they are.

    Both step the very same tensors with the same state, since where memory lies makes some per cent.
    """
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape)
    ours, theirs = adamas.torch.AdamW(params), torch.optim.AdamW(params, **options)
    ours.step()
    for p in params:
        theirs.state[p] = {**ours.state[p], "step": torch.tensor(1.0)}
    return lambda run: ours.step(), lambda run: theirs.step()  # noqa: ARG005


def rows() -> list[Any]:
    """Return functions that make the rows, so that each row's memory is freed before the next is made."""
    fused = {"fused": True}
    return [
        lambda: Row("100M, one tensor", "torch fused", *pair([(100_000_000,)], **fused), 1, 12),
        lambda: Row("GPT-2 small, 148 tensors", "torch fused", *pair(GPT2_SMALL, **fused), 1, 12),
        lambda: Row("GPT-2 small, 148 tensors", "torch default", *pair(GPT2_SMALL), 4, 5),
        lambda: Row("1,000 tensors of 1,000", "torch fused", *pair([(1000,)] * 1000, **fused), 8, 20, 20),
        lambda: Row("10 tensors of 64", "torch fused", *pair([(64,)] * 10, **fused), 5, 100, 20),
        lambda: Row("10 tensors of 64", "torch default", *pair([(64,)] * 10), 10, 100, 20),
    ]
