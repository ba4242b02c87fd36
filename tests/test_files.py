"""Files that are replaced: at every instant the old one is whole or the new one is, on the disk too."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adamas import Adam, _checkpoint
from adamas._files import SCRATCH, System, remove_leftovers, replacing, write_text

OLD, NEW = b"old" * 100, b"new" * 200


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Disk(System):
    """The calls, in their order, and what a power cut after each would leave of a file.

    A file that was not flushed since may hold anything; a rename may or may not be seen until its folder is flushed.
    """

    def __init__(self, target):
        self.target, self.calls, self.possible = target, [], [{target.read_bytes()}]
        self.flushed, self.names = {}, {}

    def create(self, path):
        descriptor = super().create(path)
        self.names[descriptor] = path
        self.look("create")
        return descriptor

    def write(self, descriptor, data, offset):
        taken = super().write(descriptor, data[:37], offset)  # as a system may, only a part
        self.flushed.pop(self.names[descriptor], None)
        self.look("write")
        return taken

    def sync(self, descriptor):
        super().sync(descriptor)
        self.flushed[self.names[descriptor]] = self.names[descriptor].read_bytes()
        self.look("sync")

    def replace(self, scratch, path):
        super().replace(scratch, path)
        self.possible.append(self.possible[-1] | {self.flushed.get(scratch, b"anything")})
        self.look("replace")

    def sync_folder(self, path):
        super().sync_folder(path)
        self.possible.append({self.target.read_bytes()})
        self.look("sync_folder")

    def look(self, call):
        if self.calls[-1:] != [call]:
            self.calls.append(call)
        assert self.target.read_bytes() in (OLD, NEW)  # a kill leaves what is there


@pytest.fixture
def target(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(OLD)
    return target


def test_written_flushed_renamed_and_the_folder_flushed(target):
    disk = Disk(target)
    with replacing(target, disk) as file:
        file.write(b"?" * 300)
        file.write(NEW[300:])
        file.write_at(0, NEW[:300])
    assert disk.calls == ["create", "write", "sync", "replace", "sync_folder"]
    assert all(content in (OLD, NEW) for contents in disk.possible for content in contents)
    assert disk.possible[-1] == {NEW}
    assert names_in(target.parent) == ["x"]


def test_a_checkpoint_is_replaced_so(tmp_path):
    path, params = tmp_path / "x", {"w": np.arange(300.0)}
    opt = Adam()
    opt.update(params, {"w": np.ones(300)})
    opt.save(path, params)
    path.write_bytes(OLD)

    class Whole(Disk):
        def look(self, call):
            if self.calls[-1:] != [call]:
                self.calls.append(call)
            if self.target.read_bytes() != OLD:
                assert Adam.load(self.target).t == 1

    disk = Whole(path)
    _checkpoint.save(opt, path, params, {}, disk)
    assert disk.calls == ["create", "write", "sync", "replace", "sync_folder"]
    assert all(content == OLD or len(content) > 2400 for contents in disk.possible for content in contents)


@pytest.mark.parametrize("call", ["create", "write", "sync", "replace"])
def test_a_failing_call_leaves_the_old_file_and_nothing_else(target, call):
    class Full(System):
        pass

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    setattr(Full, call, fail)
    with (
        pytest.raises(OSError, match=r"x was not written: No space left on device; what was there before is as it was"),
        replacing(target, Full()) as file,
    ):
        file.write(NEW)
    assert target.read_bytes() == OLD
    assert names_in(target.parent) == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_leaves_the_old_file_and_nothing_else(target, error):
    def interrupted():
        with replacing(target) as file:
            file.write(NEW)
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_bytes() == OLD
    assert names_in(target.parent) == ["x"]


def test_a_limit_of_file_sizes_leaves_the_old_checkpoint(tmp_path):
    """As a full disk does; in a process of its own, which cannot write large files afterwards."""
    program = """
import resource, numpy as np
from adamas import Adam, Checkpoint
opt, params = Adam(), np.zeros(100_000)
opt.save("x", params, kept=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
params = opt.update(params, np.ones(100_000))
try:
    opt.save("x", params)
except OSError as error:
    print(error)
with Checkpoint("x") as saved:
    saved.verify()
    print(saved.metadata, saved.params().sum())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[Errno 27] x was not written: File too large; what was there before is as it was",
        "{'kept': True} 0.0",
    ]
    assert names_in(tmp_path) == ["x"]


def test_what_a_crash_left_is_removed_but_not_what_is_being_written(target):
    others = [target.with_name(name) for name in ("x.part", ".y.1234.part", "y")]
    left = target.with_name(f".x.0123{SCRATCH}")
    for path in (*others, left):
        path.write_bytes(b"partly")
    with left.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        write_text(target, "new")
        assert left.exists()
    remove_leftovers(target)
    assert not left.exists()
    assert all(path.exists() for path in others)
    assert target.read_text() == "new"


def test_a_link_stays_one(target):
    link = target.with_name("link")
    link.symlink_to("x")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_no_folder_is_an_error_that_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="none/x was not written: No such file or directory"):
        write_text(Path(tmp_path) / "none" / "x", "")
