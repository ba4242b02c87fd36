"""The q8 format of state, in NumPy: a byte per element, and one for the scale of each block of 256.

The reference of engine/q8.hpp, which returns the same bits. What is kept of an array of n elements is one array of
bytes: n codes in C order, then a scale for each block of 256 elements, the last of which may be shorter. The scale is
the biased exponent of a float32, and a code says where in the block's range an element is:

- of state that may be negative, a sign and seven bits, e4m3 less its own zero point, so that 0 is exact and small
  numbers are evenly spaced;
- of state that is never negative (`Rule.nonnegative`), e5m3 without a zero: the least code is the largest number of the
  block times 2**-31, so that no denominator becomes 0. Only a block of zeros reads as zeros.

Elements are rounded at random (Croci et al. 2022, "Stochastic rounding: implementation, error analysis and
applications"), so that the state is right on average: in a step at beta2 = 0.999 a second moment changes by a tenth of
a percent, far less than a code resolves, and rounded to the nearest it would not move at all.
"""

import sys
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adamas._formats import RANDOM_BLOCK as BLOCK
from adamas._formats import Array, random_numbers
from adamas.rules import Rule

Bytes = NDArray[np.uint8]

LEAST = 4096
"""Arrays of fewer elements keep their state in float32."""

RANDOM_BITS = 20
"""What is below a code: the bits that rounding adds to."""

NEAREST = np.uint32(1 << (RANDOM_BITS - 1))
"""What is added in place of a random number to round to the nearest."""

LARGEST_SIGNED = np.uint32(0x7F6FFF00).view(np.float32)
"""The largest magnitude, that of the last code of the scale 254 and what its zero point takes away."""

LARGEST = np.uint32(0x7F700000).view(np.float32)
"""The same of state that is never negative: 1.875 * 2**127."""


def size(n: int) -> int:
    """Return how many bytes the state of n elements takes."""
    return n + -(-n // BLOCK)


def decode(state: Bytes, n: int, nonnegative: bool) -> Array:
    """Return the n float32 numbers that are kept in an array of `size(n)` bytes."""
    numbers: Array = _numbers(_blocks(state[:n]), state[n:, None], nonnegative).reshape(-1)[:n]
    return numbers


class Coded(NamedTuple):
    """State as it is kept, and what has to be known to read it."""

    state: Bytes
    n: int
    nonnegative: bool

    def at(self, places: Array) -> Array:
        """Return some of the numbers."""
        return _numbers(self.state[places], self.state[self.n + places // BLOCK], self.nonnegative)


def encode(x: Array, nonnegative: bool, random: Array | None = None) -> Bytes:
    """Return float32 numbers as they are kept; rounded at random, given numbers below 2**20, else to the nearest.

    What is not finite becomes 0, but for positive infinity where nothing is negative; that, and what is beyond the
    largest number of the format, becomes the largest.
    """
    rounding = NEAREST if random is None else _blocks(random.astype(np.uint32))
    blocks = _blocks(x.astype(np.float32, copy=False))
    if nonnegative:
        bits = np.where(blocks > 0, np.minimum(blocks, LARGEST), np.float32(0)).view(np.uint32)
        most = bits.max(axis=1, keepdims=True, initial=0)
        scales = np.where(most > 0, np.maximum(32, (most + np.uint32(0xFFFFF)) >> np.uint32(23)), 0)
        codes = np.maximum(0, (bits - _floor(scales) + rounding).view(np.int32) >> RANDOM_BITS)
    else:
        finite = np.where(np.abs(blocks) < np.inf, np.clip(blocks, -LARGEST_SIGNED, LARGEST_SIGNED), np.float32(0))
        magnitude = np.abs(finite)
        most = magnitude.view(np.uint32).max(axis=1, keepdims=True, initial=0)
        scales = np.maximum(19, (most + np.uint32(0x1000FF)) >> np.uint32(23))
        zero = _zero_point(scales)
        codes = ((magnitude + zero.view(np.float32)).view(np.uint32) - zero + rounding) >> np.uint32(RANDOM_BITS)
        codes = codes | (finite.view(np.uint32) >> np.uint32(31)) << np.uint32(7)
    return np.concatenate([codes.astype(np.uint8).reshape(-1)[: x.size], scales.astype(np.uint8).reshape(-1)])


def randoms(seed: int, t: int, first: int, role: int, n: int) -> Array:
    """Return the numbers that round the state of an array at random; see `random_numbers`."""
    return random_numbers(seed, t, first, role, n, RANDOM_BITS)


def check(name: str, state: Bytes, n: int, nonnegative: bool) -> None:
    """Raise ValueError, naming the state, unless an array of bytes may be what is kept of n elements."""
    if state.dtype != np.uint8 or state.shape != (size(n),):
        raise ValueError(
            f"{name} is {state.dtype} of shape {state.shape}: {n} elements in q8 are {size(n)} bytes, uint8 of shape "
            f"{(size(n),)}, a code for each element and then a scale for each {BLOCK}"
        )
    scales = state[n:]
    wrong = scales == 255
    if nonnegative:
        filled = np.logical_or.reduceat(state[:n] != 0, np.arange(0, n, BLOCK)) if n else scales.astype(bool)
        wrong |= ((scales > 0) & (scales < 32)) | ((scales == 0) & filled)
    if wrong.any():
        block = int(np.argmax(wrong))
        raise ValueError(
            f"{name} is not q8 state: block {block} of {len(scales)} has the scale {scales[block]}, which no block "
            "has. The file is damaged, or of another format"
        )


def check_rule(rule: type[Rule]) -> None:
    """Raise ValueError if there is nothing to keep in q8; warn if it is not advisable."""
    if not rule.state_names:
        raise ValueError(
            f"state_format='q8' is for the state of a rule, and {rule.__name__} has none: leave state_format out"
        )
    if rule.if_rounded:
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in ("adamas", "torch"):
            level, frame = level + 1, frame.f_back  # to the line that asked for it
        warnings.warn(
            f"state_format='q8' rounds the state of {rule.__name__} coarsely: {rule.if_rounded}", stacklevel=level
        )


def _blocks(x: Array) -> Array:
    """Return elements as rows of a block each, the last one filled up with zeros."""
    return np.pad(x, (0, -len(x) % BLOCK)).reshape(-1, BLOCK)


def _numbers(codes: Bytes, scales: Bytes, nonnegative: bool) -> Array:
    """Return the float32 numbers of codes in blocks of these scales."""
    codes, scales = codes.astype(np.uint32), scales.astype(np.uint32)
    if nonnegative:
        return ((codes << np.uint32(RANDOM_BITS)) + _floor(scales)).view(np.float32)
    zero = _zero_point(scales)
    magnitude = (((codes & 0x7F) << np.uint32(RANDOM_BITS)) + zero).view(np.float32) - zero.view(np.float32)
    return (magnitude.view(np.uint32) | (codes & 0x80) << np.uint32(24)).view(np.float32)


def _zero_point(scales: Array) -> Array:
    """Return the bits of what is added to the magnitudes of blocks of these scales: the scale less 15, 2**-15 of it."""
    return (np.maximum(scales, 19) - 15).astype(np.uint32) << np.uint32(23)


def _floor(scales: Array) -> Array:
    """Return the bits of the least number of blocks of these scales."""
    return np.where(scales > 0, scales - np.uint32(31), 0).astype(np.uint32) << np.uint32(23)
