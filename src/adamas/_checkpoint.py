"""Checkpoints of optimizers: what one file holds, how it is checked, and how an optimizer is made of it again."""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from adamas import _q8, _sparse, _stored, _tree
from adamas._files import SYSTEM, System
from adamas._formats import as_real
from adamas._memory import FLOAT, _kind
from adamas._tensorfile import DTYPES, TensorFile, write
from adamas.errors import CheckpointError, CheckpointWarning

if TYPE_CHECKING:
    from adamas._optimizer import Optimizer

Path = str | os.PathLike[str]

FORMAT = 1
"""The version of what is in the metadata; a file of a later one is refused."""

BESIDE = "run/"
"""What the names of arrays begin with that are not the optimizer's."""

SHOWN = 6
"""Differences that an error lists."""

COMPLEX = {"complex64": "float32", "complex128": "float64"}
"""Stored as pairs, which every reader of the format knows."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What taking apart a description can raise that was not written by us."""


def save(
    optimizer: "Optimizer",
    path: Path,
    params: Any,
    metadata: Mapping[str, Any],
    system: System = SYSTEM,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a checkpoint; see `Optimizer.save`. beside: further arrays, whose names begin with what `BESIDE` says."""
    memory = optimizer._memory
    leaves = {place: _stored.encoded_leaf(leaf.kind, leaf.convert) for place, leaf in memory.leaves.items()}
    if params is not None and leaves and (changes := _stored.differences(described(params), leaves)):
        raise ValueError(f"params is not what the optimizer steps: {_listed(changes)}")
    about = {
        "rule": optimizer.rule.__name__,
        "t": memory.t,
        "hyperparameters": {name: _stored.encoded_value(getattr(optimizer, name)) for name in optimizer.rule.ranges},
        "options": {name: _stored.encoded_value(optimizer.option(name)) for name in optimizer.option_names},
        "groups": [
            [pattern, {name: _stored.encoded_value(value) for name, value in values.items()}]
            for pattern, values in optimizer.groups
        ],
        "carry": memory.carry,
        "sparse": optimizer.sparse,
        "rows": _sparse.described(memory),
        "grad_norm": optimizer.grad_norm,
        "nonfinite_steps": optimizer.nonfinite_steps,
        "stepped": bool(leaves),
        "tree": None if memory.skeleton is None else _stored.encoded_tree(memory.skeleton),
        "leaves": leaves,
    }
    arrays = dict([*_state_arrays(optimizer), *_sparse.row_arrays(memory)]) | dict(beside)
    write_checkpoint(path, about, arrays, params, metadata, system)


def write_checkpoint(
    path: Path,
    about: dict[str, Any],
    arrays: Mapping[str, Any],
    params: Any,
    metadata: Mapping[str, Any],
    system: System = SYSTEM,
) -> None:
    """Write what is said about an optimizer, its arrays by name, and parameters if there are any."""
    if params is not None:
        values = {_tree.path(keys): np.asarray(value) for keys, value in _tree.leaves(params)}
        tree = _stored.encoded_tree(_tree.replace(params, iter(values), in_place=False))
        about = {**about, "leaves": described(params), "tree": tree}
        arrays = {**arrays, **{f"params/{place}": value for place, value in values.items()}}
    axes = {name: axes for name, array in arrays.items() if (axes := _stored.order_of(array)) is not None}
    about = {"format": FORMAT, **about, "axes": axes, "metadata": _checked_metadata(metadata)}
    from adamas import __version__  # noqa: PLC0415 - it imports us

    plain = {name: as_real(array) for name, array in arrays.items()}
    write(path, plain, {"adamas": __version__, "optimizer": json.dumps(about)}, system)


def _checked_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in metadata.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be of what JSON holds (texts, numbers, lists, dicts): {error}") from None
    return metadata


def _state_arrays(optimizer: "Optimizer") -> Iterator[tuple[str, Any]]:
    """Yield the name and the array of all that is remembered of each parameter."""
    sections = _sections(optimizer)
    for path, state in optimizer._memory.states().items():
        for section, value in zip(sections, state, strict=True):
            yield f"{section}/{path}", np.asarray(value)


def _sections(optimizer: "Optimizer") -> list[str]:
    """Return what the names of arrays begin with: of the rule's state, then of averages and copies."""
    return [*(f"state.{name}" for name in optimizer.rule.state_names), *optimizer.extra_names]


def described(params: Any) -> dict[str, list[Any]]:
    """Return what each parameter is, by its path."""
    return {_tree.path(keys): _described(value) for keys, value in _tree.leaves(params)}


def _described(value: Any) -> list[Any]:
    kind = _kind(value)
    return _stored.encoded_leaf(kind, np.float64 if kind == FLOAT and isinstance(value, np.float64) else None)


def _listed(changes: list[str]) -> str:
    more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(changes[:SHOWN]) + more


class Checkpoint:
    """A checkpoint that ``opt.save`` wrote, open to be read; its arrays stay in the file until they are asked for.

    path: where it is. rule: the name of the rule. t: the steps that were taken. version: of the adamas that wrote it.
    metadata: what else `save` was given. leaves: what each parameter is, by its path.

    ``with Checkpoint(path) as saved:`` closes it. Raises CheckpointError if the file is damaged or no checkpoint, and
    OSError if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.file = TensorFile(path)
        self.path = self.file.path
        try:
            about = json.loads(self.file.metadata["optimizer"])
            if type(about["format"]) is not int or about["format"] > FORMAT:
                raise CheckpointError(
                    f"{path} has the format {about['format']!r:.60}, and this adamas reads those up to {FORMAT}: "
                    "get a newer one"
                )
            self.rule, self.t, self.version = str(about["rule"]), about["t"], self.file.metadata["adamas"]
            if type(self.t) is not int or self.t < 0 or type(about["nonfinite_steps"]) is not int:
                raise ValueError(f"{self.t!r:.60} for the number of steps")
            self.metadata: dict[str, Any] = dict(about["metadata"])
            self.leaves: dict[str, list[Any]] = dict(about["leaves"])
            self.axes: dict[str, Any] = dict(about["axes"])
            self.about: dict[str, Any] = about
        except CheckpointError:
            self.close()
            raise
        except MALFORMED as error:
            self.close()
            raise self._malformed(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _malformed(self, error: Exception) -> CheckpointError:
        return self.file.damaged(f"its description has {type(error).__name__}: {error}")

    def verify(self) -> None:
        """Raise CheckpointError unless the bytes of all arrays are what their checksums say."""
        self.file.verify(self.file.entries)

    @property
    def has_params(self) -> bool:
        """Whether the parameters are in the file."""
        return all(f"params/{path}" in self.file.entries for path in self.leaves)

    def params(self, like: Any = None) -> Any:
        """Return the parameters, as they were saved.

        like: a tree of the same paths, shapes and dtypes, whose arrays, lists and dicts are overwritten, as `update`
            does; needed for trees with other nodes than lists, tuples and dicts.

        Raises CheckpointError, before anything is changed, if they are not in the file, damaged, or not like `like`.
        """
        if not self.has_params:
            raise CheckpointError(f"{self.path} holds no parameters: save(path, params) puts them in")
        try:
            zeros = {path: _stored.zero_like(leaf, self.axes.get(f"params/{path}"))
                     for path, leaf in self.leaves.items() if self._fits(f"params/{path}", leaf)}  # fmt: skip
            if like is None:
                if self.about["tree"] is None:
                    raise CheckpointError(
                        f"{self.path} holds a tree of other nodes than lists, tuples and dicts: pass like=params"
                    )
                return _stored.decoded_tree(self.about["tree"], lambda path: self._param(path, zeros[path]))
            values = {_tree.path(keys): value for keys, value in _tree.leaves(like)}
            if changes := _stored.differences(self.leaves, described(like)):
                raise CheckpointError(f"{self.path} does not fit the parameters: {_listed(changes)}")
            self.file.verify(f"params/{path}" for path in values)
            filled = (self._param(path, value) for path, value in values.items())
            return _tree.replace(like, filled, in_place=True)
        except CheckpointError:
            raise
        except MALFORMED as error:
            raise self._malformed(error) from None

    def _fits(self, name: str, leaf: list[Any]) -> bool:
        """Return True; raise unless an array in the file is as large as the leaf that it is for."""
        entry = self.file.entries[name]
        shape = tuple(leaf[2]) if len(leaf) > 1 else ()
        dtype = leaf[1] if len(leaf) > 1 else "float64"
        if dtype in COMPLEX:
            shape, dtype = (*shape, 2), COMPLEX[dtype]
        if entry.shape != shape or entry.dtype.name != dtype:
            raise ValueError(f"{entry.dtype.name} of shape {entry.shape} for {name!r}, which is {_stored.words(leaf)}")
        return True

    def _param(self, path: str, value: Any) -> Any:
        """Return a parameter: the array that is given, filled, or a number like the one that is given."""
        array = value if isinstance(value, np.ndarray) else np.array(value)
        self.file.read(f"params/{path}", as_real(array))
        return array if isinstance(value, np.ndarray) else type(value)(array[()])


# --- optimizers -------------------------------------------------------------------------------------------------------


def load(
    cls: type["Optimizer"], current: "Optimizer | None", path: Path, params: Any, strict: bool, given: dict[str, Any]
) -> "Optimizer":
    """Return a new optimizer of a class as a checkpoint says; see `Optimizer.load`."""
    with Checkpoint(path) as saved:
        if strict and saved.rule != cls.rule.__name__:
            raise CheckpointError(f"{path} holds the state of {saved.rule}, not of {cls.rule.__name__}")
        if params is not None:
            wanted = described(params)
        elif current is not None and current._memory.leaves:
            leaves = current._memory.leaves.items()
            wanted = {place: _stored.encoded_leaf(leaf.kind, leaf.convert) for place, leaf in leaves}
        else:
            wanted = saved.leaves
        try:
            optimizer = _made(cls, current, saved, given)
            changes = _filled(optimizer, saved, wanted, strict)
        except CheckpointError:
            raise
        except MALFORMED as error:
            raise saved._malformed(error) from None
    if changes:
        warnings.warn(f"{path} was loaded in part: {_listed(changes)}", CheckpointWarning, stacklevel=3)
    return optimizer


def _made(cls: type["Optimizer"], current: "Optimizer | None", saved: Checkpoint, given: dict[str, Any]) -> "Optimizer":
    """Return a new optimizer with the hyper-parameters and options of a checkpoint, or those given instead."""
    about = saved.about
    stored = {**about["hyperparameters"], **about["options"]}
    if saved.rule != cls.rule.__name__:
        stored = {name: value for name, value in stored.items() if name in (*cls.rule.ranges, *cls.option_names)}
    values: dict[str, Any] = {}
    for name, value in stored.items():
        values[name] = given[name] if name in given else _stored.decoded_value(value, _Instead(saved, current, name))
    values["groups"] = given.get("groups")
    if values["groups"] is None:
        values["groups"] = [
            (pattern, {n: _stored.decoded_value(v, _Instead(saved, current, "groups")) for n, v in group.items()})
            for pattern, group in about["groups"]
        ]
    values["sparse"] = about["sparse"]
    try:
        return cls(**{**values, **given})
    except (TypeError, ValueError) as error:
        if given:
            raise
        raise CheckpointError(f"{saved.path} cannot be used: {error}") from None


class _Instead:
    """What stands for a function that could not be stored: that of the optimizer that the file is loaded into."""

    def __init__(self, saved: Checkpoint, current: "Optimizer | None", name: str) -> None:
        self.saved, self.current, self.name = saved, current, name

    def __call__(self, words: str) -> Any:
        current, name = self.current, self.name
        if current is not None and name != "groups":
            value = current.option(name) if name in current.option_names else getattr(current, name)
            if callable(value):
                return value
        raise CheckpointError(
            f"{self.saved.path}: {name} was a function, {words!s:.200}, which cannot be stored: give it again, as "
            f"in load(path, {name}=...)"
        )


def _filled(optimizer: "Optimizer", saved: Checkpoint, wanted: Mapping[str, Any], strict: bool) -> list[str]:
    """Give an optimizer the state of a checkpoint; return in words what did not fit, which if strict raises."""
    about, memory, entries = saved.about, optimizer._memory, saved.file.entries
    changes = _stored.differences(saved.leaves, wanted)
    sections = _sections(optimizer) if about["stepped"] else []
    expected = {f"{s}/{path}" for s in sections for path, leaf in wanted.items() if saved.leaves.get(path) == leaf}
    tables = {path: rows for path, rows in about["rows"].items() if saved.leaves.get(path) == wanted.get(path)}
    expected |= {f"{name}/{path}" for path, rows in tables.items() if rows["mode"] != "lazy"
                 for name in _sparse.ROW_ARRAYS}  # fmt: skip
    held = {name for name in entries if not name.startswith(("params/", BESIDE))}
    changes += [f"{name!r} is missing" for name in sorted(expected - held)]
    if not changes or saved.rule != optimizer.rule.__name__:
        changes += [f"{name!r} is not expected" for name in sorted(held - expected)]
    if changes and strict:
        raise CheckpointError(f"{saved.path} does not fit: {_listed(changes)}")
    memory.t = saved.t
    if saved.rule == optimizer.rule.__name__:
        memory.carry = _carried(optimizer, about["carry"])
    vars(optimizer).update(grad_norm=about["grad_norm"], nonfinite_steps=about["nonfinite_steps"])
    if not about["stepped"]:
        return changes
    likes = {}
    for path, leaf in wanted.items():
        names = [f"{section}/{path}" for section in sections if f"{section}/{path}" in held & expected]
        if len(leaf) > 1 and any(8 * _bytes(entries[name]) < math.prod(leaf[2]) for name in names):
            raise ValueError(f"too few bytes for {path!r}, which is {_stored.words(leaf)}")
        likes[path] = _stored.zero_like(leaf, next((saved.axes[name] for name in names if name in saved.axes), None))
    leaves, segments = memory._learned(likes, {}, set(), {}, optimizer)
    for path, leaf in leaves.items():
        for section, array in zip(sections, segments[leaf.segment].state, strict=True):
            if (name := f"{section}/{path}") in held & expected:
                _fill(saved, name, array, leaf.index if leaf.kind == FLOAT else None)
                if array.dtype == np.uint8:
                    nonnegative = section.removeprefix("state.") in optimizer.rule.nonnegative
                    _check_blocks(saved, name, array, math.prod(leaf.kind[2]), nonnegative)
    memory.leaves, memory.segments = leaves, segments
    if saved.rule == optimizer.rule.__name__:
        memory.tables = {path: _table(optimizer, saved, path, rows) for path, rows in tables.items()}
    if about["tree"] is not None and wanted.keys() == saved.leaves.keys():
        memory.skeleton = _stored.decoded_tree(about["tree"], lambda path: path)
    return changes


def _table(optimizer: "Optimizer", saved: Checkpoint, path: str, about: Mapping[str, Any]) -> Any:
    """Return what is known of the rows of a table."""
    height, arrays = saved.leaves[path][2][0], []
    for section in _sparse.ROW_ARRAYS if about["mode"] != "lazy" else ():
        entry = saved.file.entries[f"{section}/{path}"]
        if entry.dtype != (np.int32 if section == "rows.last" else np.float64):
            raise ValueError(f"{entry.dtype.name} for {section!r} of {path!r}")
        if section == "rows.last" and entry.shape != (height,):
            raise ValueError(f"{entry.shape} for {section!r} of {path!r}")
        arrays.append(np.empty(entry.shape, entry.dtype))
        saved.file.read(f"{section}/{path}", arrays[-1])
    last, steps = arrays or (None, None)
    return _sparse.restored(optimizer.rule, about, height, last, steps)


def _carried(optimizer: "Optimizer", carry: Any) -> tuple[dict[str, float], ...]:
    """Return what lives across steps, as it was stored of each group; raise ValueError if that is not what does."""
    names = optimizer.rule.first_carry.keys()
    if len(carry) > (1 + len(optimizer.groups) if names else 0) or any(
        group.keys() != names or not all(isinstance(value, float) for value in group.values()) for group in carry
    ):
        raise ValueError(f"{carry!r:.60} for the carry of {optimizer.rule.__name__}")
    return tuple(carry)


def _bytes(entry: Any) -> int:
    return int(entry.stop - entry.start)


def _fill(saved: Checkpoint, name: str, array: Any, index: int | None) -> None:
    """Read the state of an array, or of a float among others."""
    target = as_real(array) if index is None else np.zeros(())  # floats are kept exactly
    entry = saved.file.entries[name]
    if entry.shape != target.shape or entry.dtype != target.dtype:
        raise CheckpointError(
            f"{saved.path} does not fit: {name!r} is {entry.dtype.name} of shape {entry.shape}, not "
            f"{target.dtype.name} of shape {target.shape}"
        )
    saved.file.read(name, target)
    if index is not None:
        array[index] = target


def _check_blocks(saved: Checkpoint, name: str, array: Any, size: int, nonnegative: bool) -> None:
    """Raise unless an array is what is kept of so many elements in q8."""
    try:
        _q8.check(name, array, size, nonnegative)
    except ValueError as error:
        raise CheckpointError(f"{saved.path}: {error}") from None


assert set(COMPLEX.values()) <= {dtype.name for dtype in DTYPES.values()}
