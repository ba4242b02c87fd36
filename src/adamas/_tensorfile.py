"""Files in the format safetensors: written piece by piece, and read by those who do not trust them.

Such a file is eight bytes with the length of the header, the header in JSON, and the arrays in C order. What we write
begins with a checksum of the header, and holds one of each array, so that no changed bit is taken for a number.
"""

import json
import math
import mmap
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from adamas._files import SYSTEM, System, replacing
from adamas._formats import BFLOAT16
from adamas.errors import CheckpointError

Array = NDArray[Any]

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "BF16": BFLOAT16, "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64), "U64": np.dtype(np.uint64), "I32": np.dtype(np.int32), "U32": np.dtype(np.uint32),
    "I16": np.dtype(np.int16), "U16": np.dtype(np.uint16), "I8": np.dtype(np.int8), "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

LARGEST_HEADER = 16 << 20
"""Bytes: what a hostile file may make us read before its checksums are known; enough for some 100,000 arrays."""
MOST_AXES = 64
PIECE = 1 << 20
"""Bytes that are written, or read and checked, at once."""

SUM_DIGITS = 8
BEGINNING = b'{"__metadata__":{"checksum":"'
SUM_AT = 8 + len(BEGINNING)
"""Where the checksum of the header is in a file."""
SUMS_AT = SUM_AT + SUM_DIGITS + len(b'","checksums":"')
"""Where those of the arrays are."""


class Entry(NamedTuple):
    """An array in a file: its dtype and shape, where its bytes are from the beginning of the file, its checksum."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int
    checksum: str


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, str], system: System = SYSTEM
) -> None:
    """Write arrays of any layout under names, in place of the file that is there, without copies of them.

    Raises OSError if it cannot be written, and ValueError if there are too many arrays.
    """
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)  # so that each begins at its own alignment
    sums = "0" * (SUM_DIGITS * len(ordered))
    header: dict[str, Any] = {"__metadata__": {"checksum": "0" * SUM_DIGITS, "checksums": sums, **metadata}}
    start = 0
    for name, array in ordered:
        stop = start + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > LARGEST_HEADER:
        raise ValueError(
            f"{len(ordered)} arrays with {len(encoded)} bytes of names and metadata are more than a checkpoint takes, "
            f"{LARGEST_HEADER}: pack small arrays into larger ones"
        )
    with replacing(path, system) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        sums = "".join(_written(file, array) for _, array in ordered)
        head = bytearray(len(encoded).to_bytes(8, "little") + encoded)
        head[SUMS_AT : SUMS_AT + len(sums)] = sums.encode()
        head[SUM_AT : SUM_AT + SUM_DIGITS] = _digits(zlib.crc32(head)).encode()
        file.write_at(0, bytes(head))


def _written(file: Any, array: Array) -> str:
    """Write an array in C order, piece by piece, and return its checksum."""
    checksum = 0
    for piece in pieces(array):
        checksum = zlib.crc32(piece, checksum)
        file.write(piece)
    return _digits(checksum)


def pieces(array: Array) -> Iterable[memoryview]:
    """Yield the bytes of an array in C order, a piece at a time; nothing is copied where they lie so."""
    array = array.view(f"u{array.itemsize}")  # bytes whatever the dtype
    if array.flags.c_contiguous:
        data = array.reshape(-1).data.cast("B")
        yield from (data[i : i + PIECE] for i in range(0, len(data), PIECE))
    else:
        flags = ["external_loop", "buffered", "zerosize_ok"]
        for chunk in np.nditer(array, flags, order="C", buffersize=PIECE // array.itemsize):  # type: ignore[call-overload]
            yield np.ascontiguousarray(chunk).data.cast("B")


def _digits(checksum: int) -> str:
    return f"{checksum:0{SUM_DIGITS}x}"


class TensorFile:
    """A file that `write` wrote, open to be read: nothing is taken from it that was not checked.

    path: its name, for errors. entries: the arrays by name. metadata: texts by name. Raises CheckpointError unless it
    is such a file with a sound header, and OSError if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise CheckpointError(f"{path} is not a file")
            self._size = about.st_size
            if self._size < SUMS_AT:
                raise CheckpointError(f"{path} is no checkpoint of adamas: it has {self._size} bytes")
            self._map = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
        finally:
            os.close(descriptor)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._map.close()

    def damaged(self, what: str) -> CheckpointError:
        """Return the error that says what is wrong with the file."""
        return CheckpointError(f"{self.path} is damaged, or no checkpoint of adamas: {what}")

    # --- the header ---------------------------------------------------------------------------------------------------

    def _read_header(self) -> None:
        length = int.from_bytes(self._map[:8], "little")
        if not SUMS_AT <= 8 + length <= self._size or length > LARGEST_HEADER:
            raise self.damaged(f"its header would have {length} bytes, the file has {self._size}")
        head = bytearray(self._map[: 8 + length])
        if head[8:SUM_AT] != BEGINNING:
            raise self.damaged("it does not begin with the checksum of its header")
        found = head[SUM_AT : SUM_AT + SUM_DIGITS].decode("latin-1")
        head[SUM_AT : SUM_AT + SUM_DIGITS] = b"0" * SUM_DIGITS
        if found != _digits(zlib.crc32(head)):
            raise self.damaged("its header is not what its checksum says")
        try:
            header = json.loads(head[8:], object_pairs_hook=_unique)
            self.metadata: dict[str, str] = _texts(header.pop("__metadata__"))
            self.entries = _entries(header, self.metadata["checksums"], 8 + length, self._size)
        except RecursionError:
            raise self.damaged("its header is nested too deeply") from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self.damaged(f"its header says {error}") from None

    # --- the arrays ---------------------------------------------------------------------------------------------------

    def verify(self, names: Iterable[str]) -> None:
        """Raise CheckpointError if the bytes of an array are not what its checksum says."""
        for name in names:
            self._checked(name, None)

    def read(self, name: str, target: Array) -> None:
        """Fill an array of an entry's shape and dtype; raises CheckpointError once it is filled, if bytes are wrong."""
        entry = self.entries[name]
        assert target.shape == entry.shape
        assert target.dtype == entry.dtype
        if target.flags.c_contiguous:
            self._checked(name, target.reshape(-1).view(np.uint8).data)
            return
        self._checked(name, None)
        with memoryview(self._map) as whole, whole[entry.start : entry.stop] as data:
            source = np.frombuffer(data, entry.dtype).reshape(entry.shape)
            target[...] = source
            del source
        self._forget(entry.start, entry.stop)

    def _checked(self, name: str, target: memoryview | None) -> None:
        """Compare the checksum of an entry with that of its bytes, which are copied on the way if there is a target."""
        entry, checksum = self.entries[name], 0
        with memoryview(self._map) as whole:
            for start in range(entry.start, entry.stop, PIECE):
                stop = min(start + PIECE, entry.stop)
                with whole[start:stop] as piece:
                    if target is None:
                        checksum = zlib.crc32(piece, checksum)
                    else:
                        inside = target[start - entry.start : stop - entry.start]
                        inside[:] = piece
                        checksum = zlib.crc32(inside, checksum)
                self._forget(start, stop)
        if _digits(checksum) != entry.checksum:
            raise self.damaged(f"the bytes of {name!r} are not what their checksum says")

    def _forget(self, start: int, stop: int) -> None:
        """Give back the memory of pages that were read."""
        start = start // mmap.PAGESIZE * mmap.PAGESIZE
        if stop - start >= PIECE:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _texts(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("metadata that are no texts")
    return metadata


def _entries(header: dict[str, Any], sums: str, data: int, size: int) -> dict[str, Entry]:
    """Return the entries of a header; raise ValueError or TypeError unless they fill the file, in order."""
    if len(sums) != SUM_DIGITS * len(header):
        raise ValueError(f"that there are {len(sums) / SUM_DIGITS:g} checksums for {len(header)} arrays")
    entries, end = {}, data
    for i, (name, about) in enumerate(header.items()):
        dtype, shape, (start, stop) = DTYPES[about["dtype"]], about["shape"], about["data_offsets"]
        if not isinstance(shape, list) or not all(type(n) is int for n in (*shape, start, stop)):
            raise TypeError(f"that {name!r:.60} has sizes or offsets that are no integers")
        if len(shape) > MOST_AXES or min(shape, default=0) < 0 or max(shape, default=0) > size:
            raise ValueError(f"that {name!r:.60} has the shape {shape!s:.60}")
        if data + start != end or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"that {name!r:.60} lies where it cannot")
        end = data + stop
        sum_at = SUM_DIGITS * i
        entries[name] = Entry(dtype, tuple(shape), data + start, end, sums[sum_at : sum_at + SUM_DIGITS])
    if end != size:
        raise ValueError(f"that the file has {end} bytes, and it has {size}")
    return entries
