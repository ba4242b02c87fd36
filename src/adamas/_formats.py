"""The formats that numbers are stored in, in NumPy: how each is read and written.

The reference of engine/formats.hpp, which returns the same bits. Rules compute in float64 for float64 parameters and in
float32 for the others; they know no formats.
"""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
REALS = (np.dtype(np.float64), np.dtype(np.float32), BFLOAT16, np.dtype(np.float16))
COMPLEX = (np.dtype(np.complex128), np.dtype(np.complex64))

Array = NDArray[Any]

LARGEST_BFLOAT16 = np.uint16(0x7F7F).view(BFLOAT16).astype(np.float32)

RANDOM_BLOCK = 256
"""Elements whose random numbers come from one hash."""


def arithmetic(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what the rules compute in for a parameter of a dtype; complex for a complex one."""
    if dtype in COMPLEX:
        return dtype
    return REALS[0] if dtype == REALS[0] else REALS[1]


def state_dtype(dtype: np.dtype[Any], state_format: str) -> np.dtype[Any]:
    """Return the dtype of the state of a parameter of a dtype, unless it is q8 (`adamas._q8`).

    Complex state is always as its parameter.
    """
    return BFLOAT16 if state_format == "bfloat16" and arithmetic(dtype) == REALS[1] else arithmetic(dtype)


def as_real(array: Array) -> Array:
    """Return a complex array as a view of pairs, with one more axis; any other as it is."""
    return array[..., None].view(f"f{array.itemsize // 2}") if array.dtype in COMPLEX else array


def store(x: Array, dtype: np.dtype[Any], random: Array | None = None) -> Array:
    """Return numbers in a format: the nearest, ties to even; for bfloat16 at random, given numbers below 2**16."""
    if dtype.itemsize == 2:
        x = x.astype(np.float32, copy=False)
    if dtype != BFLOAT16 or random is None:
        return x.astype(dtype, copy=False)
    bits = np.ascontiguousarray(x).view(np.uint32)
    finite = (bits & 0x7FFFFFFF) < 0x7F800000
    upper = (np.where(finite, bits + random, bits) >> 16).astype(np.uint16)
    rounded: Array = np.where(np.isnan(x), np.uint16(0x7FC0), upper).view(BFLOAT16)
    return rounded


def within(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers of the state, which if finite must not become infinite in the format that they are stored in."""
    if dtype != BFLOAT16:
        return x
    return np.where(np.isfinite(x), np.clip(x, -LARGEST_BFLOAT16, LARGEST_BFLOAT16), x)


# --- random numbers ---------------------------------------------------------------------------------------------------


def mix64(x: Array) -> Array:
    """Return the finaliser of splitmix64 of uint64 numbers: a bijection without visible structure.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", Figure 14.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def random_blocks(sizes: Iterable[int]) -> list[int]:
    """Return for each of the arrays of an optimizer the number of its first block of 256 elements."""
    return list(accumulate((-(-n // RANDOM_BLOCK) for n in sizes), initial=0))[:-1]


def random_numbers(seed: int, t: int, first: int, role: int, n: int, bits: int = 16) -> Array:
    """Return n numbers, uniform below 2**bits, by which the elements of an array are rounded in step t.

    first: the number of the array's first block (`random_blocks`). role: 0 for the parameter, 1, 2, ... for its state.
    They depend on nothing else, so neither on threads nor on what was stepped before, nor on how elements are cut into
    arrays, if that is at multiples of 256. Within a block of 256 they are pairwise independent: multiply-shift
    (Dietzfelbinger 1996).
    """
    one = np.ones(1, np.uint64)  # arrays wrap round, scalars warn
    key = mix64(mix64(one * np.uint64(seed)) + np.uint64(t))
    key = mix64(key ^ np.uint64(role))
    blocks = np.uint64(first) + np.arange(-(-n // RANDOM_BLOCK), dtype=np.uint64)
    hashes = mix64(key + blocks * np.uint64(0xD1B54A32D192ED03))
    low, high = hashes.astype(np.uint32), (hashes >> np.uint64(32)).astype(np.uint32)
    sums = high[:, None] + np.arange(RANDOM_BLOCK, dtype=np.uint32) * low[:, None]
    numbers: Array = sums >> np.uint32(32 - bits)
    return numbers.reshape(-1)[:n]
