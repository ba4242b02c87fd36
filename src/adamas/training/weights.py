"""The parameters of a network as a file in the format safetensors."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas import _tree
from adamas._files import replacing

__all__ = ["load", "save"]


def save(params: Any, path: Path) -> None:
    """Write arrays, in lists or dicts, to a file, each under its keys joined by '.': the names that torch gives them.

    The file is there as a whole or not at all, whenever the process is killed. Raises OSError if it cannot be written.
    """
    from safetensors.numpy import save as serialized  # noqa: PLC0415 - optional

    # safetensors writes the raw memory, whatever its layout; its own files are for their owner's eyes only
    data = serialized({name: np.asarray(array, order="C") for name, array in _named(params).items()})
    with replacing(path) as file:
        file.write(data)


def load(params: Any, path: Path) -> None:
    """Overwrite arrays, in lists or dicts, by those of a file that `save` wrote.

    Raises ValueError, before anything is changed, if it is no such file or does not hold the same names and shapes;
    OSError if it cannot be read.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load_file  # noqa: PLC0415

    try:
        stored: dict[str, NDArray[Any]] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a file of weights: {error}") from None
    arrays = _named(params)
    for name in arrays.keys() | stored.keys():
        expected, found = (str(named[name].shape) if name in named else "none" for named in (arrays, stored))
        if expected != found:
            raise ValueError(f"{path} does not fit the network: the shape of {name!r} is {found} for {expected}")
    for name, array in arrays.items():
        array[...] = stored[name]


def _named(params: Any) -> dict[str, NDArray[Any]]:
    return {".".join(map(str, keys)): np.asarray(array) for keys, array in _tree.leaves(params)}
