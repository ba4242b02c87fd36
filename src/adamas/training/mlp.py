"""A feed-forward network (multi-layer perceptron), its loss and its gradient, written out.

Each hidden layer is ``relu(x @ weight + bias)``; the output layer is the same without the relu, and what it returns
are the logits. With one output, the sigmoid of the logit is the probability of class 1 of two; with several, their
softmax gives the probability of each class. The loss is the mean cross-entropy, -log(probability of the right class).

Arrays hold one example per row; n is the number of rows. Parameters are a dict of layers, first to last, as
`adamas.Adam` takes them: ``{"layer1": {"weight": (inputs, units), "bias": (units,)}, "layer2": ...}``.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["cross_entropy", "forward", "init", "logits", "loss_and_gradients", "predict"]

Array = NDArray[Any]
Params = dict[str, dict[str, Array]]


def init(widths: Sequence[int], rng: np.random.Generator, dtype: DTypeLike = np.float32) -> Params:
    """Return random parameters for layers of these widths: inputs, units of each hidden layer, outputs.

    Outputs: 1 for two classes, otherwise one per class. Weights are normal with variance 2 / inputs, so that relu
    layers pass on signals of the same size, however many there are (He et al. 2015, arXiv:1502.01852, eq. (10));
    biases are 0.
    """
    params: Params = {}
    for k, (inputs, units) in enumerate(pairwise(widths), start=1):
        weight = rng.standard_normal((inputs, units), np.float32) * math.sqrt(2 / inputs)
        params[f"layer{k}"] = {"weight": weight.astype(dtype, copy=False), "bias": np.zeros(units, dtype)}
    return params


def forward(params: Params, inputs: Array) -> list[Array]:
    """Return what enters each layer, (n, inputs of the layer), and last the logits, (n, outputs)."""
    x = inputs.reshape(len(inputs), -1)  # an image becomes one row
    signals = [x]
    for k, layer in enumerate(params.values(), start=1):
        z = x @ layer["weight"] + layer["bias"]
        x = np.maximum(z, 0) if k < len(params) else z
        signals.append(x)
    return signals


def logits(params: Params, inputs: Array) -> Array:
    """Return the logits, (n, outputs)."""
    return forward(params, inputs)[-1]


def loss_and_gradients(params: Params, inputs: Array, labels: Array) -> tuple[float, Params]:
    """Return the loss of a batch and its derivatives by every parameter, shaped as params are.

    inputs: (n, ...). labels: (n,), integers from 0. This is backpropagation: from the last layer to the first, `dz`
    is the loss's derivative by that layer's z, (n, units), and the chain rule gives all others.
    """
    *signals, last = forward(params, inputs)
    loss, dz = cross_entropy(last, labels)
    gradients: Params = {name: {} for name in params}
    for (name, layer), x in reversed(list(zip(params.items(), signals, strict=True))):
        gradients[name] = {"weight": x.T @ dz, "bias": dz.sum(axis=0)}  # because z = x @ weight + bias
        if x is not signals[0]:
            dz = (dz @ layer["weight"].T) * (x > 0)  # because x = relu(z of the layer before)
    return loss, gradients


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean of -log(probability of the right class), and its derivative by the logits, (n, outputs).

    The derivative is (probability - truth) / n for both kinds of output; truth is 1 for the right class, 0 elsewhere.
    Probabilities that round to 0 do no harm: their logarithms are computed from the logits, and nothing overflows.
    """
    n, outputs = logits.shape
    if outputs == 1:
        truth = labels[:, np.newaxis].astype(logits.dtype)
        probability = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the sigmoid
        losses = np.logaddexp(0, logits) - truth * logits
    else:
        truth = np.eye(outputs, dtype=logits.dtype)[labels]
        log_probability = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)  # the logarithm of the softmax
        probability = np.exp(log_probability)
        losses = -(truth * log_probability).sum(axis=1)
    return float(losses.mean()), (probability - truth) / n


def predict(params: Params, inputs: Array) -> NDArray[np.intp]:
    """Return the likeliest class of each input, (n,)."""
    last = logits(params, inputs)
    return (last[:, 0] > 0).astype(np.intp) if last.shape[1] == 1 else last.argmax(axis=1)
