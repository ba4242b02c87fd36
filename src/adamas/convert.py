"""The state of an optimizer, taken from one library to another: adamas, PyTorch, optax and Keras.

`read` and `write` do it with files, as ``adamas convert`` does; the other functions with what is in memory, as in
``to_optimizer(from_torch(optimizer.state_dict()))``. What is converted is the count of steps, what the rule remembers
of each parameter, and the hyper-parameters that both sides have. Where formulas differ the conversion is refused, or a
CheckpointWarning says how they do.
"""

import io
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from adamas import _stored, _tree
from adamas._checkpoint import MALFORMED, Checkpoint
from adamas._convert_jax import OF_OPTAX, from_keras, from_optax, to_keras, to_optax
from adamas._convert_torch import from_torch, to_torch
from adamas._files import replacing
from adamas._optimizers import OPTIMIZERS
from adamas._state import Moments, State, from_optimizer, to_optimizer
from adamas._tensorfile import TensorFile
from adamas._tensorfile import write as write_tensors
from adamas.errors import CheckpointError

__all__ = [
    "LIBRARIES",
    "Moments",
    "State",
    "from_keras",
    "from_optax",
    "from_optimizer",
    "from_torch",
    "read",
    "to_keras",
    "to_optax",
    "to_optimizer",
    "to_torch",
    "write",
]

LIBRARIES = ("adamas", "torch", "optax", "keras")

PLACES = ("optimizer", "optimizer_state_dict", "optim")
"""Where a checkpoint in PyTorch has the state of its optimizer, if it holds more than that."""

OF_NAMES = {"adam": "Adam", "adam_w": "AdamW", "adamax": "Adamax", "lion": "Lion"}
"""What Keras calls the variables of an optimizer -> its rule."""

File = str | os.PathLike[str]


def read(path: File, library: str, rule: str | None = None) -> State:
    """Return the state in a file.

    library: "adamas", a checkpoint of ours; "torch", what torch.save wrote of ``optimizer.state_dict()``, alone or in a
        dict, read without running anything that is in it; "optax", what `write` wrote; "keras", a ``.weights.h5`` of a
        compiled model.
    rule: the name of the rule, where the file does not say it.

    Raises CheckpointError if it is no such file, is damaged, or its state cannot be converted; OSError if it cannot be
    read.
    """
    _check_library(library)
    return _READERS[library](path, rule)


def write(state: State, path: File, library: str, like: File | None = None) -> None:
    """Write a state into a file, whole or not at all, in place of what is there.

    library: as of `read`.
    like: for "keras", a ``.weights.h5`` of the compiled model, whose weights are kept; for "torch", optional, a file of
        the optimizer that will load this one, whose groups and their hyper-parameters are kept (`to_torch`).

    Raises CheckpointError if the state cannot be converted, or does not fit, and OSError if the file cannot be written.
    """
    _check_library(library)
    if library == "adamas":
        to_optimizer(state).save(path)
    elif library == "optax":
        _write_optax(state, path)
    else:
        data = _torch_bytes(state, like) if library == "torch" else _keras_bytes(state, like)
        with replacing(path) as file:
            file.write(data)


def _check_library(library: str) -> None:
    if library not in LIBRARIES:
        raise ValueError(f"library must be {' or '.join(map(repr, LIBRARIES))}, got {library!r}")


# --- ours, and optax's ------------------------------------------------------------------------------------------------


def _read_adamas(path: File, rule: str | None) -> State:
    with Checkpoint(path) as saved:
        name = saved.rule
    if rule not in (None, name) or name not in OPTIMIZERS:
        raise CheckpointError(f"{path} holds the state of {name}" + (f", not of {rule}" if rule else ""))
    cls: Any = OPTIMIZERS[name]
    return from_optimizer(cls.load(path))


def _write_optax(state: State, path: File) -> None:
    """Write the fields of a state of optax: its trees of arrays by path, in the format safetensors."""
    if state.rule not in OF_OPTAX:
        to_optax(state, ())  # which says why
    arrays = {
        f"{theirs}/{place}": moments.arrays[ours]
        for ours, theirs in OF_OPTAX[state.rule].items()
        for place, moments in state.by_path()
    }
    tree = _tree.replace(state.tree, iter([place for place, _ in state.by_path()]), in_place=False)
    about = {"rule": state.rule, "count": state.t, "tree": _stored.encoded_tree(tree)}
    if about["tree"] is None:
        raise CheckpointError("a tree of other nodes than lists, tuples and dicts is not kept: use to_optax")
    write_tensors(path, arrays, {"optax": json.dumps(about)})


def _read_optax(path: File, rule: str | None) -> State:
    with TensorFile(path) as file:
        try:
            about = json.loads(file.metadata["optax"])
            if rule not in (None, about["rule"]) or about["rule"] not in OF_OPTAX:
                raise CheckpointError(f"{path} holds the state of {about['rule']!r:.60}, not of {rule}")

            def moments(place: str) -> Moments:
                held = {}
                for ours, theirs in OF_OPTAX[about["rule"]].items():
                    entry = file.entries[f"{theirs}/{place}"]
                    held[ours] = np.empty(entry.shape, entry.dtype)
                    file.read(f"{theirs}/{place}", held[ours])
                return Moments(held)

            return State(about["rule"], int(about["count"]), _stored.decoded_tree(about["tree"], moments))
        except CheckpointError:
            raise
        except MALFORMED as error:
            raise file.damaged(f"its description has {type(error).__name__}: {error}") from None


# --- PyTorch's and Keras' ---------------------------------------------------------------------------------------------


def _read_torch(path: File, rule: str | None) -> State:
    return from_torch(_torch_state(path), rule)


def _torch_state(path: File) -> dict[str, Any]:
    """Return the state of an optimizer in a file of PyTorch."""
    import torch  # noqa: PLC0415 - optional

    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except (pickle.UnpicklingError, *MALFORMED, EOFError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is no file of tensors and numbers of torch.save: {reason:.200}") from None
    if isinstance(held, dict) and "param_groups" not in held:
        held = next((held[name] for name in PLACES if isinstance(held.get(name), dict)), held)
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} holds {type(held).__name__}, not the state of an optimizer")
    return held


def _torch_bytes(state: State, like: File | None) -> bytes:
    import torch  # noqa: PLC0415 - optional

    data = io.BytesIO()
    torch.save(to_torch(state, None if like is None else _torch_state(like)), data)
    return data.getvalue()


def _h5py() -> Any:
    try:
        import h5py  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("files of Keras need h5py, which is missing: pip install h5py") from error
    return h5py


def _variables(file: Any, path: Any) -> list[Any]:
    """Return the arrays of an optimizer in a file of weights, which may be anyone's."""
    try:
        group = _held(_held(file, "optimizer"), "vars")
        return [np.asarray(_checked(_held(group, str(i)))) for i in range(len(group))]
    except (KeyError, TypeError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} has no variables of an optimizer, as compiled models have: {error}") from None


def _held(group: Any, name: str) -> Any:
    """Return what a group holds itself: a link could lead to any file of the machine."""
    link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, _h5py().HardLink):
        raise ValueError(f"{name!r} is a link, which Keras never writes")
    return group[name]


def _checked(array: Any) -> Any:
    """Return an array of a file if it holds numbers, here, and about as many as it takes room for."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{array.name} holds {array.dtype}, not numbers")
    most = 1100 * array.id.get_storage_size()  # what deflate can do
    if array.external or array.is_virtual or array.nbytes > most:
        raise ValueError(f"{array.name} says that it holds {array.nbytes:,} bytes, which are not there")
    return array


def _opened(path: Any, source: Any) -> Any:
    try:
        return _h5py().File(source, "r" if source is path else "r+")
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no file of weights of Keras: {error}") from None


def _read_keras(path: File, rule: str | None) -> State:
    with _opened(path, path) as file:
        variables = _variables(file, path)
        name = re.sub(r"_\d+$", "", str(file["optimizer/vars"].attrs.get("name", "")))
    if rule is None and name not in OF_NAMES:
        raise CheckpointError(f"{path} holds the variables of {name!r}: say which rule that is")
    return from_keras(variables, rule or OF_NAMES[name])


def _keras_bytes(state: State, like: File | None) -> bytes:
    arrays = to_keras(state)
    if like is None:
        raise CheckpointError(
            "a file of Keras holds the weights too: pass like=, the .weights.h5 of the compiled model"
        )
    data = io.BytesIO(Path(like).read_bytes())
    with _opened(like, data) as file:
        before = _variables(file, like)
        if [x.shape for x in before] != [x.shape for x in arrays]:
            raise CheckpointError(
                f"{like} is of an optimizer with {len(before)} variables, the state has {len(arrays)}, or their shapes "
                "differ: it must be of the same model, with an optimizer of the same rule"
            )
        for i, (old, new) in enumerate(zip(before, arrays, strict=True)):
            if not (i == 1 and np.isnan(new)):  # a learning rate that is not known
                file[f"optimizer/vars/{i}"][...] = new.astype(old.dtype)  # _variables has looked at it
    return data.getvalue()


_READERS = {"adamas": _read_adamas, "torch": _read_torch, "optax": _read_optax, "keras": _read_keras}
