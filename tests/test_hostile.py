"""Files that are not to be trusted, damaged or made to do harm: they raise CheckpointError, soon, in little memory."""

import copy
import json
import os
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adamas import AdamW, Checkpoint, schedules
from adamas._tensorfile import BEGINNING, SUM_AT, TensorFile
from adamas.errors import CheckpointError


def checkpoint(path, size):
    params = {"w": np.linspace(0, 1, size, dtype=np.float32), "h": np.ones(3, ml_dtypes.bfloat16), "b": [0.5]}
    opt = AdamW(schedules.Warmup(2, schedules.Linear(0.1, 0.0, 9)), groups=[("b*", {"weight_decay": 0.0})], ema=0.9)
    opt.update(params, {"w": np.ones(size), "h": np.ones(3), "b": [1.0]})
    opt.save(path, params, note="kept")
    return path.read_bytes()


def load_all(path):
    """Do all that can be done with a checkpoint."""
    with Checkpoint(path) as saved:
        saved.verify()
        saved.params()
    return AdamW.load(path)


def test_every_changed_bit_of_a_small_file_is_detected(tmp_path):
    path = tmp_path / "x"
    whole = checkpoint(path, 3)
    load_all(path)
    data = bytearray(whole)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            load_all(path)
        data[bit // 8] ^= 1 << bit % 8


def test_random_changes_and_truncations_of_a_larger_file_are_detected(tmp_path):
    path, rng = tmp_path / "x", np.random.default_rng(0)
    whole = np.frombuffer(checkpoint(path, 5000), np.uint8)
    for i in range(10_000):
        data = whole.copy()
        if i % 2:
            places = rng.integers(len(data), size=rng.integers(1, 9))
            data[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
        if i % 2 == 0 or i % 5 == 0:
            data = data[: rng.integers(len(data))] if i % 3 else np.append(data, data[: rng.integers(1, 99)])
        if np.array_equal(data, whole):
            continue
        path.write_bytes(data)
        with pytest.raises(CheckpointError), Checkpoint(path) as saved:
            saved.verify()


# --- made to do harm, with checksums that are right -------------------------------------------------------------------


def crafted(path, header, data=b"", sums=None):
    """Write a file with a header, a dict or JSON after the checksum's place, whose own checksum is right."""
    if isinstance(header, dict):
        entries = len(header) - ("__metadata__" in header)
        sums = f"{zlib.crc32(data):08x}" * entries if sums is None else sums
        metadata = {"checksums": sums, **header.pop("__metadata__", {})}
        text = json.dumps({"__metadata__": metadata, **header})
        assert text.startswith('{"__metadata__": {')
        header = b'",' + text.removeprefix('{"__metadata__": {').encode()
    head = bytearray(BEGINNING + b"0" * 8 + header)
    head = bytearray(len(head).to_bytes(8, "little")) + head
    head[SUM_AT : SUM_AT + 8] = f"{zlib.crc32(head):08x}".encode()
    path.write_bytes(bytes(head) + data)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HARM = {
    "a gap": {"x": entry(offsets=[4, 12])},
    "overlapping": {"x": entry(), "y": entry(offsets=[4, 12])},
    "the same bytes": {"x": entry(), "y": entry()},
    "backwards": {"x": entry(offsets=[8, 0])},
    "negative": {"x": entry(offsets=[-8, 0])},
    "beyond the end": {"x": entry(shape=[1 << 40], offsets=[0, 1 << 42])},
    "too short": {"x": entry(shape=[1], offsets=[0, 4])},
    "wrong size": {"x": entry(shape=[3])},
    "negative sizes": {"x": entry(shape=[-1, -2])},
    "huge sizes that are none": {"x": entry(shape=[1 << 62, 0, 1 << 62], offsets=[0, 0])},
    "sizes that overflow": {"x": entry(shape=[1 << 32, 1 << 32, 2])},
    "many axes": {"x": entry(shape=[1] * 999 + [2])},
    "sizes of other types": {"x": entry(shape=[True, 2.0])},
    "a size as text": {"x": entry(shape="2")},
    "three offsets": {"x": entry(offsets=[0, 8, 8])},
    "no dtype": {"x": {"shape": [2], "data_offsets": [0, 8]}},
    "unknown dtype": {"x": entry(dtype="F128")},
    "dtype of another type": {"x": entry(dtype=["F32"])},
    "no entry": {"x": 3},
    "metadata of other types": {"x": entry(), "__metadata__": {"optimizer": 3}},
    "no description": {"x": entry()},
    "empty description": {"x": entry(), "__metadata__": {"adamas": "1", "optimizer": ""}},
    "description of another type": {"x": entry(), "__metadata__": {"adamas": "1", "optimizer": "[]"}},
    "deep description": {"x": entry(), "__metadata__": {"adamas": "1", "optimizer": "[" * 100_000}},
}


@pytest.mark.parametrize("harm", HARM)
def test_a_header_that_does_harm_is_refused(harm, tmp_path):
    crafted(tmp_path / "x", copy.deepcopy(HARM[harm]), b"\0" * 8)
    with pytest.raises(CheckpointError):
        load_all(tmp_path / "x")


@pytest.mark.parametrize(
    "header",
    [b"", b'"', b'",', b'","a":' + b"[" * 1_000_000, b'","a":' + b'{"a":' * 1_000_000, b'"},"x":1,"x":1}',
     b'","checksums":""}}garbage', b'","checksums":""}', b"\xff\xfe\xfd",
     b'","checksums":"","n":' + b"9" * 99_999 + b"}}",
     b'"},"__metadata__":{"checksums":""}}'],
)  # fmt: skip
def test_json_that_does_harm_is_refused(header, tmp_path):
    crafted(tmp_path / "x", header)
    with pytest.raises(CheckpointError):
        TensorFile(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 1, 100, 2**31, 2**63, 2**64 - 1])
def test_a_length_that_does_harm_is_refused(length, tmp_path):
    whole = checkpoint(tmp_path / "x", 3)
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + whole[8:])
    with pytest.raises(CheckpointError, match=f"its header would have {length} bytes|checksum"):
        TensorFile(tmp_path / "x")


def test_a_million_arrays_are_refused_before_they_take_memory(tmp_path):
    empty = json.dumps({"state.m/x": entry(shape=[0], offsets=[0, 0])})[1:-1].encode()
    crafted(tmp_path / "x", b'","checksums":""},' + b",".join([empty] * 1_000_000) + b"}")
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="its header would have"):
            load_all(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_arrays_that_are_not_in_the_file_take_no_memory(tmp_path):
    path = tmp_path / "x"
    checkpoint(path, 3)
    huge = 1 << 40

    def change(about):
        about["leaves"]["w"] = ["array", "float32", [huge]]

    tampered(path, change)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            AdamW.load(path)
        with pytest.raises(CheckpointError), Checkpoint(path) as saved:
            saved.params()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_names_are_no_paths(tmp_path):
    """They are only looked up; nothing is ever opened by them."""
    params = {"../../etc/passwd": np.ones(3), "/dev/null": 1.0, "\0": 2.0, "a/b.c": 3.0}
    path = tmp_path / "x"
    AdamW().save(path, params)
    with Checkpoint(path) as saved:
        assert list(saved.params()) == list(params)
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "empty", "text"])
def test_what_is_no_file_of_ours_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "x"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "empty": path.touch,
        "text": lambda: path.write_text("{}\n" * 99),
    }[kind]()
    with pytest.raises(CheckpointError, match="x is"):
        AdamW.load(path)
    with pytest.raises(FileNotFoundError):
        AdamW.load(tmp_path / "none")


def tampered(path, change):
    """Change the description in a file; its checksums are right afterwards."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    sums = header["__metadata__"].pop("checksums")
    header["__metadata__"].pop("checksum")
    about = json.loads(header["__metadata__"]["optimizer"])
    change(about)
    header["__metadata__"]["optimizer"] = json.dumps(about)
    crafted(path, header, whole[end:], sums)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([2**62, -1, 10**30]), st.floats(), st.text(max_size=3),
    st.sampled_from([[], {}, [[]], {"dict": [["a", "w"]]}, {"list": 3}]),
    st.sampled_from([["array", "float32", [3]], ["array"], ["float"]]),
    st.sampled_from([{"schedule": "Warmup", "arguments": {"steps": 1, "then": 3}}, {"schedule": "__doc__"}]),
    st.sampled_from([{"function": "f"}, {"schedule": "Cosine", "arguments": {"steps": 1}}, "w", "../w", "AdamW"]),
)  # fmt: skip


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_description_is_used_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("odd") / "x"
    checkpoint(path, 3)

    def change(node):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            change(node[key])
        elif isinstance(node, dict) and data.draw(st.integers(0, 4)) == 0:
            del node[key]
        else:
            node[key] = data.draw(ODD)

    tampered(path, change)
    try:
        opt = load_all(path)
        opt.save(path)
        AdamW.load(path)
    except CheckpointError:
        pass
