"""Folders of IDX files: the format in which MNIST and Fashion-MNIST are distributed."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas.training.data import Dataset

__all__ = ["is_idx_folder", "read_idx", "read_idx_folder"]

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PARTS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file, gzipped or not.

    Such a file holds two zero bytes, the type of the elements, the number of dimensions, the dimensions as big-endian
    32-bit numbers, and the elements, row by row. Raises ValueError, naming the file, if it is anything else, or longer
    or shorter than it says; OSError if it cannot be read.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise ValueError(f"{path} is not an IDX file: it starts with the bytes {data[:4].hex(' ') or 'of nothing'}")
    dtype, dimensions = np.dtype(DTYPES[data[2]]), data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise ValueError(f"{path} ends within its {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    expected = start + dtype.itemsize * int(np.prod(shape, dtype=object))  # Python's integers, which do not overflow
    if len(data) != expected:
        raise ValueError(f"{path} must have {expected:,} bytes for an array of {shape}, but has {len(data):,}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def is_idx_folder(folder: Path) -> bool:
    """Return whether a folder holds the images to train on as an IDX file."""
    return _find(folder, "train", "images", 3) is not None


def read_idx_folder(folder: Path) -> tuple[Dataset, Dataset | None]:
    """Return the examples to train on and, if there are any, those to test on.

    They are train-images-idx3-ubyte and train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
    each with or without .gz. Images are scaled to 0 to 1 and not inverted; the classes are the labels that occur.
    Raises ValueError, naming the file, for one that is missing or does not fit; OSError if one cannot be read.
    """
    parts = {part: _read_part(folder, part) for part in PARTS if _find(folder, part, "images", 3) is not None}
    found = np.unique(np.concatenate([labels for _, labels in parts.values()]))
    classes = tuple(str(label) for label in found)
    train, *test = (Dataset(images, np.searchsorted(found, labels), classes) for images, labels in parts.values())
    if test and test[0].inputs.shape[1:] != train.inputs.shape[1:]:
        sizes = " and ".join("x".join(map(str, part.inputs.shape[1:])) for part in (train, *test))
        raise ValueError(f"{folder} has images of {sizes} to train and to test on: they must be of one size")
    return train, test[0] if test else None


def _read_part(folder: Path, part: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    arrays = []
    for kind, dimensions in (("images", 3), ("labels", 1)):
        path = _find(folder, part, kind, dimensions)
        if path is None:
            raise ValueError(f"{folder} has no {PARTS[part]}-{kind}-idx{dimensions}-ubyte, with or without .gz")
        array = read_idx(path)
        if array.dtype != np.uint8 or array.ndim != dimensions:
            raise ValueError(f"{path} must hold bytes in {dimensions} dimensions, not {array.dtype} in {array.ndim}")
        arrays.append((path, array))
    (path, images), (_, labels) = arrays
    if len(images) != len(labels) or images.size == 0:
        raise ValueError(f"{path} has {len(images):,} images and there are {len(labels):,} labels: give one to each")
    return np.divide(images, 255, dtype=np.float32), labels


def _find(folder: Path, part: str, kind: str, dimensions: int) -> Path | None:
    names = (f"{PARTS[part]}-{kind}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)
